"""Acceptance: the profiles for live, parked and result messages, and the open requests that results answer."""
