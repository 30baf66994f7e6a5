"""The edge's own protocol: tasks, calls, approvals and schedules over HTTP and JSON, and the token service."""
