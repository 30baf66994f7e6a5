"""Recorded messages given to a handler again: nothing is sent, acknowledged or recorded."""
