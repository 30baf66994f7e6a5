"""Whether a subject is within a NATS subject filter."""

from __future__ import annotations

__all__ = ["matches"]


def matches(pattern: str, subject: str) -> bool:
    """Tell whether `subject` is matched by `pattern`, where `*` stands for one token and a last `>` for one or more."""
    if pattern == subject:
        return True
    wanted = pattern.split(".")
    tokens = subject.split(".")
    for place, token in enumerate(wanted):
        if token == ">":
            return len(tokens) > place
        if place >= len(tokens) or token not in ("*", tokens[place]):
            return False
    return len(tokens) == len(wanted)
