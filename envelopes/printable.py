"""Text as people are shown it: characters that a terminal would obey, or that are invisible, are escaped."""

from __future__ import annotations


def printable(text: str) -> str:
    """Return `text` on one line, with control characters, line ends, changes of direction and lone surrogates escaped.

    An attacker may have chosen the text of a log, and terminals obey control characters.
    """
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode("ascii")
        for character in text
    )
