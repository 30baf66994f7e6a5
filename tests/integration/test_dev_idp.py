"""`sealbus dev` with a project's own sealbus.toml: its subjects, its users, its tokens, and what a kill leaves."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path

import click
import httpx2
import pytest
from click.testing import CliRunner, Result
from support.idp import Browser, Pkce
from support.settings import changed
from support.workload_api import short_folder

from sealbus.agents.cli.bus import pub, task_list
from sealbus.agents.cli.bus.on_behalf import login_file
from sealbus.agents.cli.main import EXIT_ERROR
from sealbus.agents.dev.environment import DevOptions, Environment, open_environment
from sealbus.agents.dev.settings_file import read_declared
from sealbus.agents.dev.users import dev_token
from sealbus.agents.edge.http.problem import TokenRefused
from sealbus.agents.edge.oauth.issuers import Issuer
from sealbus.agents.edge.oauth.keys.jwks import KeySource
from sealbus.agents.edge.oauth.tokens.access_token import AccessTokenVerifier
from sealbus.agents.login.kept_login import LoginRequired, keep_login
from sealbus.agents.login.public_client import PublicClient
from sealbus.agents.login.token_answer import Tokens
from sealbus.agents.runtime.client import Client
from sealbus.agents.runtime.open import open_connection, streams_of
from sealbus.agents.runtime.settings.schema import DevTable
from sealbus.agents.runtime.settings.state_folder import STARTER_AGENTS
from sealbus.bus.clocks import wall_clock
from sealbus.bus.streams.check import check_streams
from sealbus.envelopes.errors import ConfigurationError
from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.message.user_context import parse_payload

pytestmark = [pytest.mark.nats, pytest.mark.workload_api]

SEALBUS = str(Path(sys.executable).parent / "sealbus")
PROJECT = """
[agents]
billing = "spiffe://example.org/ns/money/billing"
[subjects."orders.created"]
kind = "event"
owner = "orders"
[subjects."mail.send"]
kind = "task"
owner = "billing"
[dev.users.dora]
department = "guests"
acr = "urn:mfa"
login_age = 3600
"""


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """Return a folder with a short path, in which there is room for a socket's name (`short_folder`)."""
    with short_folder() as folder:
        yield folder


@pytest.fixture
async def environment(tmp_path: Path) -> AsyncGenerator[Environment, None]:
    (tmp_path / "sealbus.toml").write_text(PROJECT)
    options = DevOptions(
        folder=tmp_path / ".sealbus",
        agents=STARTER_AGENTS,
        declared=read_declared(tmp_path / "sealbus.toml"),
        port=-1,
    )
    async with open_environment(options) as running:
        yield running


async def test_own_subjects_are_streamed_and_permitted(environment: Environment) -> None:
    settings = environment.settings
    assert {one.subject for one in settings.own_subjects} == {"orders.created", "mail.send"}
    assert settings.names.id_of("billing").value == "spiffe://example.org/ns/money/billing"
    streams = {one.name: one.subjects for one in streams_of(settings)}
    assert "mail.send" in streams["TASKS"]
    assert "orders.created" in streams["EVENTS"]
    for name in ("billing", "orders", "shop-web"):
        async with open_connection(name, settings) as (_, connection):
            await check_streams(streams_of(settings), connection.jetstream)


async def test_the_store_has_room_for_what_the_streams_declare(environment: Environment) -> None:
    declared = sum(one.max_bytes for one in streams_of(environment.settings))
    config = (environment.settings_file.parent / "nats" / "nats.conf").read_text()
    room = int(config.partition('"max_file_store": ')[2].partition("\n")[0].rstrip(",} "))
    assert declared <= room < declared + (1 << 27)


async def test_an_edge_takes_its_tokens(environment: Environment) -> None:
    idp = environment.idp
    issuer = Issuer(
        issuer=idp.issuer,
        audiences=frozenset({"urn:edge"}),
        algorithms=frozenset({"ES256"}),
        claims={"department": "department"},
    )
    async with KeySource() as keys:
        verifier = AccessTokenVerifier([issuer], keys)
        token = await verifier.verify(
            idp.token("dora", audience="urn:edge", session="s-1", scope="a b"), now=wall_clock()
        )
        assert (token.issuer, token.subject, token.client, token.session) == (idp.issuer, "dora", "dev", "s-1")
        assert (dict(token.claims), token.scope) == ({"department": "guests"}, ("a", "b"))
        assert token.auth_time is not None
        for refused in (idp.token("dora"), idp.token("dora", audience="urn:edge", expires_in=-1)):
            with pytest.raises(TokenRefused):
                await verifier.verify(refused, now=wall_clock())


