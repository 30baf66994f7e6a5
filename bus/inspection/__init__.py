"""Readers for operators: tasks, dead letters, refused messages, rates and agents; and repairs of dead letters."""
