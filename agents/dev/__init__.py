"""Stand-ins for the real services during development and tests, never used in production."""
