"""Decisions in the console: the live feed, the search, explanations, and what another policy would decide."""
