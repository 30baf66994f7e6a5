"""What is wrong with a policy, and where: the reason why a bundle is not put in force."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from sealbus.envelopes.errors import ConfigurationError

__all__ = ["PolicyRefused", "Problem"]

_SHOWN = 8
"""Problems that an error's text lists; the error itself holds all of them."""


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Problem:
    """One reason to refuse a policy or its data; `line` and `column` count from 1, 0 where the whole file is meant.

    `form` is the stable name of the rule that was broken (`forms` lists them); `text` says what is wrong and what to
    write.
    """

    file: str
    line: int
    column: int
    form: str
    text: str

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        return f"{where}: {self.text} [{self.form}]"


class PolicyRefused(ConfigurationError):
    """A policy bundle, or a file that should become part of one, is not put in force; what is in force stays."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(sorted(problems))
        shown = [str(problem) for problem in self.problems[:_SHOWN]]
        if len(self.problems) > _SHOWN:
            shown.append(f"and {len(self.problems) - _SHOWN} more")
        super().__init__("\n".join(shown))
