"""What `make check` holds of the house: planted faults are found, and nothing but faults."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "scripts" / "check_house.py"


@pytest.fixture(scope="module")
def house() -> ModuleType:
    """Load the script, which stands beside the packages and is not installed."""
    spec = importlib.util.spec_from_file_location("check_house", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def plant(folder: Path, files: Mapping[str, str]) -> Path:
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    return folder


CIRCLES = {
    "plain": "from sealbus.bus.one import x\n",
    "of a module": "from sealbus.bus import one\n",
    "in a function": "def f():\n    import sealbus.bus.one\n",
    "for types": "from typing import TYPE_CHECKING\n\nif TYPE_CHECKING:\n    from sealbus.bus.one import x\n",
}


@pytest.mark.parametrize("back", CIRCLES.values(), ids=CIRCLES)
def test_a_circle_of_imports_is_found(house: ModuleType, tmp_path: Path, back: str) -> None:
    ways = {"bus/one.py": "from sealbus.bus.two import y\n", "bus/two.py": "from sealbus.bus.three import z\n"}
    assert house.findings(plant(tmp_path, ways)) == []
    [found] = house.findings(plant(tmp_path, {"bus/three.py": back}))
    assert found.startswith("import circle: ")
    assert {"bus.one", "bus.two", "bus.three"} <= set(found.replace("circle: ", "").split())


def test_a_circle_through_a_package_is_found(house: ModuleType, tmp_path: Path) -> None:
    files = {"bus/a/__init__.py": "from sealbus.bus.a.one import x\n", "bus/a/one.py": "from sealbus.bus.a import x\n"}
    [found] = house.findings(plant(tmp_path, files))
    assert "bus.a.__init__" in found


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("claim", "claims"),
        ("claim", "claiming"),
        ("claims", "claiming"),
        ("cache", "caching"),
        ("policy", "policies"),
        ("box", "boxes"),
        ("verify", "verifier"),
        ("read", "reader"),
        ("declare", "declared"),
        ("status_read", "statuses_reading"),
    ],
)
def test_names_that_differ_by_an_ending_are_found(house: ModuleType, tmp_path: Path, one: str, other: str) -> None:
    found = house.findings(plant(tmp_path, {f"bus/a/{one}.py": "", f"bus/b/{other}.py": ""}))
    assert found == [f"names that differ by an ending: bus.a.{one}, bus.b.{other}"]


@pytest.mark.parametrize(
    ("one", "other"),
    [("state", "stats"), ("ring", "rs"), ("claim", "claim_store"), ("tile_reader", "tile_writer"), ("status", "state")],
)
def test_other_names_are_not(house: ModuleType, tmp_path: Path, one: str, other: str) -> None:
    assert house.findings(plant(tmp_path, {f"bus/a/{one}.py": "", f"bus/b/{other}.py": ""})) == []


def test_the_same_name_in_two_folders_or_a_near_one_in_two_layers_is_fine(house: ModuleType, tmp_path: Path) -> None:
    same = {"bus/a/claim.py": "", "bus/b/claim.py": "", "agents/claims.py": "", "bus/claims/__init__.py": ""}
    assert house.findings(plant(tmp_path, same)) == []


def test_a_class_name_that_stands_twice_in_a_layer_is_found(house: ModuleType, tmp_path: Path) -> None:
    inner = "def f():\n    class _Open:\n        pass\n"
    files = {"bus/a.py": "class _Open:\n    pass\n", "bus/b/c.py": inner, "agents/d.py": inner}
    assert house.findings(plant(tmp_path, files)) == ["class _Open stands in bus.a, bus.b.c"]


@pytest.mark.slow
def test_findings_are_printed_and_fail(tmp_path: Path) -> None:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, SCRIPT, *arguments], capture_output=True, text=True, check=False)

    found = run(str(plant(tmp_path, {"bus/claim.py": "", "bus/claims.py": ""})))
    assert (found.returncode, found.stdout) == (1, "names that differ by an ending: bus.claim, bus.claims\n")
    assert (run().returncode, run().stdout) == (0, "")


def test_what_is_for_development_is_a_contract_too() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    [development] = [one for one in contracts if one["type"] == "protected"]
    assert development["protected_modules"] == ["sealbus.agents.dev"]
    assert development["allowed_importers"] == ["sealbus.agents.cli", "sealbus.testing"]


SIGNATURES = {
    "a function": "def f({}): ...\n",
    "a constructor": "class A:\n    def __init__(self, {}): ...\n",
    "a method of a class": "class A:\n    @classmethod\n    async def f(cls, *, {}): ...\n",
    "a function in a function": "def g():\n    def f({}): ...\n",
    "another decorator": "@x.option('o')\ndef f({}): ...\n",
}


@pytest.mark.parametrize("signature", SIGNATURES.values(), ids=SIGNATURES)
def test_a_ninth_argument_is_found(house: ModuleType, tmp_path: Path, signature: str) -> None:
    names = [f"a{number}" for number in range(9)]
    assert house.findings(plant(tmp_path, {"bus/one.py": signature.format(", ".join(names[:8]))})) == []
    [found] = house.findings(plant(tmp_path, {"bus/one.py": signature.format(", ".join(names))}))
    assert found.startswith("9 arguments: bus.one:")


@pytest.mark.parametrize(
    "function", ["@click.command('a')\ndef f({}): ...\n", "class A(tuple):\n    def __new__(cls, {}): ...\n"]
)
def test_options_of_a_command_and_fields_of_a_value_are_no_arguments(
    house: ModuleType, tmp_path: Path, function: str
) -> None:
    names = ", ".join(f"a{number}" for number in range(12))
    assert house.findings(plant(tmp_path, {"bus/one.py": function.format(names)})) == []


def test_a_fourteenth_module_is_found(house: ModuleType, tmp_path: Path) -> None:
    files = {f"bus/a/m{chr(97 + number) * 4}.py": "" for number in range(13)} | {"bus/a/__init__.py": ""}
    assert house.findings(plant(tmp_path, files)) == []
    assert house.findings(plant(tmp_path, {"bus/a/other.py": ""})) == ["14 modules: bus.a"]


BUILDS = {
    "by name": "Permitted(1)",
    "by module": "routes.Permitted(1)",
    "from values": "Permitted._make([1])",
    "by its base": "tuple.__new__(Permitted, [1])",
    "by a short name of that": "_new(routes.Permitted, [1])",
}


@pytest.mark.parametrize("build", BUILDS.values(), ids=BUILDS)
@pytest.mark.parametrize("place", ["bus/gate/other.py", "agents/runtime/x.py", "bus/gate/gate.py"])
def test_a_second_builder_of_permitted_is_found(house: ModuleType, tmp_path: Path, build: str, place: str) -> None:
    allowed = f"def permit():\n    return {build}\n"
    assert house.findings(plant(tmp_path, {"bus/gate/gate.py": allowed})) == []
    more = f"{allowed if place == 'bus/gate/gate.py' else ''}def f():\n    return {build}\n"
    [found] = house.findings(plant(tmp_path, {place: more}))
    assert found.startswith("Permitted is built by bus.gate.gate.permit alone: ")
