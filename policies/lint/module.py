"""A Rego file as text, bounded before any parser sees it, and the problems for which a bundle is refused."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Self

from sealbus.envelopes.errors import ConfigurationError
from sealbus.policies.lint.syntax import Place

TEST_SUFFIX: Final = "_test.rego"
"""Files with this ending never become part of a bundle."""

LIBRARY: Final = ("sealbus", "lib")
"""The package above those of the library (`bundle.library`). Every bundle has the library, even if no rule calls it."""

MODULE_BYTES: Final = 262_144
NESTING: Final = 10
"""Nesting of brackets; regorus' parser doubles its time with each level of arrays, sets or objects (12: 0.2 s)."""
OPERATORS: Final = 2_000
"""Infix operators of a file outside strings and comments; a single chain of 10,000 overflows regorus' stack."""

_TOKEN: Final = re.compile(r'"(?:[^"\\\n]++|\\.)*+"?|`[^`]*+`?|#[^\n]*+|[\[{(\]})]|[-+*/%|&]')
"""A text that is not closed is one up to the end of its line, or of the file: so no part is scanned twice, and a parser
goes no further."""
_UNREAD: Final = re.compile("[\0\ufeff]")
_PATH: Final = re.compile(r"[A-Za-z0-9_.\-]+(?:/[A-Za-z0-9_.\-]+)*")

_SHOWN = 8
"""Problems that an error's text lists; the error itself holds all of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Module:
    """A Rego file: `path` relative to its bundle, parts joined by `/`; `text` its whole text.

    Construction raises `PolicyRefused` for a text that could exhaust a parser, or that OPA cannot read: over 262,144 bytes of
    UTF-8, brackets nested over 10 deep, over 2,000 infix operators, U+0000 or U+FEFF. It does not check whether it is Rego.
    """

    path: str
    text: str

    def __post_init__(self) -> None:
        if _PATH.fullmatch(self.path) is None:
            raise ValueError(f"not a path inside a bundle: {self.path!r}")
        try:
            size = len(self.text.encode())
        except UnicodeEncodeError as error:
            raise PolicyRefused([self._problem(0, "encoding", "the text is not valid Unicode")]) from error
        unread = _UNREAD.search(self.text)
        if unread is not None:
            text = "OPA cannot read U+0000 and U+FEFF, not even in a comment: write \\u0000 or \\ufeff in a text"
            raise PolicyRefused([self._problem(unread.start(), "encoding", text)])
        if size > MODULE_BYTES:
            raise PolicyRefused([self._problem(0, "size", f"over {MODULE_BYTES} bytes: split the file")])
        level = operators = 0
        for token in _TOKEN.finditer(self.text):
            first = token[0][0]
            if first in "[{(":
                level += 1
                if level > NESTING:
                    text = f"brackets nest over {NESTING} deep: name the inner parts"
                    raise PolicyRefused([self._problem(token.start(), "nesting", text)])
            elif first in "]})":
                level -= 1
            elif first in "-+*/%|&":
                operators += 1
                if operators > OPERATORS:
                    text = f"over {OPERATORS} infix operators: split the file"
                    raise PolicyRefused([self._problem(token.start(), "size", text)])

    def _problem(self, offset: int, form: str, text: str) -> Problem:
        line = self.text.count("\n", 0, offset) + 1
        column = offset - (self.text.rfind("\n", 0, offset) + 1) + 1
        return Problem(file=self.path, line=line, column=column, form=form, text=text)


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Problem:
    """One reason to refuse a policy or its data; `line` and `column` count from 1, or are 0 for the whole file.

    `form` is the stable name of the broken rule (`lint.py` lists them); `text` says what is wrong and what to write.
    """

    file: str
    line: int
    column: int
    form: str
    text: str

    @classmethod
    def at(cls, file: str, place: Place, form: str, text: str) -> Self:
        """Return a problem at `place` of `file`."""
        return cls(file=file, line=place.line, column=place.column, form=form, text=text)

    @classmethod
    def of_whole(cls, file: str, form: str, text: str) -> Self:
        """Return a problem of the whole `file`."""
        return cls(file=file, line=0, column=0, form=form, text=text)

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        return f"{where}: {self.text} [{self.form}]"


class PolicyRefused(ConfigurationError):
    """A policy bundle, or a file of a bundle, is refused. The bundle in force stays in force."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(sorted(problems))
        shown = [str(problem) for problem in self.problems[:_SHOWN]]
        if len(self.problems) > _SHOWN:
            shown.append(f"and {len(self.problems) - _SHOWN} more")
        super().__init__("\n".join(shown))
