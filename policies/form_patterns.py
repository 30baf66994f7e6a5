"""Regular expressions and globs: the part of each that Go (OPA) and Rust (regorus) read alike."""

from __future__ import annotations

import re
from typing import Final

__all__ = ["glob_problem", "regex_problem"]

_REPEAT: Final = 1_000
"""Go refuses more; Rust takes them."""

# \d, \w, \s and \b are ASCII in Go and Unicode in Rust; &&, -- and ~~ in a class are operators in Rust only.
_ATOM: Final = re.compile(
    r"""
      (?P<class>\[\^?(?:\\[\\\]\[^.$*+?(){}|/-]|[A-Za-z0-9_.,:;@/!#%=<>'"$*+?(){}|^ ](?:-[A-Za-z0-9])?)+-?\])
    | (?P<escape>\\[\\.+*?()\[\]{}|^$/-])
    | (?P<open>\((?:\?:)?)
    | (?P<close>\))
    | (?P<anchor>[\^$])
    | (?P<alternative>\|)
    | (?P<plain>[A-Za-z0-9_.,:;@/!#%=<>'"&~ -])
    """,
    re.VERBOSE,
)
_TIMES: Final = re.compile(r"(?:[*+?]|\{(?P<least>\d{1,4})(?:(?P<comma>,)(?P<most>\d{1,4})?)?\})\??")
_GLOB: Final = re.compile(r"[A-Za-z0-9_.,:;@/!#%=<>&~ *-]*")


def regex_problem(pattern: str) -> str | None:
    """Return why the two engines might read `pattern` otherwise; None where they cannot."""
    position = level = 0
    while position < len(pattern):
        atom = _ATOM.match(pattern, position)
        if atom is None:
            return (
                f"character {position + 1} of the pattern: write ASCII, classes such as [0-9A-Za-z_], ( ), |, ^, $, * "
                "+ ? {n,m}; not \\d \\w \\s \\b, flags or look-around"
            )
        position = atom.end()
        level += (atom.lastgroup == "open") - (atom.lastgroup == "close")
        if level < 0:
            return "a ) without its ("
        times = _TIMES.match(pattern, position)
        if times is None:
            continue
        if atom.lastgroup in ("open", "anchor", "alternative"):
            return f"character {position + 1} of the pattern repeats nothing"
        least, most = int(times["least"] or 0), int(times["most"] or times["least"] or 0)
        if most > _REPEAT or least > most:
            return f"a repetition is at most {_REPEAT}, and not falling"
        position = times.end()
    return "a ( without its )" if level else None


def glob_problem(pattern: str, delimiter: str) -> str | None:
    """Return why the two engines might read the glob `pattern`, its parts split at `delimiter`, otherwise.

    None where they cannot. With two delimiters they differ on `**`, with `:` on `*`.
    """
    if delimiter not in (".", "/"):
        return 'the delimiters are ["."] or ["/"]'
    if _GLOB.fullmatch(pattern) is None:
        return "write ASCII letters, digits, . , : ; @ / ! # % = < > & ~ - _ space, * and **"
    if any("**" in part and part != "**" for part in pattern.split(delimiter)):
        return "** is a whole part between delimiters"
    return None
