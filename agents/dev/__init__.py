"""What stands in for the real services during development and tests, and is never used in production."""
