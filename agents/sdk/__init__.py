"""The interface for writing agents: `Agent`, `Context`, `Resource`, bodies, task handles."""
