"""Acceptance: the live profile, the result profile, and the open requests that results must answer."""
