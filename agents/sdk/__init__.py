"""What agents are written with: `Agent`, `Context`, `Resource`, bodies, task handles."""
