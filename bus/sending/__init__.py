"""Sending: messages before they are sealed, the outbox, and the body of a status."""
