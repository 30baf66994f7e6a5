"""Each kept input passes its target, each target has inputs, and each parser of bytes or tokens is entered by one of them."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import CodeType, FrameType

import pytest
from fuzz.loop import close
from fuzz.targets import CORPUS, Target, check_refusal, names, target

ROOT = Path(__file__).parents[2]
PACKAGES = ("envelopes", "policies", "bus", "agents")
VERBS = ("parse", "read", "open", "decode", "unpack", "accept", "verify", "check")
"""A function is a parser if its name begins so and its first argument is `bytes`."""
TOKEN_VERBS = ("parse", "decode", "verify")
"""Or if its name begins so and its first argument is a text."""

INSIDE = {
    "agents/edge/egress/operation.py: Operation.parse": "of the settings",
    "agents/control/witness/submission.py: WitnessedLog.parse": "of the settings",
    "envelopes/log/note.py: Verifier.verify": "a protocol; its implementations verify by what is entered",
    "bus/routing/routes.py: Endpoint.decode": "a protocol; its implementations read by what is entered",
    "bus/work/cancel/endpoint.py: CancelEndpoint.decode": "hands on to parse_cancel",
}
"""Parsers of what comes from this program itself, its operator or its developer, and why they are no targets."""


@pytest.fixture(scope="module", autouse=True)
def _closed() -> Iterator[None]:
    yield
    close()


def _entered_by(check: Target, data: bytes) -> set[CodeType]:
    codes = set[CodeType]()

    def note(frame: FrameType, event: str, argument: object) -> None:
        del event, argument
        codes.add(frame.f_code)

    before = sys.gettrace()
    sys.settrace(note)
    try:
        check(data)
    finally:
        sys.settrace(before)
    return codes


@cache
def entered(name: str) -> list[set[CodeType]]:
    """Return the functions that each kept input of a target enters."""
    check = target(name)
    return [_entered_by(check, path.read_bytes()) for path in sorted((CORPUS / name).glob("*"))]


@pytest.mark.parametrize("name", names())
def test_kept_inputs(name: str) -> None:
    assert entered(name), "there is no input"


@pytest.mark.parametrize("name", [name for name in names() if ".signed_" in name])
def test_what_is_signed_is_accepted(name: str) -> None:
    """One input is not refused, or the target would end at the first step of its parser."""
    assert not all(check_refusal.__code__ in codes for codes in entered(name))


def test_nothing_else_is_kept() -> None:
    assert {path.name for path in CORPUS.iterdir()} == set(names())


def _parsers() -> Iterator[str]:
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            module = path.relative_to(ROOT)
            if module.parts[:2] == ("agents", "dev"):
                continue
            yield from (f"{module}: {name}" for name in _named(ast.parse(path.read_text()), ""))


def _named(node: ast.AST, prefix: str) -> Iterator[str]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef) and not child.name.startswith("_"):
            yield from _named(child, f"{prefix}{child.name}.")
        elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef) and _is_parser(child):
            yield prefix + child.name


def _is_parser(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    arguments = [argument for argument in function.args.args if argument.arg not in ("self", "cls")]
    first = arguments[0].annotation if arguments else None
    verbs = {"bytes": VERBS, "str": TOKEN_VERBS}.get(first.id if isinstance(first, ast.Name) else "", ())
    return function.name.startswith(tuple(verbs))


def test_each_parser_is_entered_or_said_to_be_inside() -> None:
    done = set[str]()
    for name in names():
        for code in set().union(*entered(name)):
            path = Path(code.co_filename).resolve()
            if path.is_relative_to(ROOT):
                done.add(f"{path.relative_to(ROOT)}: {code.co_qualname}")
    left = set(_parsers()) - done
    assert left - INSIDE.keys() == set(), "give it a target, or say why it needs none"
    assert INSIDE.keys() - left == set(), "these are entered, or are no longer there"
