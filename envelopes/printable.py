"""Text as it is shown to people: what a terminal or a browser would obey, or nobody would see, is made visible."""

from __future__ import annotations


def printable(text: str) -> str:
    """Return `text` on one line, with everything escaped that would not be seen as itself.

    That is control characters, line ends, changes of direction and lone surrogates. Anyone may have chosen what a log holds,
    and a terminal obeys what it is sent.
    """
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode("ascii")
        for character in text
    )
