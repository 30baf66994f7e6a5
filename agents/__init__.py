"""What people run: agents, clients, workers, identity, the command line and the development environment."""
