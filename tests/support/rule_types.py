"""Policies whose types are inferred over small data: which forms of problems `type_problems` finds in them."""

from __future__ import annotations

from sealbus.envelopes.encoding.strict_json import Json
from sealbus.policies.lint.lint import parse_all
from sealbus.policies.lint.module import Module
from sealbus.policies.types.inference import type_problems
from sealbus.policies.types.value import DataPath

__all__ = ["DATA", "HEAD", "decides", "refused"]

DATA: Json = {
    "people": {"ann": {"level": 3, "groups": ["a"]}, "bob": {"level": 7, "groups": []}},
    "limits": {"a": 10},
    "odd": {"a": 1, "b": "x"},
    "empty": {},
}
HEAD = "package sealbus.authz\n\nimport data.people as everybody\n\ndecision := decide(input)\n\n"


def refused(text: str, roots: tuple[DataPath, ...] = ((),), head: str = HEAD) -> list[str]:
    """Return the forms of the problems of a policy that begins with `head`."""
    files, problems = parse_all([Module(path="a.rego", text=f"{head}{text}\n")])
    assert problems == []
    return sorted({problem.form for problem in type_problems(files, DATA, roots)})


def decides(body: str) -> str:
    """Return a rule that decides by `body`."""
    return f"decide(request) := 1 if {{\n{body}\n}} else := 2"
