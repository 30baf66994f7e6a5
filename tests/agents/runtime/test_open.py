"""From settings to what runs: engines, streams and addresses, and one line for what is missing."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Literal, cast

import pytest
from support.identity import StaticIdentity
from support.native_wheel import require_wheel
from support.settings import FULL, SMALLEST, changed, load
from support.x509 import ThrowawayCa

from sealbus.agents.runtime import open as module
from sealbus.agents.runtime.open import deployment_of, open_engine, open_node, streams_of, workload_api_of
from sealbus.agents.runtime.settings.schema import PolicyTable
from sealbus.bus.nats.api import StreamState
from sealbus.bus.nats.connection.connection import Connection
from sealbus.bus.stream_names import SUBJECTS
from sealbus.bus.streams.declared import stream_named
from sealbus.envelopes.backoff import Backoff
from sealbus.envelopes.errors import BusUnavailable, ConfigurationError, SealbusError
from sealbus.envelopes.message.kinds import Kind
from sealbus.envelopes.trust.spiffe_id import SpiffeId
from sealbus.policies.bundle.files import STARTER, build_bundle, write_bundle

PARTNERS = (SpiffeId("spiffe://example.org/opa"), SpiffeId("spiffe://partner.example/opa"))


def policy(
    engine: Literal["embedded", "native", "sidecar", "central"], *opa: str, bundle: Path | None = None
) -> PolicyTable:
    where = str(bundle) if bundle is not None else None
    return changed(PolicyTable(engine=engine, bundle=where, opa=opa, deadline=0.5), opa_ids=(PARTNERS[0],))


def test_a_deployment_is_what_the_settings_say(tmp_path: Path) -> None:
    settings = load(tmp_path, FULL)
    deployment = deployment_of(settings)
    assert deployment.names is settings.names
    assert [str(one) for one in deployment.minters] == ["spiffe://example.org/edge"]
    assert [str(one) for one in deployment.notaries] == ["spiffe://example.org/agent/notary"]
    assert deployment.lifetimes == settings.lifetimes
    assert {subject: one.kind for subject, one in deployment.own_subjects.items()} == {
        "orders.created": Kind.EVENT,
        "mail.send": Kind.TASK,
    }


def test_streams_are_declared_with_own_subjects_replicas_and_sizes(tmp_path: Path) -> None:
    streams = streams_of(load(tmp_path, FULL))
    assert tuple(one.name for one in streams) == tuple(SUBJECTS)
    assert "mail.send" in stream_named(streams, "TASKS").subjects
    assert "orders.created" in stream_named(streams, "EVENTS").subjects
    assert stream_named(streams, "TASKS").max_bytes == 1 << 30
    assert {one.replicas for one in streams} == {3}


def test_sizes_that_must_be_said_are_asked_for(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"streams\.max_bytes\.tasks"):
        streams_of(load(tmp_path))


@pytest.mark.parametrize(
    ("said", "address"),
    [
        ("unix:///run/agent.sock", "unix:///run/agent.sock"),
        ("unix:///run/{name}.sock", "unix:///run/pricing.sock"),
    ],
)
def test_a_workload_api_may_have_a_socket_for_each_name(tmp_path: Path, said: str, address: str) -> None:
    settings = load(tmp_path, f'workload_api = "{said}"\n{SMALLEST}')
    assert workload_api_of(settings, "pricing") == address


def test_it_may_be_left_to_the_environment(tmp_path: Path) -> None:
    assert workload_api_of(load(tmp_path), "pricing") is None


@pytest.mark.parametrize("name", ["embedded", "native"])
async def test_an_embedded_engine_reads_the_bundle(tmp_path: Path, name: Literal["embedded", "native"]) -> None:
    if name == "native":
        require_wheel()
    bundle = build_bundle(STARTER)
    write_bundle(bundle, tmp_path / "bundle.tar.gz")
    async with open_engine(policy(name, bundle=tmp_path / "bundle.tar.gz")) as engine:
        status = await engine.status()
    assert (status.engine, status.revision, status.problem) == (name, bundle.revision, "")


async def test_the_native_engine_needs_its_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sealbus_regorus", None)
    with pytest.raises(ConfigurationError, match="make engine"):
        async with open_engine(policy("native", bundle=tmp_path / "bundle.tar.gz")):
            pass


async def test_the_sidecar_need_not_be_there_yet(tmp_path: Path) -> None:
    async with open_engine(policy("sidecar", f"unix:{tmp_path / 'opa.sock'}")) as engine:
        status = await engine.status()
    assert (status.engine, status.revision) == ("sidecar", "")
    assert str(tmp_path / "opa.sock") in status.problem


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (policy("embedded"), r"policy\.bundle is not set"),
        (policy("native"), r"policy\.bundle is not set: the native"),
        (policy("sidecar"), r"policy\.opa is not set"),
        (policy("sidecar", "/a.sock", "/b.sock"), r"policy\.opa names several"),
        (policy("central"), r"policy\.opa is not set"),
        (policy("central", "https://opa:8443"), "needs an identity"),
        (changed(policy("central", "https://opa:8443"), opa_ids=PARTNERS), "one trust domain"),
        (policy("embedded", bundle=Path("/nowhere/bundle.tar.gz")), "nowhere"),
    ],
)
async def test_what_an_engine_lacks_is_one_line(settings: PolicyTable, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says) as refused:
        async with open_engine(settings):
            pass
    assert "\n" not in refused.value.detail


async def test_the_central_engine_asks_by_the_identity_and_need_not_find_opa(tmp_path: Path) -> None:
    identity = StaticIdentity(ThrowawayCa("example.org"), "spiffe://example.org/agent/pricing")
    async with open_engine(policy("central", "https://127.0.0.1:1"), identity) as engine:
        status = await engine.status()
    assert (status.engine, status.revision) == ("central", "")
    assert "https://127.0.0.1:1" in status.problem


@pytest.mark.parametrize("url", ["http://opa:8181", "/run/opa.sock", "https://opa/v1", "https://opa:x"])
async def test_the_central_engine_asks_over_https_only(url: str) -> None:
    identity = StaticIdentity(ThrowawayCa("example.org"), "spiffe://example.org/agent/pricing")
    with pytest.raises(ConfigurationError, match=r"policy\.opa"):
        async with open_engine(policy("central", url), identity):
            pass


@pytest.mark.parametrize("silent", [2, 100])
async def test_servers_that_elect_a_leader_are_asked_again(silent: int, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = 0

    async def check(streams: object, request: object) -> dict[str, StreamState]:
        nonlocal asked
        asked += 1
        if asked <= silent:
            raise BusUnavailable("no answer")
        return {}

    monkeypatch.setattr(module, "check_streams", check)
    monkeypatch.setattr(module, "_AGAIN", Backoff(initial_interval=0.01, maximum_interval=0.01))
    connection = cast("Connection", SimpleNamespace(jetstream=None))
    if silent > 2:
        with pytest.raises(BusUnavailable):
            await module.wait_for_streams([], connection, within=0.1)
        assert 1 < asked < silent
        asked = 0
        with pytest.raises(BusUnavailable):
            await module.wait_for_streams([], connection, within=0.0)
        assert asked == 1
    else:
        assert await module.wait_for_streams([], connection, within=10.0) == {}
        assert asked == 3


async def test_a_missing_workload_api_ends_a_commands_node_at_once_and_names_it(tmp_path: Path) -> None:
    write_bundle(build_bundle(STARTER), tmp_path / "bundle.tar.gz")
    settings = changed(
        load(tmp_path, FULL),
        policy=policy("embedded", bundle=tmp_path / "bundle.tar.gz"),
        workload_api=f"unix://{tmp_path / 'agent.sock'}",
    )
    with pytest.raises(SealbusError) as refused:
        async with open_node("pricing", settings.for_command()):
            pass
    assert str(tmp_path / "agent.sock") in refused.value.detail
    assert "\n" not in refused.value.detail
