"""Explanations of past decisions: which rules held and failed, where, and by which values. Nothing is stored here."""
