"""Step 18: the executor, and everything about work: approvals, cancels, schedules, idempotency, statuses, and room."""
