"""Approval as evidence: tasks that wait for a person, what people said about them, and how they go on."""
