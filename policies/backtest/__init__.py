"""Backtests: recorded decisions made again by another policy, or by the policy of their time."""
