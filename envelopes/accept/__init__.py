"""Acceptance: the live profile, the result profile, and the requests that results are held against."""
