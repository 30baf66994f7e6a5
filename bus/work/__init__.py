"""Step 18: the executor, durable work, attempts and their completion, statuses, dead letters."""
