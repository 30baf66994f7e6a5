"""A small package as its user writes it; mypy and pyright check it, and its test is run with all others."""
