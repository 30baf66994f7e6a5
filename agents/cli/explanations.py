"""Explains each stable code and acceptance step: its meaning, whose fault it is, what to do next, and where to read more.

The texts are in `explanations.toml`: an entry for each code of `errors` and of `export.finding`, and for each step of
SPEC.md section 7. They are read when this module is first imported.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from enum import StrEnum
from importlib import resources
from types import MappingProxyType
from typing import Final, NamedTuple

from sealbus.envelopes.errors import Code
from sealbus.envelopes.export.finding import FindingCode


class Fault(StrEnum):
    """The party that has to act. A member's name, in small letters, is the `fault` of an entry."""

    SENDER = "the sender: what it sent may not be taken"
    CALLER = "yours: what was asked for here cannot be done"
    HANDLER = "the handling agent's"
    OPERATOR = "the operator's: something that runs is missing or set otherwise"
    POLICY = "nobody's: the policy decides so"
    POLICY_OWNER = "the owner's of the policy"
    LOG = "the log's, or whoever could change it or its copy"
    NOBODY = "nobody's"


class CodeText(NamedTuple):
    """The meaning of a code, the party at fault, the next thing to do, and the page of the repository with more."""

    meaning: str
    fault: Fault
    advice: str
    page: str

    @property
    def place(self) -> str:
        """The page's name in the documentation, for readers without the repository."""
        return page_named(self.page)


class StepText(NamedTuple):
    """The name of an acceptance step, and what it checks."""

    name: str
    checks: str


def page_named(page: str) -> str:
    """Return the name in the documentation of a page of the repository; a section may follow the path after `#`."""
    path, _, section = page.partition("#")
    name = path.rpartition("/")[2].removesuffix(".md").lower()
    under = f", under '{section.replace('-', ' ')}'" if section else ""
    return f"page {name} of the documentation{under}"


def _code_text(entry: Mapping[str, str]) -> CodeText:
    return CodeText(entry["meaning"], Fault[entry["fault"].upper()], entry["advice"], entry["page"])


_TEXTS: Final = tomllib.loads(resources.files(__package__).joinpath("explanations.toml").read_text(encoding="utf-8"))

STEPS: Final[Mapping[int, StepText]] = MappingProxyType(
    {int(number): StepText(**entry) for number, entry in _TEXTS["steps"].items()}
)
CODES: Final[Mapping[Code, CodeText]] = MappingProxyType(
    {Code(code): _code_text(entry) for code, entry in _TEXTS["codes"].items()}
)
FINDINGS: Final[Mapping[FindingCode, CodeText]] = MappingProxyType(
    {FindingCode(code): _code_text(entry) for code, entry in _TEXTS["findings"].items()}
)
"""Findings of a verifier about an export, apart from the errors of envelopes and of the log."""
