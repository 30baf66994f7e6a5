"""The table of Rego forms in tests/policies/forms: what each gives, or why it is refused.

An entry is a policy whose rule `r` is asked. `gives` is its value as JSON, `undefined` or `error`; `refused` are the
names of `sealbus.policies.lint.lint`. Where the engines differ and no check can see it, `opa` and `embedded` say how.
"""

from __future__ import annotations

import json
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sealbus.envelopes.errors import PolicyFailed
from sealbus.policies.lint.lint import parse_all, refused_forms
from sealbus.policies.lint.module import Module, PolicyRefused, Problem
from sealbus.policies.lint.regorus import Interpreter
from sealbus.policies.lint.undefined import lookup_problems
from sealbus.policies.types.inference import type_problems

__all__ = ["DATA", "FORMS", "INPUT", "Form", "embedded_says", "problems_of"]

_FOLDER = Path(__file__).parents[1] / "policies" / "forms"
DATA: dict[str, Any] = json.loads((_FOLDER / "data.json").read_text())
INPUT: dict[str, Any] = json.loads((_FOLDER / "input.json").read_text())


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """One entry. Exactly one of `gives`, `refused` and `opa` with `embedded` is not empty."""

    group: str
    name: str
    rego: str
    gives: str = ""
    refused: tuple[str, ...] = ()
    opa: str = ""
    embedded: str = ""

    @property
    def module(self) -> str:
        return f"package forms.{self.name}\n\n{self.rego}\n"

    @property
    def rule(self) -> str:
        return f"forms.{self.name}.r"


def _load() -> tuple[Form, ...]:
    found: list[Form] = []
    for file in sorted(_FOLDER.glob("*.toml")):
        for entry in tomllib.loads(file.read_text())["form"]:
            refused = tuple(entry.pop("refused", ()))
            found.append(Form(group=file.stem, refused=refused, **entry))
    return tuple(found)


FORMS = _load()


def problems_of(rego: str, path: str = "policy.rego") -> list[Problem]:
    """Return all that the checks of forms say about one policy over `DATA`."""
    try:
        module = Module(path=path, text=rego)
        files, problems = parse_all([module])
        problems += refused_forms(files)
        problems = problems or [
            one for file in files for rule in file.rules for one in lookup_problems(file, rule, DATA)
        ]
        problems = problems or type_problems(files, DATA)
        if not problems:
            Interpreter([module], json.dumps(DATA).encode())
    except PolicyRefused as refused:
        return list(refused.problems)
    return problems


def embedded_says(form: Form, document: object = INPUT) -> dict[str, Any]:
    """Return what the interpreter says, as `OpaServer.evaluate` would."""
    interpreter = Interpreter([Module(path="policy.rego", text=form.module)], json.dumps(DATA).encode())
    try:
        value = interpreter.evaluate(f"data.{form.rule}", json.dumps(document).encode())
    except PolicyFailed:
        return {"error": "policy_error"}
    return {} if value == "<undefined>" else {"value": value}
