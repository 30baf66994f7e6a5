from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from support.idp import EDGE, browsing

from sealbus.agents.dev.idp.access import ScriptAccess, fetch_token, read_access, write_access
from sealbus.agents.dev.idp.server import DevelopmentIdp
from sealbus.envelopes.errors import ConfigurationError

ACCESS = ScriptAccess(issuer="http://127.0.0.1:1/development-only", secret="s-e-c-r-e-t")


def test_what_was_written_is_read(tmp_path: Path) -> None:
    write_access(tmp_path / "idp.json", ACCESS)
    assert read_access(tmp_path / "idp.json") == ACCESS


def test_a_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "idp.json"
    write_access(file, ACCESS)
    file.chmod(0o640)
    with pytest.raises(ConfigurationError, match="readable for you only"):
        read_access(file)


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    write_access(tmp_path / "real", ACCESS)
    (tmp_path / "idp.json").symlink_to(tmp_path / "real")
    with pytest.raises(ConfigurationError, match=r"idp\.json"):
        read_access(tmp_path / "idp.json")


def test_a_missing_file_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="is `sealbus dev` running"):
        read_access(tmp_path / "idp.json")


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b'{"issuer": 1}', b"\xff", b'{"issuer": "https://idp.example/x", "secret": "a"}']
    + [
        json.dumps({"issuer": issuer, "secret": "a"}).encode()
        for issuer in ("http://10.0.0.1/x", "http://localhost/x", "")
    ],
)
def test_a_file_that_is_something_else_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "idp.json"
    file.write_bytes(content)
    file.chmod(0o600)
    with pytest.raises(ConfigurationError, match=r"idp\.json"):
        read_access(file)


async def test_a_token_is_fetched_with_it() -> None:
    async with browsing() as browser:
        answer = await asyncio.to_thread(fetch_token, browser.idp.access, {"user": "alice", "session": ""})
        _, claims = await browser.read(str(answer["access_token"]))
        assert (claims["sub"], claims["client_id"], claims["aud"]) == ("alice", "dev", EDGE)


async def test_the_reason_of_a_refusal_is_told_without_the_secret() -> None:
    async with browsing() as browser:
        for access, user, said in (
            (browser.idp.access, "mallory", "there is no such user"),
            (ScriptAccess(issuer=browser.idp.issuer, secret="wrong"), "alice", "gives no token"),
        ):
            with pytest.raises(ConfigurationError, match=said) as caught:
                await asyncio.to_thread(fetch_token, access, {"user": user})
            assert access.secret not in str(caught.value)


async def test_an_idp_that_is_gone_is_told() -> None:
    async with DevelopmentIdp(audience=EDGE) as idp:
        access = idp.access
    with pytest.raises(ConfigurationError, match="does not answer; is `sealbus dev` running"):
        await asyncio.to_thread(fetch_token, access, {"user": "alice"})
