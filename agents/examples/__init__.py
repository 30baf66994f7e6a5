"""A small shop to read and to run: inventory, pricing and planner, each an agent in one file, their data in SQLite."""
