"""Step 18: the executor, durable work, attempts and what comes of them, statuses, dead letters."""
