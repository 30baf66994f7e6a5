"""The edge: HTTP in from users and backends, tasks and calls out, and the token service."""
