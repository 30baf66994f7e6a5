"""Decisions in the console: as they come, found again, explained, and asked again of another policy."""
