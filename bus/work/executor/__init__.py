"""Runs the handlers of permitted messages, and ends each of their attempts."""
