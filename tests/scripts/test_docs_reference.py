"""The reference is complete: each command with each option, each setting, code, metric, stream, record and public name."""

from __future__ import annotations

import importlib.util
import re
import sys
import tomllib
import typing
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import click
import pytest
from pydantic import BaseModel

import sealbus
from sealbus.agents.cli.explanations import CODES
from sealbus.agents.cli.main import root as root_command
from sealbus.agents.runtime.settings.schema import Document
from sealbus.bus.stream_names import SUBJECTS
from sealbus.envelopes.errors import RETRIED_CODES, Code
from sealbus.envelopes.records.record import NOTARY_KINDS
from sealbus.envelopes.records.work import DenialsRecord, OutcomeRecord

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def reference() -> ModuleType:
    """Load the script, which stands beside the packages and is not installed."""
    spec = importlib.util.spec_from_file_location("docs_reference", ROOT / "scripts" / "docs_reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["docs_reference"] = module
    spec.loader.exec_module(module)
    return module


def leaves(command: click.Command, path: str) -> list[tuple[str, click.Command]]:
    """Return all commands, found by another walk than the script's."""
    if not isinstance(command, click.Group):
        return [(path, command)]
    context = click.Context(command)
    below = [(name, command.get_command(context, name)) for name in command.list_commands(context)]
    return [found for name, one in below if one is not None for found in leaves(one, f"{path} {name}")]


def test_each_command_is_there_with_its_options(reference: ModuleType) -> None:
    page = reference.commands()
    parts = re.split(r"^#{2,3} ", page, flags=re.MULTILINE)
    found = {part.partition("\n")[0]: part for part in parts}
    commands = leaves(root_command, "sealbus")
    assert len(commands) > 40
    for path, command in commands:
        for parameter in command.params:
            if isinstance(parameter, click.Option) and not parameter.hidden:
                assert all(word in found[path] for word in parameter.opts), (path, parameter.opts)


def tables_of(hint: object) -> list[type[BaseModel]]:
    """Return the tables that an annotation names, however deep."""
    if isinstance(hint, type) and issubclass(hint, BaseModel):
        return [hint]
    return [found for one in typing.get_args(hint) for found in tables_of(one)]


def keys_of(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Yield the keys of a table, and of those in it."""
    for name, field in model.model_fields.items():
        inner = tables_of(field.annotation)
        if not inner:
            yield f"{prefix}{name}"
        for one in inner:
            named = ".<name>." if typing.get_origin(field.annotation) is dict else "."
            yield from keys_of(one, f"{prefix}{name}{named}")


def test_each_setting_is_there(reference: ModuleType) -> None:
    page = reference.settings()
    told = re.findall(r"^\| `([^`]+)` \|", page, re.MULTILINE)
    expected = set(keys_of(Document))
    assert len(expected) > 100
    assert set(told) == expected | {"agents.<name>"}
    assert len(told) == len(set(told))
    assert "| `policy.engine` | `embedded` or `native` or `sidecar` or `central` | required |" in page


def test_settings_of_the_examples_are_on_the_page(reference: ModuleType) -> None:
    told = set(re.findall(r"^\| `([^`]+)` \|", reference.settings(), re.MULTILINE))
    document = tomllib.loads((ROOT / "deploy/local/sealbus.toml").read_text(encoding="utf-8"))
    for table, values in document.items():
        if isinstance(values, dict) and table not in {"agents", "subjects"}:
            for key, value in values.items():
                assert isinstance(value, dict | list) or f"{table}.{key}" in told


def test_each_code_is_there_with_what_it_means(reference: ModuleType) -> None:
    rows = {
        cells[0]: cells[1:]
        for line in reference.codes().splitlines()
        if line.startswith("| `")
        for cells in [[cell.strip() for cell in line.strip("|").split(" | ")]]
    }
    for code in Code:
        step, again, meaning, fault, advice, _ = rows[f'`{code}`{{ id="{code}" }}']
        assert meaning
        assert fault
        assert advice == CODES[code].advice
        assert (again == "yes") is (code in RETRIED_CODES)
        assert re.fullmatch(r"(\d+(, \d+)*)?", step)
    assert len(rows) == len(Code)
    assert "`Denied`" in rows['`denied`{ id="denied" }'][5]


def test_each_metric_is_there(reference: ModuleType) -> None:
    told = set(re.findall(r"^\| `([^`]+)` \|", reference.metrics(), re.MULTILINE))
    written = {
        name
        for layer in reference.LAYERS
        for path in (ROOT / layer).rglob("*.py")
        for name in re.findall(
            r'"(sealbus_[a-z_]*(?:total|seconds|bytes|messages|records|processes|servers|consumers|answers|entries|away|assets|info|ready|connected))"',
            path.read_text(),
        )
    }
    assert told == written
    assert reference.find_metrics()["sealbus_decisions_total"].labels == {"action", "verdict"}
    assert reference.find_metrics()["sealbus_clock_ahead_seconds"].kind == "gauge"
    assert [name for name, one in reference.find_metrics().items() if not one.text] == []


def test_a_counter_that_is_only_counted_is_found(reference: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "bus").mkdir()
    (tmp_path / "bus" / "one.py").write_text(
        '_NAME = "sealbus_one_total"\ncounters.add(_NAME, 1, cause="x")\n'
        'counters.add("sealbus_two_total" if old else "sealbus_three_total")\n'
    )
    found = reference.find_metrics(tmp_path)
    assert set(found) == {"sealbus_one_total", "sealbus_two_total", "sealbus_three_total"}
    assert (found["sealbus_one_total"].labels, found["sealbus_one_total"].modules) == ({"cause"}, {"bus/one.py"})


def test_each_stream_and_subject_is_there(reference: ModuleType) -> None:
    page = reference.subject_names()
    for name, subjects in SUBJECTS.items():
        assert f"| `{name}` | `{subjects}`" in page
        assert f"- `{subjects.partition('.')[0]}." in page or name in {"STATE", "HELD", "PEOPLE"}
    assert "| `AUDIT` | `audit.>` | signed decision and outcome records | ever | refuses | forbidden |" in page


def test_each_kind_of_record_is_there(reference: ModuleType) -> None:
    kinds = {"decision", OutcomeRecord.kind, DenialsRecord.kind, *NOTARY_KINDS}
    assert {reference.record_kind(record) for record in reference.RECORDS} == kinds
    assert set(re.findall(r"^## (\w+)$", reference.records(), re.MULTILINE)) == kinds


def test_each_public_name_is_there(reference: ModuleType) -> None:
    page = reference.python()
    assert set(re.findall(r"^## (\w+)$", page, re.MULTILINE)) == {*sealbus.__all__, "LiveBus", "TestBus"}
    for name in sealbus.__all__:
        assert f"::: {getattr(sealbus, name).__module__}.{name}\n" in page


def test_each_set_of_keywords_of_a_public_method_is_there(reference: ModuleType) -> None:
    methods = [method for name in ("Agent", "Client", "Context") for method in vars(getattr(sealbus, name)).values()]
    unpacked = {
        keywords
        for method in methods
        if callable(method)
        for keywords in re.findall(r"Unpack\[(\w+)\]", str(getattr(method, "__annotations__", {})))
    }
    assert unpacked == set(re.findall(r"^### (\w+)$", reference.python(), re.MULTILINE))
    assert {"TaskHandlerKeywords", "SubmitKeywords", "ChildCallKeywords"} <= unpacked


def test_cells_hold_what_is_in_them(reference: ModuleType) -> None:
    assert reference.table(("a",), [("x | y\n`v|w`",)]) == "| a |\n| --- |\n| x \\| y `v|w` |\n"
