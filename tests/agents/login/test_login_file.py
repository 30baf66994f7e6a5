"""The file of logins: its owner's alone, whole or not at all; nothing else in its place is read, followed or waited for."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import stat
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.envelopes import NOW
from support.scripted_provider import SECRETS

from sealbus.agents.login.login_file import KeptLogin, LoginFile, default_file
from sealbus.agents.login.token_answer import Tokens
from sealbus.envelopes.errors import ConfigurationError
from sealbus.envelopes.limits import SECOND

TOKENS = Tokens(
    access_token=SECRETS["access"], refresh_token=SECRETS["refresh"], scope="openid", expires=NOW + 600 * SECOND
)
LOGIN = KeptLogin(issuer="https://idp.example", client_id="cli", resource=None, tokens=TOKENS)


@pytest.fixture
def file(tmp_path: Path) -> LoginFile:
    return LoginFile(tmp_path / "logins.json")


def changed(**values: Any) -> dict[str, Any]:
    return {
        "issuer": "https://idp.example",
        "client_id": "cli",
        "resource": None,
        "scope": "openid",
        "expires": NOW,
        "access_token": SECRETS["access"],
        "refresh_token": None,
        **values,
    }


def put(file: LoginFile, content: object) -> None:
    file.path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    file.path.chmod(0o600)


def test_what_is_written_is_read_and_nobody_elses(file: LoginFile) -> None:
    assert file.read() == ()
    old = os.umask(0)
    try:
        file.write([LOGIN, replace(LOGIN, resource="https://api.example")], now=NOW)
    finally:
        os.umask(old)
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600
    assert file.read() == (LOGIN, replace(LOGIN, resource="https://api.example"))
    assert [path.name for path in file.path.parent.iterdir()] == ["logins.json"]
    assert "nobody-may-see" not in repr(file.read())


def test_a_login_that_has_ended_is_not_kept(file: LoginFile) -> None:
    ended = replace(LOGIN, client_id="other", tokens=replace(TOKENS, refresh_token=None, expires=NOW))
    renewable = replace(LOGIN, tokens=replace(TOKENS, expires=NOW))
    file.write([ended, renewable], now=NOW)
    assert file.read() == (renewable,)


def test_there_is_a_most_of_logins(file: LoginFile) -> None:
    with pytest.raises(ConfigurationError, match="holds 64 logins"):
        file.write([replace(LOGIN, client_id=f"c{number}") for number in range(65)], now=NOW)
    assert not file.path.exists()


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o601, 0o666])
def test_a_file_that_others_can_read_is_refused(mode: int, file: LoginFile) -> None:
    file.write([LOGIN], now=NOW)
    file.path.chmod(mode)
    with pytest.raises(ConfigurationError, match="can be read by others") as caught:
        file.read()
    assert "nobody-may-see" not in str(caught.value)


def test_what_stands_in_its_place_is_neither_followed_nor_waited_for(file: LoginFile, tmp_path: Path) -> None:
    other = LoginFile(tmp_path / "other.json")
    other.write([LOGIN], now=NOW)
    file.path.symlink_to(other.path)
    with pytest.raises(ConfigurationError, match="cannot be read"):
        file.read()
    file.path.unlink()
    os.mkfifo(file.path, 0o600)
    with pytest.raises(ConfigurationError, match="not a regular file"):
        file.read()
    file.path.unlink()
    file.path.mkdir()
    with pytest.raises(ConfigurationError, match="not a regular file"):
        file.read()


def test_writing_over_a_link_leaves_what_it_led_to(file: LoginFile, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("mine")
    file.path.symlink_to(target)
    file.write([LOGIN], now=NOW)
    assert (target.read_text(), file.path.is_symlink(), file.read()) == ("mine", False, (LOGIN,))


def test_a_file_of_another_user_is_refused(file: LoginFile, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write([LOGIN], now=NOW)
    monkeypatch.setattr(os, "geteuid", lambda: file.path.stat().st_uid + 1)
    with pytest.raises(ConfigurationError, match="belongs to another user"):
        file.read()


def test_what_cannot_be_written_leaves_the_old_one(file: LoginFile, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write([LOGIN], now=NOW)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ConfigurationError, match="cannot be written: No space left"):
        file.write([], now=NOW)
    assert file.read() == (LOGIN,)
    assert [path.name for path in file.path.parent.iterdir()] == ["logins.json"]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b"\xff",
        b"[" * 10_000,
        b" " * ((4 << 20) + 1),
        {"v": 2, "logins": []},
        {"v": 1},
        {"v": 1, "logins": {}},
        {"v": 1, "logins": [], "more": 1},
        {"v": 1, "logins": [[]]},
        *(
            {"v": 1, "logins": [changed(**{name: value})]}
            for name, value in [
                ("issuer", 1),
                ("issuer", "http://idp.example"),
                ("client_id", ""),
                ("client_id", "a\x1b[2J"),
                ("resource", 1),
                ("resource", "x"),
                ("scope", None),
                ("expires", "1"),
                ("expires", True),
                ("access_token", ""),
                ("access_token", "a\nb"),
                ("refresh_token", ""),
                ("refresh_token", 1),
                ("more", 1),
            ]
        ),
        {"v": 1, "logins": [changed(), changed()]},
    ],
)
def test_a_damaged_file_is_told_and_not_shown(content: object, file: LoginFile) -> None:
    put(file, content)
    with pytest.raises(ConfigurationError, match="is damaged") as caught:
        file.read()
    assert "nobody-may-see" not in str(caught.value)
    assert caught.value.__context__ is None


def test_a_file_as_it_is_written_is_good(file: LoginFile) -> None:
    put(file, {"v": 1, "logins": [changed()]})
    assert len(file.read()) == 1


async def test_one_process_writes_at_a_time(file: LoginFile) -> None:
    entered, leave, second = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def first() -> None:
        async with file.locked():
            entered.set()
            await leave.wait()
            assert not second.is_set()

    async def later() -> None:
        async with LoginFile(file.path).locked():
            second.set()

    async with asyncio.TaskGroup() as group:
        group.create_task(first())
        await entered.wait()
        group.create_task(later())
        with pytest.raises(ConfigurationError, match=r"in use by another process for 0\.05 s"):
            async with file.locked(0.05):
                raise AssertionError
        leave.set()
    assert second.is_set()


async def test_a_lock_is_free_again_after_a_failure(file: LoginFile) -> None:
    with pytest.raises(TimeoutError):
        async with file.locked():
            raise TimeoutError
    async with file.locked(0):
        pass


async def test_what_stands_in_the_place_of_the_lock_is_refused(file: LoginFile, tmp_path: Path) -> None:
    lock = tmp_path / "logins.json.lock"
    lock.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigurationError, match="cannot be opened"):
        async with file.locked():
            raise AssertionError
    assert not (tmp_path / "elsewhere").exists()
    lock.unlink()
    os.mkfifo(lock, 0o600)
    with pytest.raises(ConfigurationError, match="not a regular file"):
        async with file.locked():
            raise AssertionError


async def test_its_folder_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    file = LoginFile(tmp_path / "state" / "sealbus" / "logins.json")
    async with file.locked():
        file.write([LOGIN], now=NOW)
    assert stat.S_IMODE(file.path.parent.stat().st_mode) == 0o700
    lock = file.path.with_name("logins.json.lock")
    assert stat.S_IMODE(lock.stat().st_mode) == 0o600
    with lock.open() as opened:
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)


@pytest.mark.parametrize(
    ("environment", "place"),
    [
        ({"XDG_STATE_HOME": "/var/state"}, Path("/var/state/sealbus/logins.json")),
        ({"XDG_STATE_HOME": "relative"}, Path.home() / ".local/state/sealbus/logins.json"),
        ({}, Path.home() / ".local/state/sealbus/logins.json"),
    ],
)
def test_where_it_stands(environment: dict[str, str], place: Path) -> None:
    assert default_file(environment) == place
