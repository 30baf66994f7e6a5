"""The policy server on a socket: SVIDs on both sides, what its settings lack, and its end."""

from __future__ import annotations

import asyncio
import json
import ssl
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

import httpx2
import pytest
from support.lab import Lab, until
from support.opa import OpaServer, require_opa
from support.policies import eventually, signing_key
from support.policy_bus import COMPOSER, CONTROL, ROOT, control_identity, opa_polling, pushed, serving
from support.policy_desk import key_file
from support.ports import held_port
from support.settings import FULL, changed, load
from support.teams import ONLY_OPA_REFUSES, signed_platform, signed_team, team_policy
from support.x509 import ThrowawayCa

from sealbus.agents.control.policy_server import BUNDLE_PATH, open_policy_server
from sealbus.agents.runtime.policy.store import PolicyStore
from sealbus.agents.runtime.settings.schema import PolicyTable
from sealbus.bus.nats.connection.connection import Connection
from sealbus.envelopes.errors import ConfigurationError
from sealbus.envelopes.trust.keys import public_pem
from sealbus.policies.engines.sidecar import SidecarEngine

pytestmark = pytest.mark.nats


@pytest.fixture
async def store(connection: Connection) -> PolicyStore:
    found = PolicyStore(connection, "policies")
    await found.create()
    await pushed(found, "platform", signed_platform(ROOT, {}), 1)
    return found


def client(lab: Lab, folder: Path, ca: ThrowawayCa | None, name: str = "opa") -> httpx2.AsyncClient:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=lab.ca.cert_der)
    if ca is not None:
        svid = ca.issue(f"spiffe://{ca.trust_domain}/{name}")
        (folder / "client.pem").write_bytes(svid.cert_pem + svid.key_pem)
        context.load_cert_chain(folder / "client.pem")
    return httpx2.AsyncClient(verify=context)


async def test_workloads_of_the_trust_domain_and_nobody_else(lab: Lab, store: PolicyStore, tmp_path: Path) -> None:
    async with serving(lab, store, tmp_path / "cache") as (_, server):
        url = f"https://127.0.0.1:{server.port}{BUNDLE_PATH}"
        async with client(lab, tmp_path, lab.ca) as opa:
            found = await opa.get(url)
            assert (found.status_code, found.content) == (200, server.served.raw)
            assert server.problem == ""
        for stranger in (None, ThrowawayCa("example.org"), ThrowawayCa("other.org")):
            async with client(lab, tmp_path, stranger) as other:
                with pytest.raises(httpx2.TransportError):
                    await other.get(url)


async def test_its_end_does_not_wait_for_long_polls(lab: Lab, store: PolicyStore, tmp_path: Path) -> None:
    async with client(lab, tmp_path, lab.ca) as opa:
        async with serving(lab, store, tmp_path / "cache") as (_, server):
            url = f"https://127.0.0.1:{server.port}{BUNDLE_PATH}"
            headers = {"If-None-Match": server.served.etag, "Prefer": "wait=30"}
            waiting = asyncio.create_task(opa.get(url, headers=headers, timeout=30))
            await asyncio.sleep(0.2)
            assert not waiting.done()
        async with asyncio.timeout(60):
            assert (await waiting).status_code == 304


async def test_what_its_settings_lack_is_one_line(connection: Connection, lab: Lab, tmp_path: Path) -> None:
    plain = PolicyTable(engine="embedded", opa=(), deadline=1.0, bundle="nats://policies")
    file, _ = key_file(tmp_path / "composer.pem")
    for policy, says in (
        (plain, r"policy\.serve .* and policy\.serve_key .* are not set"),
        (changed(plain, serve=":0", serve_key=tmp_path / "none"), r"policy\.serve_key: .*none cannot be read"),
        (changed(plain, serve=":0", serve_key=file), r"policy\.cache is not set"),
    ):
        settings = changed(load(tmp_path, FULL), policy=policy)
        with pytest.raises(ConfigurationError, match=says) as refused:
            async with open_policy_server(settings, control_identity(lab.ca), connection):
                pass
        assert "\n" not in refused.value.detail


