"""Backtests: another policy, or the policy of that time, makes recorded decisions again."""
