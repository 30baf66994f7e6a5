"""Rego tests as texts, each about one reduced document and the decision on it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from sealbus.envelopes.encoding.strict_json import Json
from sealbus.policies.decision.documents import canonical
from sealbus.policies.lint.module import TEST_SUFFIX, Module

FILE_BYTES: Final = 200_000
"""Most bytes of a file with several tests; the form checks refuse a larger one at 262,144."""
LINE: Final = 80
"""Most characters of an object or an array in one line."""
_NAME_CHARACTERS: Final = 60
_DIGEST_DIGITS: Final = 12
_OTHER: Final = re.compile("[^a-z0-9]+")
_HEAD: Final = "# Written by `sealbus policy backtest --emit-tests`, from recorded decisions.\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class PastTest:
    """A test that `rule` (`data.` and dotted names) answers `answer` about `document`, as the record `leaf` has it."""

    rule: str
    leaf: bytes
    document: dict[str, Json]
    answer: dict[str, Json]

    @property
    def package(self) -> str:
        """The test's package: `past_test` inside the package of its rule, which is inside the roots of the bundle."""
        return f"{self.rule.removeprefix('data.').rpartition('.')[0]}.past_test"

    @property
    def name(self) -> str:
        """The test's name: the verdict, the reasons, and digits that no other document has."""
        words = ["allow" if self.answer["allow"] is True else "deny", *_texts(self.answer["reasons"])]
        said = _OTHER.sub("_", "_".join(words).lower()).strip("_")[:_NAME_CHARACTERS].rstrip("_")
        digest = sha256(self.rule.encode() + b"\0" + canonical(self.document)).hexdigest()
        return f"test_{said}_{digest[:_DIGEST_DIGITS]}"

    @property
    def text(self) -> str:
        """The test as `opa fmt` leaves it."""
        asked = _indented(self.document)
        return (
            f"# As in the record {self.leaf.hex()}\n"
            f"{self.name} if {{\n\tfound := {self.rule} with input as {asked}\n\tfound == {_indented(self.answer)}\n}}\n"
        )


def rego_files(tests: Iterable[PastTest]) -> Iterator[Module]:
    """Yield the files with `tests`, by package and name: `authz_past_test.rego`, then `authz_past_2_test.rego`.

    Raises `PolicyRefused` for a test that no Rego file can hold (`Module`).
    """
    packages: dict[str, list[PastTest]] = {}
    for test in sorted(tests, key=lambda test: (test.package, test.name)):
        packages.setdefault(test.package, []).append(test)
    for package, inside in packages.items():
        word = package.split(".")[-2]
        for number, texts in enumerate(_divided([test.text for test in inside]), 1):
            count = f"_{number}" if number > 1 else ""
            text = "\n".join((f"{_HEAD}package {package}\n", *texts))
            yield Module(path=f"{word}_past{count}{TEST_SUFFIX}", text=text)


def _divided(texts: Iterable[str]) -> Iterator[list[str]]:
    run: list[str] = []
    size = 0
    for text in texts:
        if run and size + len(text.encode()) > FILE_BYTES:
            yield run
            run, size = [], 0
        run.append(text)
        size += len(text.encode())
    yield run


def _texts(value: Json) -> list[str]:
    return [str(item) for item in value] if isinstance(value, list) else []


def _indented(value: Json, level: int = 1) -> str:
    """Return `value` as Rego, with sorted names; what makes a long line has a line for each member."""
    text = _quoted(value)
    if len(text) <= LINE or not isinstance(value, dict | list) or not value:
        return text
    tabs = "\t" * (level + 1)
    if isinstance(value, dict):
        members = [f"{_quoted(name)}: {_indented(value[name], level + 1)}" for name in sorted(value)]
    else:
        members = [_indented(item, level + 1) for item in value]
    before, after = "{}" if isinstance(value, dict) else "[]"
    lines = "".join(f"{tabs}{member},\n" for member in members)
    return f"{before}\n{lines}{tabs[1:]}{after}"


def _quoted(value: Json) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True)
