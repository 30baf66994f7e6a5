"""The targets of fuzzing: each parser of bytes from outside, and how it may end.

A target is a function from any bytes to nothing. It gives the bytes to a parser with fixed times, keys and limits. It lets
exactly the errors pass that the parser documents; every other exception is a finding. Where a format is canonical, it also
checks that what was parsed is encoded to the same bytes. What stands behind a signature has a second target, which signs the
bytes as a genuine sender does.

A target is called `<group>.<name>`. A group is a module beside this one with a table `TARGETS`, so that a process that needs
one target imports one group. `PYTHONPATH=tests python -m fuzz.run` fuzzes, and `test_corpus.py` runs the kept inputs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Final, TypeAlias

__all__ = ["CORPUS", "GROUPS", "Target", "check_refusal", "names", "target"]

Target: TypeAlias = Callable[[bytes], None]

GROUPS: Final = (
    "messages",
    "records",
    "logs",
    "stored",
    "bodies",
    "bundles",
    "callout",
    "tokens",
    "http",
    "doors",
    "nats",
)

CORPUS: Final = Path(__file__).parent / "corpus"
"""A folder for each target, with its inputs."""

_LONGEST: Final = 1_024
"""Characters of an error's text: names of fields and rules, perhaps a SPIFFE ID or a path, and no payload."""


def names() -> list[str]:
    """Return the names of all targets."""
    return [f"{group}.{name}" for group in GROUPS for name in _table(group)]


def target(name: str) -> Target:
    """Return the target called `name`; raise `KeyError` if there is none."""
    group, _, own = name.partition(".")
    return _table(group)[own]


def check_refusal(error: Exception) -> None:
    """Raise `AssertionError` unless the text of a documented error is one short line that can be printed."""
    text = str(error)
    assert len(text) <= _LONGEST, f"a text of {len(text)} characters"
    assert text.isprintable(), "a text that cannot be printed"


def _table(group: str) -> Mapping[str, Target]:
    table: Mapping[str, Target] = import_module(f"fuzz.{group}").TARGETS
    return table