async def test_from_settings(store: PolicyStore, connection: Connection, lab: Lab, tmp_path: Path) -> None:
    file, _ = key_file(tmp_path / "composer.pem")
    (tmp_path / "root.pem").write_text(public_pem(ROOT.public), encoding="ascii")
    policy = PolicyTable(
        engine="embedded", opa=(), deadline=1.0, bundle="nats://policies", cache=tmp_path / "cache",
        keys=(tmp_path / "root.pem",), serve="127.0.0.1:0", serve_key=file,
    )  # fmt: skip
    settings = changed(load(tmp_path, FULL), policy=policy)
    identity = control_identity(lab.ca)
    assert str(identity.spiffe_id) == CONTROL
    async with open_policy_server(settings, identity, connection) as server:
        task = asyncio.create_task(server.run())
        await server.listening.wait()
        async with client(lab, tmp_path, lab.ca) as opa:
            assert (await opa.get(f"https://127.0.0.1:{server.port}{BUNDLE_PATH}")).status_code == 200
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert not server.listening.is_set()


@pytest.mark.opa
async def test_what_no_opa_would_compile_is_not_served(
    store: PolicyStore, connection: Connection, lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEALBUS_OPA", str(require_opa()))
    file, _ = key_file(tmp_path / "composer.pem")
    (tmp_path / "root.pem").write_text(public_pem(ROOT.public), encoding="ascii")
    policy = PolicyTable(
        engine="embedded", opa=(), deadline=1.0, bundle="nats://policies", cache=tmp_path / "cache",
        keys=(tmp_path / "root.pem",), serve="127.0.0.1:0", serve_key=file,
    )  # fmt: skip
    settings = changed(load(tmp_path, FULL), policy=policy)
    stock = signing_key()
    await pushed(store, "platform", signed_platform(ROOT, {"stock": stock}, serial=2), 2)
    # Pushed past the command, by a team whose embedded engines would take it.
    odd = team_policy("stock", extra=ONLY_OPA_REFUSES)
    await pushed(store, "stock", signed_team("stock", stock, odd), 1)
    async with open_policy_server(settings, control_identity(lab.ca), connection) as server:
        assert "stock/policy.rego:9:" in server.problem
        await pushed(store, "stock", signed_team("stock", stock, serial=2), 2)
        await until(lambda: not server.problem)


@pytest.mark.opa
async def test_its_key_is_replaced_while_opas_know_both(lab: Lab, store: PolicyStore, tmp_path: Path) -> None:
    """An OPA that knows the former key alone goes on with the policy that it has."""
    new, port = signing_key(), held_port()
    address = f"127.0.0.1:{port}"
    signers = {"both": (COMPOSER.public, new.public), "former": (COMPOSER.public,)}
    async with AsyncExitStack() as stack:
        async with serving(lab, store, tmp_path / "cache", address=address) as (_, server):
            asked, opas = {}, {}
            for name, known in signers.items():
                polling = opa_polling(lab, port, tmp_path / name, signers=known)
                # It polls us: it would wait for ever where its start blocks the loop.
                opas[name] = opa = await asyncio.to_thread(polling.__enter__)
                stack.callback(polling.__exit__, None, None, None)
                asked[name] = await stack.enter_async_context(SidecarEngine(opa.socket, deadline=60.0))
            first = server.served.revision
            for engine in asked.values():
                await eventually(partial(has_revision, engine, first))
        await pushed(store, "platform", signed_platform(ROOT, {}, serial=2), 2)
        async with serving(lab, store, tmp_path / "cache", key=new, address=address) as (_, server):
            await eventually(partial(has_revision, asked["both"], server.served.revision))
            await eventually(partial(refused_a_signature, opas["former"]))
            assert await has_revision(asked["former"], first)


async def has_revision(engine: SidecarEngine, revision: str) -> bool:
    return (await engine.status()).revision == revision


async def refused_a_signature(opa: OpaServer) -> bool:
    status = json.loads(opa.request("GET", "/v1/status")[1])["result"]
    return "verify JWT signature" in status["bundles"]["sealbus"].get("message", "")
