"""`sealbus token` against a development IdP; the whole command against `sealbus dev` is in tests/integration."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from support.idp import EDGE, Browser, browsing
from support.settings import SMALLEST

from sealbus.agents.cli.person.token import command
from sealbus.envelopes.errors import ConfigurationError


@pytest.fixture
async def browser(tmp_path: Path) -> AsyncGenerator[Browser, None]:
    access = tmp_path / "idp.json"
    async with browsing(access=access) as found:
        said = f'[dev]\nissuer = "{found.idp.issuer}"\naccess = "{access}"\n'
        (tmp_path / "dev.toml").write_text(SMALLEST + said)
        yield found


async def run(folder: Path, *arguments: str) -> Result:
    config = ["--config", str(folder / "dev.toml")]
    return await asyncio.to_thread(CliRunner().invoke, command, [*arguments, *config])


async def test_the_token_alone_is_on_stdout(browser: Browser, tmp_path: Path) -> None:
    result = await run(tmp_path, "--user", "alice")
    assert (result.exit_code, result.stderr) == (0, "")
    (line,) = result.stdout.splitlines()
    _, claims = await browser.read(line)
    assert (claims["sub"], claims["client_id"], claims["aud"]) == ("alice", "dev", EDGE)
    assert claims["exp"] - claims["iat"] == 900


async def test_every_option_is_in_the_token(browser: Browser, tmp_path: Path) -> None:
    options = ("--client", "batch", "--audience", "urn:x", "--scope", "a b", "--expires-in", "60", "--session", "s-1")
    result = await run(tmp_path, "--user", "bob", *options, "--json")
    answer = json.loads(result.stdout)
    assert (answer["issuer"], answer["expires_in"]) == (browser.idp.issuer, 60)
    _, claims = await browser.read(answer["access_token"])
    assert [claims[name] for name in ("sub", "client_id", "aud", "scope", "sid")] == [
        "bob",
        "batch",
        "urn:x",
        "a b",
        "s-1",
    ]
    assert claims["exp"] - claims["iat"] == 60


async def test_how_and_when_the_user_logged_in_is_in_the_token(browser: Browser, tmp_path: Path) -> None:
    options = ("--acr", "urn:mfa", "--amr", "pwd otp", "--login-age", "3600")
    _, claims = await browser.read((await run(tmp_path, "--user", "alice", *options)).stdout.strip())
    assert (claims["acr"], claims["amr"], claims["iat"] - claims["auth_time"]) == ("urn:mfa", ["pwd", "otp"], 3_600)
    result = await run(tmp_path, "--user", "alice", "--acr", "a b")
    assert isinstance(result.exception, ConfigurationError)
    assert "acr, amr or login_age is malformed" in result.exception.detail


async def test_an_unknown_user_is_told(browser: Browser, tmp_path: Path) -> None:
    result = await run(tmp_path, "--user", "mallory")
    assert isinstance(result.exception, ConfigurationError)
    assert "there is no such user" in result.exception.detail
    assert result.stdout == ""


async def test_elsewhere_than_in_dev_there_is_none(tmp_path: Path) -> None:
    (tmp_path / "dev.toml").write_text(SMALLEST)
    result = await run(tmp_path, "--user", "alice")
    assert isinstance(result.exception, ConfigurationError)
    assert "needs a running `sealbus dev`" in result.exception.detail
