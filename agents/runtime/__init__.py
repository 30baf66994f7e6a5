"""The parts that a process runs on: node, worker, client, health, settings, policy, and replay."""
