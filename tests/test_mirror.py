"""Tests stand where the code stands: a folder of tests for each folder of modules, and in it tests of each of its modules.

A test file covers a concept, not a module, so how many there are and what they are called is free. A module that no test
in its folder imports or is named after is listed with the file that tests it; the list may only shrink.
"""

from __future__ import annotations

import ast
import importlib
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("agents", "bus", "envelopes", "policies")

COMMANDS = "tests/integration/test_tour.py"
DEMONSTRATION = "tests/integration/test_demo.py"

ELSEWHERE: dict[str, str] = {
    # A command is its words and what it prints: each is run as a process of its own, with the bus that it talks to.
    "agents/cli/operate/streams.py": COMMANDS,
    "agents/cli/run/dev.py": COMMANDS,
    "agents/cli/run/demo.py": DEMONSTRATION,
    # The demonstration asserts itself: each scene has its expectation, and the test inverts one.
    "agents/dev/demo/attackers.py": DEMONSTRATION,
    "agents/dev/demo/changes.py": DEMONSTRATION,
    "agents/dev/demo/door.py": DEMONSTRATION,
    "agents/dev/demo/payments.py": DEMONSTRATION,
    "agents/dev/demo/people.py": DEMONSTRATION,
    # Parts that mean something only with a real program at the other end.
    "agents/edge/app.py": "tests/agents/edge/test_front.py",
    "bus/nats/consumer.py": "tests/integration/test_pull.py",
    "bus/nats/transport.py": "tests/integration/test_transport.py",
    # Identity for everything that runs in memory: each test of the gate is one of it.
    "agents/dev/memory/identity.py": "tests/bus/gate/test_gate.py",
    # A protocol without behaviour of its own.
    "policies/decision/engine.py": "tests/policies/test_engines.py",
}
"""Module that no test in its mirrored folder imports or is named after, and the file that tests it."""

MOST = 13
"""Lower it when an entry goes; there is no reason to raise it."""


def modules() -> list[str]:
    found = (path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
    return sorted(str(path.relative_to(ROOT)) for path in found if path.name != "__init__.py")


def imported(test: Path) -> set[str]:
    """Return the modules of ours that a test file imports, as paths."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(test.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.partition(".")[0] == "sealbus":
            found.add(node.module)
            for one in node.names:
                named = getattr(importlib.import_module(node.module), one.name, None)
                if named is None:
                    # A module that nothing in this process has imported yet.
                    named = importlib.import_module(f"{node.module}.{one.name}")
                found.add(named.__name__ if isinstance(named, ModuleType) else getattr(named, "__module__", None) or "")
        elif isinstance(node, ast.Import):
            found |= {one.name for one in node.names}
    return {f"{name.removeprefix('sealbus.').replace('.', '/')}.py" for name in found}


def not_tested_beside() -> list[str]:
    """Return the modules that no test of their mirrored folder imports or is named after."""
    imports: dict[Path, set[str]] = {}
    found: list[str] = []
    for module in modules():
        path = Path(module)
        folder = ROOT / "tests" / path.parent
        if folder not in imports:
            imports[folder] = set().union(*(imported(test) for test in folder.glob("test_*.py")))
        if module not in imports[folder] and not (folder / f"test_{path.name}").is_file():
            found.append(module)
    return found


def test_there_are_modules_to_look_at() -> None:
    assert len(modules()) > 200


@pytest.mark.slow
def test_every_module_is_tested_in_its_folder_or_listed() -> None:
    assert [module for module in not_tested_beside() if module not in ELSEWHERE] == []


@pytest.mark.slow
def test_the_list_holds_nothing_that_is_gone_or_tested_in_its_folder() -> None:
    assert sorted(ELSEWHERE.keys() - set(not_tested_beside())) == []


def test_the_list_only_shrinks() -> None:
    assert len(ELSEWHERE) == MOST


def test_tests_stand_in_no_folder_of_their_own() -> None:
    found = {
        path.parent.relative_to(ROOT / "tests")
        for one in PACKAGES
        for path in (ROOT / "tests" / one).rglob("test_*.py")
    }
    assert sorted(str(folder) for folder in found if not (ROOT / folder / "__init__.py").is_file()) == []


@pytest.mark.parametrize("path", sorted(set(ELSEWHERE.values())))
def test_what_tests_them_is_there(path: str) -> None:
    assert (ROOT / path).is_file()
