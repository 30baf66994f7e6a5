from __future__ import annotations

from pathlib import Path

import pytest
from support.settings import FULL, SMALLEST, load, origin, smallest_environment

from sealbus.agents.runtime.settings.settings import load_settings
from sealbus.agents.runtime.settings.source import (
    Entry,
    Flag,
    SettingOrigin,
    dotted,
    environment_entries,
    file_entries,
    flag_entries,
)
from sealbus.envelopes.errors import ConfigurationError
from sealbus.envelopes.trust.spiffe_id import SpiffeId


def test_the_environment_overrides_the_file_and_flags_override_both(tmp_path: Path) -> None:
    environment = {
        "SEALBUS_POLICY__ENGINE": "embedded",
        "SEALBUS_POLICY__DEADLINE": "0.25",
        "SEALBUS_WORKER__CONCURRENCY": "7",
        "OTHER": "ignored",
    }
    flags = (
        Flag(option="--concurrency", key="worker.concurrency", value=9),
        Flag(option="--engine", key="policy.engine", value=None),
        Flag(option="--nats", key="nats", value="tls://c:1,tls://d:2"),
    )
    settings = load(tmp_path, SMALLEST, flags, **environment)
    assert settings.policy.engine == "embedded"
    assert settings.policy.deadline == 0.25
    assert settings.worker.concurrency == 9
    assert settings.nats == ("tls://c:1", "tls://d:2")
    assert origin(settings, "policy.engine") == "environment SEALBUS_POLICY__ENGINE"
    assert origin(settings, "worker.concurrency") == "flag --concurrency"
    assert origin(settings, "nats") == "flag --nats"
    assert origin(settings, "trust_domain") == f"file {tmp_path / 'sealbus.toml'}"
    assert origin(settings, "worker.drain") == "default"


def test_lists_and_tables_can_be_said_in_one_variable(tmp_path: Path) -> None:
    settings = load(
        tmp_path,
        FULL,
        SEALBUS_NATS='["tls://x:1"]',
        SEALBUS_CONTEXT__MINTERS="spiffe://example.org/a, spiffe://example.org/b",
        SEALBUS_AGENTS='{"big-agent": "spiffe://example.org/big"}',
        SEALBUS_AGENTS__SMALL="spiffe://example.org/small",
        SEALBUS_STREAMS__MAX_BYTES__TASKS="2 GiB",
        SEALBUS_SUBJECTS='{"a.b": {"kind": "call", "owner": "small"}}',
    )
    assert settings.nats == ("tls://x:1",)
    assert settings.minters == {SpiffeId("spiffe://example.org/a"), SpiffeId("spiffe://example.org/b")}
    assert settings.names.id_of("big-agent") == SpiffeId("spiffe://example.org/big")
    assert settings.names.id_of("small") == SpiffeId("spiffe://example.org/small")
    # Entries of the file stay: a table grows, a list is one value.
    assert settings.names.id_of("pricing") == SpiffeId("spiffe://example.org/ns/money/sa/pricing")
    assert settings.max_bytes["TASKS"] == 2 << 30
    assert [one.subject for one in settings.own_subjects] == ["orders.created", "mail.send", "a.b"]
    assert origin(settings, "agents.big-agent") == "environment SEALBUS_AGENTS"
    assert origin(settings, 'subjects."a.b".kind') == "environment SEALBUS_SUBJECTS"


def test_an_empty_variable_says_nothing(tmp_path: Path) -> None:
    settings = load(tmp_path, SMALLEST, SEALBUS_POLICY__ENGINE="", SEALBUS_NATS="", SEALBUS_CONFIG="")
    assert origin(settings, "policy.engine").startswith("file ")


