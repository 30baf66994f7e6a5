"""An agent's request to a service that knows nothing of us: as the user, with a token that no agent ever holds."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
from joserfc.jwk import ECKey
from support.desk import DESK, desk_policy
from support.issuer import TRUSTS_NOBODY, public_jwk
from support.legacy import ApiKeys, LegacyApi, OAuth
from support.oidc_provider import ES256_API, EXIT, LEGACY_API, OidcProvider
from support.workload_api import short_folder

from sealbus.agents.dev.environment import DevOptions, Environment, open_environment
from sealbus.agents.dev.settings_file import read_declared
from sealbus.agents.edge.edge import RunningEdge, open_edge
from sealbus.agents.runtime.open import open_audit_trail, open_node
from sealbus.agents.runtime.settings.settings import Flag, load_settings
from sealbus.agents.runtime.worker import Worker
from sealbus.bus.audit.trail import AuditEntry
from sealbus.envelopes.records.decision import DecisionRecord

pytestmark = [pytest.mark.nats, pytest.mark.workload_api, pytest.mark.timeout(90)]

OPERATIONS = ["GET /customers/{customer}", "POST /customers/{customer}/notes"]
LOOPBACK = ["127.0.0.0/8"]
SECONDS = 20.0


@dataclass(frozen=True, kw_only=True)
class Site:
    """A development environment with a desk and an exit, and an edge for the users of a provider."""

    dev: Environment
    edge: RunningEdge
    http: httpx2.AsyncClient

    async def look(self, customer: str, token: str, api: str = "crm") -> httpx2.Response:
        body = {"customer": customer, "api": api}
        return await self.http.post("/v1/calls/desk/look", json=body, headers={"Authorization": f"Bearer {token}"})

    async def decisions(self, action: str) -> list[DecisionRecord]:
        async with open_audit_trail("operator", self.dev.settings) as trail:
            return [
                entry.record
                async for entry in trail.entries()
                if isinstance(entry, AuditEntry)
                and isinstance(entry.record, DecisionRecord)
                and entry.record.action == action
            ]


def written(path: Path, apis: Mapping[str, Mapping[str, Any]]) -> Path:
    """Write a settings file with these APIs to `path`, and return it."""
    lines = []
    for name, api in apis.items():
        lines += [f"[egress.apis.{name}]", *(f"{key} = {json.dumps(value)}" for key, value in api.items())]
    path.write_text("\n".join(lines) + "\n")
    return path


def key_file(path: Path, content: str) -> Path:
    path.touch(mode=0o600)
    path.write_text(content)
    return path


@asynccontextmanager
async def site(folder: Path, provider: OidcProvider, apis: Mapping[str, Mapping[str, Any]]) -> AsyncIterator[Site]:
    options = DevOptions(
        folder=folder / "dev",
        agents=("shop-web", "desk"),
        declared=read_declared(written(folder / "sealbus.toml", apis)),
        policy=desk_policy(folder / "policy", *apis),
        port=0,
        max_bytes=1 << 24,
    )
    stop = asyncio.Event()
    async with open_environment(options) as dev:
        key = dev.settings.edge.token_key
        row = {
            "issuer": provider.issuer,
            "audiences": [ES256_API],
            "algorithms": ["ES256"],
            "keep_tokens": key is not None,
        }
        flags = {
            "edge.address": "127.0.0.1:0",
            "edge.token_service": "127.0.0.1:0",
            "edge.issuers": [row],
            "edge.token_key": str(key or ""),
        }
        settings = load_settings(
            dev.settings_file,
            environment={},
            flags=[Flag(option="test", key=key, value=value) for key, value in flags.items() if value],
        )
        async with (
            open_edge(settings) as edge,
            open_node("desk", dev.settings) as node,
            Worker(DESK, node) as worker,
            asyncio.TaskGroup() as group,
            httpx2.AsyncClient(
                base_url=f"http://127.0.0.1:{edge.port}", trust_env=False, verify=TRUSTS_NOBODY, timeout=SECONDS
            ) as http,
        ):
            group.create_task(worker.run(stop))
            await worker.ready.wait()
            yield Site(dev=dev, edge=edge, http=http)
            stop.set()


@asynccontextmanager
async def provided() -> AsyncIterator[tuple[OidcProvider, Path]]:
    """Start the provider, which believes what its client, the exit, says of users."""
    key = ECKey.generate_key("P-256", private=True)
    with short_folder() as folder:
        provider = OidcProvider({"k": ("ES256", key)})
        exit_key = provider.exit_key
        provider = OidcProvider({"k": ("ES256", key)}, trusted={EXIT: [public_jwk(exit_key, exit_key.thumbprint())]})
        provider.exit_key = exit_key
        async with provider:
            yield provider, folder


@pytest.mark.idp
@pytest.mark.parametrize("grant", ["token_exchange", "jwt_bearer"])
async def test_the_service_sees_the_user(grant: str) -> None:
    async with (
        provided() as (provider, folder),
        LegacyApi(OAuth(issuer=provider.issuer, audience=LEGACY_API)) as legacy,
    ):
        key = key_file(folder / "exit.pem", provider.exit_key.as_pem(private=True).decode())
        api = {
            "url": legacy.url,
            "operations": OPERATIONS,
            "networks": LOOPBACK,
            "grant": grant,
            "issuer": provider.issuer,
            "client": EXIT,
            "client_key": str(key),
            "resource": LEGACY_API,
            "users": [provider.issuer],
        }
        async with site(folder, provider, {"crm": api}) as running:
            tokens = {who: await provider.user_token(who, ES256_API) for who in ("alice", "carol")}
            seen = await running.look("42", tokens["alice"])
            assert (seen.status_code, seen.json()["status"]) == (200, 200), seen.text
            assert json.loads(seen.json()["text"])["seen_by"] == "alice"
            denied = await running.look("42", tokens["carol"])
            assert (denied.status_code, denied.json()["code"]) == (403, "denied")
            again = await running.look("42", tokens["alice"])
            assert again.json()["status"] == 200
            decided = await running.decisions("exit.crm")
        [first, second] = legacy.received
        shown = first.header("authorization")
        assert (first.subject, second.subject) == ("alice", "alice")
        assert shown == second.header("authorization"), "got once"
        assert shown != [f"Bearer {tokens['alice']}"]
        assert [(one.allow, one.reasons) for one in decided] == [(True, ()), (False, ("not_owner",)), (True, ())]


@pytest.mark.idp
async def test_the_exit_as_itself_and_with_a_key() -> None:
    async with (
        provided() as (provider, folder),
        LegacyApi(OAuth(issuer=provider.issuer, audience=LEGACY_API)) as modern,
        LegacyApi(ApiKeys({"first": "the-first-of-two-keys"})) as old,
    ):
        shown = key_file(folder / "old.key", "the-first-of-two-keys\n")
        common = {"operations": OPERATIONS, "networks": LOOPBACK}
        apis = {
            "old": {**common, "url": old.url, "grant": "key", "key": str(shown), "key_header": "X-Api-Key"},
            "modern": {
                **common,
                "url": modern.url,
                "grant": "client_credentials",
                "issuer": provider.issuer,
                "client": EXIT,
                "client_key": str(key_file(folder / "exit.pem", provider.exit_key.as_pem(private=True).decode())),
                "resource": LEGACY_API,
            },
        }
        async with site(folder, provider, apis) as running:
            alice = await provider.user_token("alice", ES256_API)
            assert (await running.look("42", alice, "old")).json()["status"] == 200
            assert (await running.look("42", alice, "modern")).json()["status"] == 200
            guard = old.guard
            assert isinstance(guard, ApiKeys)
            guard.valid = {"second": "the-second-of-two-keys"}
            assert (await running.look("42", alice, "old")).json()["status"] == 401
            shown.write_text("the-second-of-two-keys\n")
            assert (await running.look("42", alice, "old")).json()["status"] == 200
        assert [one.subject for one in old.received] == ["first", "", "second"]
        assert [one.subject for one in modern.received] == [EXIT]


@pytest.mark.idp
async def test_the_command_runs_and_stops_on_sigterm() -> None:
    async with provided() as (provider, folder), LegacyApi(ApiKeys({"one": "the-first-of-two-keys"})) as old:
        key = key_file(folder / "old.key", "the-first-of-two-keys\n")
        api = {
            "url": old.url,
            "operations": OPERATIONS,
            "networks": LOOPBACK,
            "grant": "key",
            "key": str(key),
        }
        async with site(folder, provider, {"old": api}) as running:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                *("-m", "sealbus", "edge", "exit", "--json", "--config", str(running.dev.settings_file)),
                stdout=asyncio.subprocess.PIPE,
                env=dict(os.environ),
            )
            assert process.stdout is not None
            async with asyncio.timeout(SECONDS):
                ready = json.loads(await process.stdout.readline())
                assert ready == {"ready": True, "identity": "spiffe://example.org/agent/exit", "apis": ["old"]}
                process.send_signal(signal.SIGTERM)
                assert await process.wait() == 0
