"""Schedules: tasks that an identity sends at a time, or again and again, each tick once over all of its processes."""
