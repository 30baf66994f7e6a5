"""An agent's request to a service that knows nothing of us: as the user, with a token that no agent ever holds."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys

import pytest
from support.desk import OPERATIONS, SECONDS, key_file, provided, site
from support.legacy import ApiKeys, LegacyApi, OAuth
from support.oidc_provider import ES256_API, EXIT, LEGACY_API

pytestmark = [pytest.mark.nats, pytest.mark.workload_api]


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
        common = {"operations": OPERATIONS}
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
