"""Figures beside their limits; `python -m bench` prints all of them in one run."""
