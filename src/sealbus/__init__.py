"""Secure agent-to-agent messaging over NATS."""
