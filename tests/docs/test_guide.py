"""What the guide shows is so: its policy passes its tests, its document is decided as it says, its settings are settings."""

from __future__ import annotations

import importlib
import json
import re
import runpy
import shutil
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

from sealbus.agents.runtime.settings.schema import Document
from sealbus.envelopes.errors import Code
from sealbus.envelopes.trust.spiffe_id import SpiffeId
from sealbus.policies.bundle.files import STARTER, build_bundle, load_bundle, write_bundle
from sealbus.policies.decision.decision import Decision
from sealbus.policies.decision.documents import checked_document
from sealbus.policies.engines.central import CentralServer
from sealbus.policies.engines.embedded import EmbeddedEngine
from sealbus.policies.rego_tests import run_tests
from sealbus.testing import TestBus

DOCS = Path(__file__).parent.parent.parent / "docs"
GUIDE = (DOCS / "guide.md").read_text(encoding="utf-8")
THREATS = (DOCS / "threat-model.md").read_text(encoding="utf-8")
TABLE_ROW = re.compile(r"^\| .* \|$", re.MULTILINE)


def only(kind: str, chapter: str = "The policy|Deployment") -> list[str]:
    """Return the blocks of a kind in the chapters that are called so."""
    chapters = re.split(r"^## (.+)$", GUIDE, flags=re.MULTILINE)
    text = "".join(
        body for name, body in zip(chapters[1::2], chapters[2::2], strict=True) if name in chapter.split("|")
    )
    return re.findall(rf"^```{kind}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


@pytest.fixture
def owners(tmp_path: Path) -> Path:
    """Write the guide's policy where it says."""
    folder = tmp_path / "owners" / "sealbus" / "authz"
    folder.mkdir(parents=True)
    for name, text in zip(("decision.rego", "decision_test.rego"), only("rego"), strict=True):
        assert f"`owners/sealbus/authz/{name}`" in GUIDE
        (folder / name).write_text(text, encoding="utf-8")
    return tmp_path / "owners"


def test_the_policy_passes_its_tests(owners: Path) -> None:
    results = run_tests(owners, opa=None)
    assert len(results) == only("rego")[1].count("\ntest_")
    assert all(result.passed for result in results)


def test_a_policy_that_forgets_the_owner_does_not(owners: Path) -> None:
    file = owners / "sealbus" / "authz" / "decision.rego"
    lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
    file.write_text("".join(line for line in lines if "properties.owner" not in line), encoding="utf-8")
    assert not all(result.passed for result in run_tests(owners, opa=None))


async def test_the_document_is_decided_as_it_says(tmp_path: Path) -> None:
    (shown,) = only("json")
    another = json.loads(shown)
    another["context"]["user"]["id"] = "carol"
    documents = [checked_document(shown.encode()), checked_document(json.dumps(another).encode())]
    write_bundle(build_bundle(STARTER), tmp_path / "bundle.tar.gz")
    async with EmbeddedEngine(tmp_path / "bundle.tar.gz") as engine:
        owner, stranger = await engine.decide(documents)
    assert isinstance(owner, Decision)
    assert owner.allow is True
    assert isinstance(stranger, Decision)
    assert (stranger.allow, stranger.reasons) == (False, ("not_owner",))


def test_the_bundle_is_built_as_it_says(owners: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = only("python")
    (tmp_path / "out").mkdir()
    (tmp_path / "publish.py").write_text(code, encoding="utf-8")
    monkeypatch.chdir(owners.parent)
    runpy.run_path(str(tmp_path / "publish.py"))
    assert load_bundle(tmp_path / "out" / "bundle.tar.gz").revision == "2026-11-24.1"


@pytest.fixture
def notes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Write the guide's own agent and its test, and the starter policy beside them; return the test."""
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.chdir(tmp_path)
    for name, code in zip(("notes", "test_notes"), only("python", "Your own agent"), strict=True):
        (tmp_path / f"{name}.py").write_text(code, encoding="utf-8")
        monkeypatch.delitem(sys.modules, name, raising=False)
    shutil.copytree(STARTER, tmp_path / "policy")
    return importlib.import_module("test_notes")


def grant(registry: Path) -> None:
    """Add what the guide says to the registry of a policy."""
    for document, shown in zip(("actions", "agents"), only("json", "Your own agent"), strict=True):
        assert f"`policy/sealbus/registry/{document}/data.json`" in GUIDE
        file = registry / document / "data.json"
        there = json.loads(file.read_text(encoding="utf-8"))
        for name, entry in json.loads(shown).items():
            old = there.get(name, {})
            actions = {**old.get("actions", {}), **entry["actions"]} if "actions" in entry else None
            there[name] = {**old, **entry, **({"actions": actions} if actions is not None else {})}
        file.write_text(json.dumps(there), encoding="utf-8")


async def test_the_own_agent_is_denied_until_the_policy_knows_it(notes: ModuleType) -> None:
    async with TestBus(notes.agent, policy=Path("policy")) as bus:
        client = await bus.client("shop-web")
        note = notes.Note(owner="alice", text="milk")
        handle = await client.submit("notes.write", note, user=bus.user("alice", "shop-web"))
        await bus.idle()
        (status,) = await bus.statuses(handle)
        assert status.reasons == ("action_not_granted", "unknown_action")
    grant(Path("policy/sealbus/registry"))
    assert all(result.passed for result in run_tests(Path("policy"), opa=None))
    async with TestBus(notes.agent, policy=Path("policy")) as bus:
        for sender, caller in (("shop-web", await bus.client("shop-web")), ("edge", await bus.client("edge"))):
            handle = await caller.submit("notes.write", note, user=bus.user("alice", sender))
            await bus.idle()
            assert await handle.result(int) == len(sys.modules["notes"].NOTES["alice"])


async def test_the_test_of_the_own_agent_passes(notes: ModuleType) -> None:
    grant(Path("policy/sealbus/registry"))
    await notes.test_a_note_is_for_its_owner()


def test_the_settings_are_settings() -> None:
    sidecar, central = (tomllib.loads(shown) for shown in only("toml"))
    assert Document.model_validate(sidecar).policy.engine == "sidecar"
    policy = Document.model_validate({**sidecar, **central}).policy
    assert (policy.engine, len(policy.opa)) == ("central", 2)
    assert [CentralServer(url, connections=1).url for url in policy.opa] == list(policy.opa)
    assert policy.opa_ids == (SpiffeId("spiffe://example.org/opa"),)


def test_codes_in_the_threat_model_are_codes() -> None:
    (model,) = re.findall(r"^# Threat model$(.*?)^## ", THREATS, re.MULTILINE | re.DOTALL)
    told = {word for row in TABLE_ROW.findall(model) for word in re.findall(r"`([a-z]+_[a-z_]+|[a-z]{6,})`", row)}
    assert len(told) > 10
    assert told <= {code.value for code in Code}
