"""Tests from the past: recorded decisions, grouped into ways of deciding, reduced and written as Rego tests."""
