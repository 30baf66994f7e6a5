"""A small shop to read and to run: inventory, pricing, planner and payments, each an agent in one file, with SQLite."""
