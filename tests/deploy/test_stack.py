"""What starts the real components, where they do not start; that they run is in tests/integration."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from stack import program as program_module
from stack.nats_server import static_users
from stack.program import Program, output_of
from stack.run_as import as_user
from stack.spire_entry import Entry
from stack.tools import find_tool

from sealbus.envelopes.errors import ConfigurationError
from sealbus.envelopes.trust.spiffe_id import SpiffeId, TrustDomain

HOST = SpiffeId("spiffe://example.org/host")
AGENT = SpiffeId("spiffe://example.org/agent/a")


def script(folder: Path, text: str, *, ready: str = "ready", environment: Mapping[str, str] | None = None) -> Program:
    """Return a shell script as a program that is healthy once it has said `ready`."""

    async def healthy() -> bool:
        return ready in made.said

    made = Program(["/bin/sh", "-c", text], log=folder / "log", healthy=healthy, environment=environment or {})
    return made


async def test_a_program_is_started_when_it_is_healthy_and_stopped_for_certain(tmp_path: Path) -> None:
    program = script(tmp_path, "sleep 0.2; echo ready >&2; exec sleep 600")
    await program.start()
    pid = program.pid
    assert program.said == ("ready",)
    with pytest.raises(ConfigurationError, match="runs already"):
        await program.start()
    await program.stop()
    assert program.pid == 0
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    await program.stop()


async def test_a_program_that_was_killed_can_be_started_again(tmp_path: Path) -> None:
    program = script(tmp_path, "echo ready >&2; exec sleep 600")
    for _ in range(2):
        await program.start()
        waiting = asyncio.create_task(program.wait())
        await asyncio.sleep(0)
        await program.kill9()
        assert await waiting == -signal.SIGKILL


async def test_a_program_that_ends_at_once_says_why(tmp_path: Path) -> None:
    program = script(tmp_path, "echo first >&2; echo the port is in use >&2; echo >&2; exit 3")
    with pytest.raises(ConfigurationError, match=r"sh ended at once \(3\): the port is in use; see "):
        await program.start()
    assert program.pid == 0


async def test_a_program_that_never_gets_healthy_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program_module, "READY_SECONDS", 0.3)
    program = script(tmp_path, "echo $$ >&2; exec sleep 600")
    with pytest.raises(ConfigurationError, match=r"is not healthy in 0\.3 s"):
        await program.start()
    with pytest.raises(ProcessLookupError):
        os.kill(int(program.said[0]), 0)


async def test_a_program_gets_its_own_environment_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEALBUS_TEST_SECRET", "ours")
    program = script(
        tmp_path, "echo ${SEALBUS_TEST_SECRET:-none} $OWN >&2; exec sleep 600", ready="none given",
        environment={"OWN": "given"},
    )  # fmt: skip
    await program.start()
    await program.stop()


async def test_a_command_that_fails_says_its_last_line() -> None:
    assert await output_of(["/bin/cat"], stdin=b"in") == b"in"
    with pytest.raises(ConfigurationError, match=r"^configuration: sh -c echo.*: no such entry$"):
        await output_of(["/bin/sh", "-c", "echo usage >&2; echo no such entry >&2; exit 1"])
    with pytest.raises(ConfigurationError, match="exit code 7"):
        await output_of(["/bin/sh", "-c", "exit 7"])
    with pytest.raises(ConfigurationError, match=r"no answer in 0\.2 s"):
        await output_of(["/bin/sleep", "600"], within=0.2)


def test_a_tool_that_is_missing_names_the_make_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigurationError, match="there is no spire-moon: `make tools` builds it"):
        find_tool("spire-moon")
    monkeypatch.setenv("SEALBUS_TOOLS", str(tmp_path))
    (tmp_path / "spire-moon").write_text("#!/bin/sh\n")
    (tmp_path / "spire-moon").chmod(0o755)
    assert find_tool("spire-moon") == tmp_path / "spire-moon"


def test_an_entry_is_what_spire_is_told() -> None:
    entry = Entry(
        spiffe_id=AGENT, uid=1001, x509_ttl=60, jwt_ttl=30, dns=("a", "b"), federates_with=(TrustDomain("partner.org"),)
    )
    assert entry.arguments(HOST) == [
        *("-parentID", str(HOST), "-spiffeID", str(AGENT), "-selector", "unix:uid:1001"),
        *("-x509SVIDTTL", "60", "-jwtSVIDTTL", "30", "-dns", "a", "-dns", "b"),
        *("-federatesWith", "spiffe://partner.org"),
    ]


@pytest.mark.parametrize(("uid", "x509_ttl", "jwt_ttl"), [(-1, 60, 60), (0, 0, 60), (0, 60, 0)])
def test_an_entry_without_a_user_or_a_life_cannot_be(uid: int, x509_ttl: int, jwt_ttl: int) -> None:
    with pytest.raises(ValueError, match="are needed"):
        Entry(spiffe_id=AGENT, uid=uid, x509_ttl=x509_ttl, jwt_ttl=jwt_ttl)


def test_another_user_needs_setpriv(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert as_user(None) == ()
    if sys.platform == "linux":
        assert "--reuid=1001" in as_user(1001)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigurationError, match="no setpriv"):
        as_user(1001)


def test_nobody_may_connect_unless_listed() -> None:
    assert '"users": []' in static_users({})
