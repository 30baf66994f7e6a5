"""Cancelling work: the stops that are in force, and the control message that sets one."""
