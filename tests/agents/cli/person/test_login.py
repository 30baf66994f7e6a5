"""`sealbus login`, `logout` and `token` as a person uses them, against the development IdP and a scripted provider."""

from __future__ import annotations

import asyncio
import json
import os
import re
import threading
from collections.abc import AsyncGenerator
from html import unescape
from pathlib import Path

import click
import httpx2
import pytest
from click.testing import CliRunner, Result
from support.idp import Browser, browsing
from support.scripted_provider import SECRETS, ScriptedProvider, given
from support.settings import SMALLEST

from sealbus.agents.cli.person import login, token
from sealbus.agents.login.kept_login import LoginRequired
from sealbus.agents.login.login_file import LoginFile
from sealbus.agents.login.provider import LoginFailed
from sealbus.envelopes.errors import ConfigurationError


@pytest.fixture(autouse=True)
def logins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "state" / "sealbus" / "logins.json"


@pytest.fixture
async def browser(tmp_path: Path) -> AsyncGenerator[Browser, None]:
    async with browsing() as found:
        said = f'[client]\nissuer = "{found.idp.issuer}"\nclient_id = "sealbus-cli"\n'
        (tmp_path / "sealbus.toml").write_text(SMALLEST + said)
        yield found


@pytest.fixture
async def idp() -> AsyncGenerator[ScriptedProvider, None]:
    async with ScriptedProvider() as idp:
        yield idp


async def run(command: click.Command, *arguments: str) -> Result:
    return await asyncio.to_thread(CliRunner().invoke, command, arguments)


def log_in_as(user: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a browser choose `user`, or nobody, on the page that the command opens."""

    def choose(page: str) -> None:
        with httpx2.Client(trust_env=False, timeout=60) as http:
            shown = http.get(page)
            (hidden,) = re.findall(r'name="request" value="([^"]+)"', shown.text)
            chosen = {"user": user} if user else {"deny": "yes"}
            answer = http.post(page.partition("?")[0], data={"request": unescape(hidden), **chosen})
            http.get(answer.headers["location"])

    monkeypatch.setattr(login, "open_page", lambda page: threading.Thread(target=choose, args=(page,)).start())


async def test_a_login_in_a_browser_is_kept_and_used(
    browser: Browser, logins: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log_in_as("alice", monkeypatch)
    result = await run(login.command, "--browser")
    assert (result.exit_code, result.stdout) == (0, ""), result.output
    assert f"You are logged in at {browser.idp.issuer} until " in result.stderr
    assert f"then log in again. Kept in {logins}" in result.stderr
    assert LoginFile(logins).read()

    printed = await run(token.command)
    assert (printed.exit_code, printed.stderr) == (0, "")
    (line,) = printed.stdout.splitlines()
    _, claims = await browser.read(line)
    assert (claims["sub"], claims["client_id"], claims["scope"]) == ("alice", "sealbus-cli", "openid")
    assert line not in result.output
    said = json.loads((await run(token.command, "--json")).stdout)
    assert (said["access_token"], said["issuer"], said["token_type"]) == (line, browser.idp.issuer, "Bearer")
    assert 800 < said["expires_in"] <= 900

    gone = await run(login.logout)
    assert (gone.exit_code, gone.stdout) == (0, "")
    assert "cannot revoke the access token, which counts until " in gone.stderr
    assert line not in gone.stderr
    assert isinstance((await run(token.command)).exception, LoginRequired)


async def test_who_refuses_in_the_browser_is_not_logged_in(
    browser: Browser, logins: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log_in_as("", monkeypatch)
    result = await run(login.command, "--browser")
    assert isinstance(result.exception, LoginFailed)
    assert "access_denied" in result.exception.detail
    assert LoginFile(logins).read() == ()


async def test_without_settings_the_options_are_enough(idp: ScriptedProvider, tmp_path: Path) -> None:
    file = tmp_path / "mine.json"
    idp.says(
        "/device",
        {
            "device_code": SECRETS["device"],
            "user_code": "ABCD",
            "verification_uri": f"{idp.issuer}/page",
            "expires_in": 60,
            "interval": 0,
        },
    )
    idp.says("/token", given())
    options = ("--issuer", idp.issuer, "--client-id", "cli", "--file", str(file))
    more = ("--scope", "openid offline_access", "--resource", "urn:api", "--max-age", "60", "--acr", "urn:mfa")
    result = await run(login.command, *options, *more, "--json")
    assert result.exit_code == 0, result.output
    assert idp.fields("/device") == [
        {
            "client_id": "cli",
            "scope": "openid offline_access",
            "resource": "urn:api",
            "max_age": "60",
            "acr_values": "urn:mfa",
        }
    ]
    said = json.loads(result.stdout)
    assert (said["issuer"], said["resource"], said["renewed"], said["file"]) == (idp.issuer, "urn:api", True, str(file))
    assert f"open {idp.issuer}/page and type the code ABCD" in result.stderr
    assert "it is renewed when needed" in result.stderr
    assert "nobody-may-see" not in result.output

    for _ in range(2):
        idp.says("/revoke", b"")
    ended = await run(login.logout, "--file", str(file), "--json")
    assert json.loads(ended.stdout) == {
        "issuer": idp.issuer,
        "client_id": "cli",
        "resource": "urn:api",
        "revoked": True,
    }
    assert "removed here and revoked there" in ended.stderr
    assert "nobody-may-see" not in ended.output


async def test_a_file_that_others_can_read_is_told_before_anybody_logs_in(browser: Browser, logins: Path) -> None:
    os.makedirs(logins.parent)  # noqa: PTH103  a Path of an async function is taken for one that blocks
    os.close(os.open(logins, os.O_CREAT, 0o644))
    for command in (login.command, login.logout, token.command):
        result = await run(command)
        assert isinstance(result.exception, ConfigurationError)
        assert "can be read by others" in result.exception.detail
        assert result.output == ""


async def test_what_is_not_set_is_told(tmp_path: Path) -> None:
    result = await run(login.command)
    assert isinstance(result.exception, ConfigurationError)
    assert result.exception.detail == ("client.issuer is not set: name your identity provider there, or by --issuer")
    assert isinstance((await run(login.logout)).exception, LoginRequired)


@pytest.mark.parametrize(
    "option", [("--scope", "a"), ("--session", "s"), ("--expires-in", "900"), ("--client", "dev"), ("--acr", "a")]
)
async def test_what_a_token_of_a_login_holds_is_not_chosen_here(option: tuple[str, str]) -> None:
    result = await run(token.command, *option)
    assert result.exit_code == 2
    assert f"{option[0]} goes with --user" in result.output


def test_a_browser_is_opened_only_where_a_window_can_show_it(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr(click, "launch", opened.append)
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr("sys.stderr.isatty", lambda: False, raising=False)
    login.open_page("https://idp.example/a")
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    login.open_page("https://idp.example/b")
    monkeypatch.delenv("DISPLAY")
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    login.open_page("https://idp.example/c")
    assert opened == ["https://idp.example/b"]
