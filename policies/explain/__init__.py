"""Explaining a decision after the fact: which rules held and failed, where, and by what values. Nothing here is stored."""