@pytest.mark.parametrize(
    ("name", "text", "complaint"),
    [
        ("SEALBUS_POLICY__ENGIN", "", "there is no setting policy.engin; did you mean SEALBUS_POLICY__ENGINE?"),
        ("SEALBUS_", "x", 'there is no setting ""'),
        ("SEALBUS_NATS__X", "x", "there is no setting nats.x"),
        ("SEALBUS_NATS", "[", "nats is not JSON"),
        ("SEALBUS_NATS", "nats://x", "nats: must be tls://host:port"),
        ("SEALBUS_POLICY", "embedded", "policy is not JSON"),
        ("SEALBUS_POLICY", "[]", "policy is a table"),
        ("SEALBUS_POLICY", '{"engin": 1}', "there is no setting policy.engin"),
        ("SEALBUS_WORKER__DRAIN", "soon", "worker.drain: input should be a valid number"),
    ],
)
def test_mistakes_in_the_environment_name_the_variable(name: str, text: str, complaint: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_settings(environment=smallest_environment(**{name: text}), folder=tmp_path)
    assert caught.value.detail.startswith(f"environment {name}: {complaint}")
    assert "\n" not in caught.value.detail


def test_mistakes_in_a_flag_name_the_option(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"flag --engine: policy.engine: input should be"):
        load(tmp_path, SMALLEST, (Flag(option="--engine", key="policy.engine", value="fast"),))
    with pytest.raises(ConfigurationError, match=r"flag --x: there is no setting policy.x"):
        load(tmp_path, SMALLEST, (Flag(option="--x", key="policy.x", value=None),))


@pytest.mark.parametrize("content", [b"a = ", b"\xff", b"a = 1\na = 2"])
def test_a_file_that_is_not_toml_is_told(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "sealbus.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigurationError) as caught:
        load_settings(path, environment={})
    assert caught.value.detail.startswith(f"{path}: not TOML: ")
    assert "\n" not in caught.value.detail


def test_a_file_that_was_named_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"missing.toml: No such file or directory"):
        load_settings(tmp_path / "missing.toml", environment={})


def test_relative_paths_in_a_file_start_at_its_folder(tmp_path: Path) -> None:
    path = tmp_path / "sealbus.toml"
    path.write_text("policy = {bundle = 'b.tar.gz', opa = 'unix:/run/opa.sock'}\nworkload_api = 'x'\n")
    entries = file_entries(path)
    origin_of_all = SettingOrigin("file", str(path))
    assert entries == {
        ("policy", "bundle"): Entry(str(tmp_path / "b.tar.gz"), origin_of_all),
        ("policy", "opa"): Entry("unix:/run/opa.sock", origin_of_all),
        ("workload_api",): Entry("x", origin_of_all),
    }
    path.write_text("policy = {bundle = 5, opa = ['/opa.sock', 'a']}\ndev = {access = 'idp.json'}\n")
    values = [entry.value for entry in file_entries(path).values()]
    assert values == [5, ["/opa.sock", str(tmp_path / "a")], str(tmp_path / "idp.json")]


def test_keys_are_written_as_in_toml() -> None:
    assert dotted(("subjects", "a.b", "kind")) == 'subjects."a.b".kind'
    assert dotted(("agents", "big-agent")) == "agents.big-agent"
    assert dotted(("agents", "")) == 'agents.""'
    assert dotted(("agents", "\u00e9")) == 'agents."\u00e9"'


def test_a_table_that_may_be_left_out_is_one_like_others(tmp_path: Path) -> None:
    """Its keys are found in every source, and its files start at the folder of the settings."""
    file = tmp_path / "sealbus.toml"
    file.write_text('[edge.mcp]\nactions = ["a.*"]\nstate_keys = ["state.key"]\nscopes = { "a.b" = "s" }\n')
    found = file_entries(file)
    assert found["edge", "mcp", "state_keys"].value == [str(tmp_path / "state.key")]
    assert found["edge", "mcp", "scopes", "a.b"].value == "s"
    told = environment_entries({"SEALBUS_EDGE__MCP__ACTIONS": "a.b,c.d"})
    assert told["edge", "mcp", "actions"].value == ["a.b", "c.d"]
    with pytest.raises(ConfigurationError, match=r"did you mean edge\.mcp\.actions"):
        flag_entries([Flag(option="--x", key="edge.mcp.action", value="a")])
