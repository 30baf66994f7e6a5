"""The example of docs/legacy.md runs as it is shown: its settings, its agent, its policy and its records."""

from __future__ import annotations

import asyncio
import json
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from support import desk
from support.desk import DESK, PAGE, desk_policy, key_file, provided, site
from support.engines import ScriptedEngine
from support.legacy import LegacyApi, OAuth
from support.oidc_provider import ES256_API, LEGACY_API

from sealbus import Agent, Context
from sealbus.agents.sdk.http import ApiAnswer, ApiRequest
from sealbus.testing import TestBus


@pytest.mark.idp
@pytest.mark.nats
@pytest.mark.workload_api
async def test_the_example() -> None:
    async with (
        provided() as (provider, folder),
        LegacyApi(OAuth(issuer=provider.issuer, audience=LEGACY_API)) as legacy,
    ):
        key_file(folder / "exit.pem", provider.exit_key.as_pem(private=True).decode())
        settings = PAGE.example("settings")
        for shown, real in (("https://crm.example.com", legacy.url), ("https://login.example.com", provider.issuer)):
            assert shown in settings
            settings = settings.replace(shown, real)
        [(name, api)] = tomllib.loads(settings)["egress"]["apis"].items()
        async with site(folder, provider, {name: api}) as running:
            seen = await running.look("42", await provider.user_token("alice", ES256_API))
            assert json.loads(seen.json()["text"])["seen_by"] == "alice"
            denied = await running.look("42", await provider.user_token("carol", ES256_API))
            assert (denied.status_code, denied.json()["code"]) == (403, "denied")
            first, *_ = await running.decisions("exit.crm")
            shown_input = json.loads(PAGE.example("input"))
            recorded = json.loads(first.input or b"{}")
            shown_input["resource"]["properties"]["host"] = "127.0.0.1"
            assert {part: recorded[part] for part in shown_input} == shown_input
            words = PAGE.example("records").split()
            command = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", *words, "--config", str(running.dev.settings_file), "--json"),
                stdout=asyncio.subprocess.PIPE,
            )
            printed, _ = await command.communicate()
        told = [json.loads(line) for line in printed.splitlines()]
        assert [one["allow"] for one in told if one["kind"] == "decision"] == [True, False]


def test_the_agent_is_that_of_the_tests() -> None:
    source = Path(desk.__file__).read_text()
    lines = [line.strip() for line in PAGE.example("agent").splitlines()]
    shown = [
        line.replace("@agent.", "@DESK.").replace('ctx.http("crm")', "ctx.http(body.api, timeout=20)") for line in lines
    ]
    for line in shown:
        assert line in source, line


def test_the_registry_is_that_of_the_tests(tmp_path: Path) -> None:
    registry = desk_policy(tmp_path / "policy", "crm") / "sealbus" / "registry"

    def data(kind: str) -> Any:
        return json.loads((registry / kind / "data.json").read_text())

    for kind in ("actions", "agents", "users"):
        shown = json.loads(PAGE.example(kind))
        assert {name: data(kind)[name] for name in shown} == shown


def test_the_realm_is_that_of_the_tests() -> None:
    """Which `make keycloak-test` runs; but for the address of the bundle, which the tests serve themselves."""
    realm = json.loads((Path(__file__).parents[2] / "deploy" / "tools" / "keycloak" / "realm.json").read_text())
    shown = json.loads(PAGE.example("keycloak realm"))
    [trust] = shown["identityProviders"]
    trust["config"]["bundleEndpoint"] = realm["identityProviders"][0]["config"]["bundleEndpoint"]
    assert is_part(shown, realm)
    shown["clients"][0]["attributes"]["jwt.credential.issuer"] = "other"
    assert not is_part(shown, realm)


def is_part(shown: Any, whole: Any) -> bool:
    """Return whether all that is `shown` is in `whole`; members of lists in any place."""
    if isinstance(shown, dict):
        return isinstance(whole, dict) and all(key in whole and is_part(shown[key], whole[key]) for key in shown)
    if isinstance(shown, list):
        return isinstance(whole, list) and all(any(is_part(one, other) for other in whole) for one in shown)
    return bool(shown == whole)


async def test_an_agent_in_place_of_the_exit() -> None:
    names = {**globals()}
    exec(compile(PAGE.example("test"), "legacy.md", "exec", dont_inherit=True), names)  # noqa: S102  a file of ours
    async with TestBus(DESK, names["crm"], engine=ScriptedEngine()) as bus:
        client = await bus.client("shop-web")
        seen = await client.call("desk.look", desk.Look(customer="42"), returns=desk.Customer)
    assert seen == desk.Customer(status=200, text='{"name": "ACME"}')


_USED = (Agent, Context, ApiAnswer, ApiRequest)
