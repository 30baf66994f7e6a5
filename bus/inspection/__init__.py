"""What an operator sees on the bus and repairs there: tasks, dead letters, and who consumes."""
