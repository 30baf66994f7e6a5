"""Replay of recorded messages into a handler: nothing is sent, acknowledged or recorded."""
