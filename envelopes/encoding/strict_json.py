"""Strict JSON for untrusted input: one meaning or none (SPEC.md section 5; RFC 8259 leaves repeated names to the reader).

Tokens, key sets, root files and other untrusted documents are parsed by these rules, so that two readers of one cannot
see different claims in it.
"""

from __future__ import annotations

import json
import re
from typing import Final, NoReturn, TypeAlias, cast

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"

_STRINGS: Final = re.compile(r'"[^"\\]*+(?:\\(?:.|\Z)[^"\\]*+)*+(?:"|\Z)', re.DOTALL)
"""A string up to its end or, if the end is missing, the rest of the text. No part is scanned twice."""
_BRACKETS: Final = re.compile(r"[\[{\]}]")
_RUN: Final = re.compile(rf'(?:[^"]++|{_STRINGS.pattern}){{1,4096}}+', re.DOTALL)
"""Whole strings and the text between them. Runs are bounded, because other threads wait while the pattern matches."""
_ONE_RUN: Final = 65_536
"""Longest text that is scanned as one run, in characters."""


def parse_object(data: bytes, *, depth: int) -> dict[str, Json]:
    """Parse `data` as a JSON object; objects and arrays nest at most `depth` deep, the outermost is 1.

    Raises only `ValueError`: for bytes that are not UTF-8, a byte order mark, a name that occurs twice in one object, NaN
    and the infinities, any value but an object, and bytes after the object. The caller bounds the length. Numbers with a
    fraction or an exponent are floats, which no caller accepts as integers.
    """
    text = data.decode("utf-8")
    if deeper_than(text, depth):
        raise ValueError("nested too deep")
    value = cast("Json", json.loads(text, object_pairs_hook=_distinct, parse_constant=_refuse_constant))
    if type(value) is not dict:
        raise ValueError("not an object")
    return value


def deeper_than(text: str, depth: int) -> bool:
    """Return whether brackets outside strings nest deeper than `depth`.

    Check this before parsing, because json's parser recurses. Up to the first syntax error, both see the same strings.
    Brackets after the error do not matter, because the parser refuses there.
    """
    if text.count("[") + text.count("{") <= depth:
        return False
    level = 0
    for run in (text,) if len(text) <= _ONE_RUN else (run.group() for run in _RUN.finditer(text)):
        for bracket in _BRACKETS.findall(_STRINGS.sub("", run)):
            level += 1 if bracket in "[{" else -1
            if level > depth:
                return True
    return False


def _distinct(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    entries = dict(pairs)
    if len(entries) != len(pairs):
        raise ValueError("a name occurs twice")
    return entries


def _refuse_constant(_: str) -> NoReturn:
    raise ValueError("not a JSON number")