async def test_who_logged_in_gets_through_the_edge(environment: Environment) -> None:
    pkce = Pkce()
    async with httpx2.AsyncClient(trust_env=False, timeout=60) as http:
        browser = Browser(environment.idp, http)
        given = (await browser.exchange(await browser.code(pkce), pkce)).json()
        task = f"{environment.edge.front.resource}/v1/tasks/inventory/update"
        body = {"item_id": "42", "quantity": 3}
        for token, status in (
            (given["access_token"], 202),
            (given["id_token"], 401),
            (environment.idp.token("alice", audience="urn:other"), 401),
            (environment.idp.token("alice", expires_in=-1), 401),
        ):
            answer = await http.post(task, json=body, headers={"Authorization": f"Bearer {token}"})
            assert answer.status_code == status, answer.text
            assert token not in answer.text


async def test_a_context_of_a_user_is_what_the_edge_makes_of_a_login(environment: Environment) -> None:
    token = await asyncio.to_thread(dev_token, environment.settings, "dora", "s-1")
    async with Client("shop-web", settings=environment.settings) as client:
        context = parse_payload((await client.user_context(token)).payload)
    assert (context.sub, context.idp, context.sid) == ("dora", environment.idp.issuer, "s-1")
    assert (context.wkl, context.acr) == (environment.settings.names.id_of("shop-web"), "urn:mfa")
    assert dict(context.clm) == {"department": "guests"}
    assert context.aut is not None
    assert abs(context.iat - context.aut - 3_600 * SECOND) <= 60 * SECOND


async def test_who_cannot_log_in_has_no_token_without_a_login_either(environment: Environment) -> None:
    """`sealbus pub --user` and `sealbus token --user` know the same people."""
    with pytest.raises(ConfigurationError, match="there is no such user"):
        await asyncio.to_thread(dev_token, environment.settings, "mallory")
    with pytest.raises(ConfigurationError, match="needs a running `sealbus dev`"):
        dev_token(changed(environment.settings, dev=DevTable()), "alice")


async def test_who_logged_in_acts_for_themselves_by_me(
    environment: Environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    config = ["--config", str(environment.settings_file)]

    async def run(command: click.Command, *words: str) -> Result:
        return await asyncio.to_thread(CliRunner().invoke, command, [*words, *config])

    # Nobody has logged in yet, so nothing is sent.
    refused = await run(pub.command, "task.inventory.update", "{}", "--me")
    assert isinstance(refused.exception, LoginRequired)
    async with httpx2.AsyncClient(trust_env=False, timeout=60) as http:
        pkce = Pkce()
        browser = Browser(environment.idp, http)
        given = (await browser.exchange(await browser.code(pkce), pkce)).json()
    tokens = Tokens.parse(given, scope="", now=wall_clock())
    table = environment.settings.client
    await keep_login(login_file(table), PublicClient.of(table), tokens)
    sent = await run(pub.command, "task.inventory.update", '{"item_id": "42", "quantity": 3}', "--me", "--json")
    assert sent.exit_code == 0, sent.output
    assert tokens.access_token not in sent.output
    # Verified as its agent would: the context in it is the edge's, and for the sender.
    for user, tasks in (("alice", 1), ("bob", 0)):
        shown = await run(task_list.ls, "--user", user, "--json")
        assert len(shown.stdout.splitlines()) == tasks, shown.output
    assert json.loads(sent.stdout)["message"] in (await run(task_list.ls, "--json")).stdout


async def test_one_folder_has_one_environment(environment: Environment) -> None:
    folder = environment.settings_file.parent
    with pytest.raises(ConfigurationError, match=rf"in use by process {os.getpid()}"):
        async with open_environment(DevOptions(folder=folder, agents=(), port=-1)):
            raise AssertionError


def sealbus(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([SEALBUS, *arguments], cwd=folder, capture_output=True, text=True, timeout=60, check=False)


async def test_what_a_killed_dev_leaves_is_told_and_ignored(tmp_path: Path) -> None:
    (tmp_path / "sealbus.toml").write_text(PROJECT)
    command = [SEALBUS, "dev", "--json", "--port", "0", "--edge-port", "0", "--console-port", "0"]
    dev = await asyncio.create_subprocess_exec(*command, cwd=tmp_path, stdout=subprocess.PIPE)
    try:
        assert dev.stdout is not None
        assert b'"ready":true' in await dev.stdout.readline()
        given = await asyncio.to_thread(sealbus, tmp_path, "token", "--user", "dora")
        assert (given.returncode, given.stderr) == (0, "")
        assert given.stdout.count(".") == 2
        cleaned = await asyncio.to_thread(sealbus, tmp_path, "dev", "--clean")
        assert cleaned.returncode == 2
        assert "in use" in cleaned.stderr
    finally:
        dev.send_signal(signal.SIGKILL)
        await dev.communicate()
    assert (tmp_path / ".sealbus" / "dev.toml").exists()
    refused = await asyncio.to_thread(sealbus, tmp_path, "token", "--user", "dora")
    assert refused.returncode == EXIT_ERROR
    warning, complaint, _ = refused.stderr.splitlines()
    assert "no longer runs, and is ignored" in warning
    assert "sealbus.toml" in complaint
