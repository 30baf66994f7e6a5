"""The wheel `sealbus-regorus` of `make engine`; and, for the Python around it where it is not, a stand-in."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import pytest

from sealbus.envelopes.errors import PolicyFailed
from sealbus.policies.engines.native import VERSION
from sealbus.policies.lint.module import Module, PolicyRefused
from sealbus.policies.lint.regorus import Interpreter

__all__ = ["Policy", "evaluated", "has_wheel", "put_wheel", "require_wheel"]

_NOTED = Path(__file__).parents[2] / ".tools" / "engine" / "missing"
_MISSING = "there is no sealbus-regorus: `make engine` builds it, with cargo"


def has_wheel() -> bool:
    """Return whether the wheel is installed; fail the test in CI, unless `make tools` noted that its crates cannot be had."""
    found = importlib.util.find_spec("sealbus_regorus") is not None
    if not found and os.environ.get("CI") and not _NOTED.exists():
        pytest.fail(_MISSING)
    return found


def require_wheel() -> None:
    """Skip the test where the wheel is not installed, or fail it in CI as `has_wheel` does."""
    if not has_wheel():
        pytest.skip(_MISSING)


def evaluated(
    modules: Sequence[Module], data: bytes, rule: str, documents: Sequence[bytes], *, batch: str | None = None
) -> list[object]:
    """Return what the wheel says to each of `documents`; the text `failed` for an error."""
    wheel = importlib.import_module("sealbus_regorus")
    policy = wheel.Policy([(module.path, module.text) for module in modules], data.decode())
    _, told = policy.ask(rule, batch, documents, each=60.0, whole=600.0, apart=True)
    return [json.loads(said) if isinstance(said, str) else "failed" for _, said in told]


class Policy:
    """What the wheel's class does, by the interpreter from PyPI, and without a limit for one question."""

    def __init__(self, modules: list[tuple[str, str]], data: str) -> None:
        self._modules = [Module(path=path, text=text) for path, text in modules]
        self._data = data.encode()
        self._added: list[bytes] = []
        try:
            Interpreter(self._modules, self._data)
        except PolicyRefused as refused:
            raise ValueError(refused.detail) from refused

    def add(self, parts: list[str]) -> None:
        self._added += [part.encode() for part in parts]

    def ask(
        self, one: str, batch: str | None, documents: Sequence[bytes], *, each: float, whole: float, apart: bool
    ) -> tuple[int, list[tuple[int, str | bytes | None]]]:
        del batch, apart
        interpreter = Interpreter(self._modules, self._data)  # bound to its thread
        count = len(self._added)
        assert interpreter.add(self._added[:count])
        answers: list[tuple[int, str | bytes | None]] = []
        for document in documents:
            try:
                found = json.dumps(interpreter.evaluate(one, document))
            except PolicyFailed as error:
                answers.append((1, error.detail.encode()))
            else:
                answers.append((1, found if min(each, whole) > 1e-6 else None))
        return count, answers


def put_wheel(patch: pytest.MonkeyPatch, policy: object = Policy, version: str = VERSION) -> None:
    """Let `policy` be the class of the installed wheel."""
    wheel = ModuleType("sealbus_regorus")
    wheel.__dict__.update(Policy=policy, __version__=version)
    patch.setitem(sys.modules, "sealbus_regorus", wheel)
