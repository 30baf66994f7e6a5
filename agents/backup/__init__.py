"""Backups of a deployment: its streams, the notary's log with the archived policies, and its keys on request."""
