"""Regular expressions: the part that Go (OPA) and Rust (regorus) read alike, and that both compile."""

from __future__ import annotations

import re
from typing import Final

from sealbus.policies.interpreter import regex_compiles

__all__ = ["regex_problem"]

_REPEAT: Final = 1_000
"""Go refuses more; Rust takes them, as long as what it compiles them to is small enough."""

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


def regex_problem(pattern: str) -> str | None:
    """Return why the two engines might read `pattern` otherwise, or one of them not at all; None where both take it."""
    position = 0
    repeats = [1]
    """For each group that is open, how often repetitions inside of it multiply."""
    while position < len(pattern):
        atom = _ATOM.match(pattern, position)
        if atom is None:
            return (
                f"character {position + 1} of the pattern: write ASCII, classes such as [0-9A-Za-z_], ( ), |, ^, $, * "
                "+ ? {n,m}; not \\d \\w \\s \\b, flags or look-around"
            )
        position = atom.end()
        inside = 1
        if atom.lastgroup == "open":
            repeats.append(1)
        elif atom.lastgroup == "close":
            inside = repeats.pop()
            if not repeats:
                return "a ) without its ("
        times = _TIMES.match(pattern, position)
        if times is not None:
            if atom.lastgroup in ("open", "anchor", "alternative"):
                return f"character {position + 1} of the pattern repeats nothing"
            least, most = int(times["least"] or 0), int(times["most"] or times["least"] or 0)
            inside *= max(most, 1)
            if inside > _REPEAT or least > most:
                return f"repetitions are at most {_REPEAT}, those inside one another multiplied, and not falling"
            position = times.end()
        repeats[-1] = max(repeats[-1], inside)
    if len(repeats) > 1:
        return "a ( without its )"
    return None if regex_compiles(pattern) else "the pattern is too large for regorus: repeat fewer or smaller classes"
