"""What a process runs on: node, worker, client, health, settings, policy, and replay."""
