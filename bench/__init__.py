"""Figures with their limits; `python -m bench` prints all of them in one run."""
