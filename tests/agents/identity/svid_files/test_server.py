from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sealbus.agents.identity.svid_files import server as server_process
from sealbus.agents.identity.svid_files.server import NotRunning, ServerProcess
from sealbus.envelopes.errors import ConfigurationError

LISTENS = """
import signal, sys
signal.signal(signal.SIGHUP, lambda *_: print("reloaded", flush=True))
print("ready", flush=True)
while True:
    signal.pause()
"""
IGNORES = "import time; print('ready', flush=True); time.sleep(600)"


@contextmanager
def running(script: str) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        try:
            yield process
        finally:
            process.kill()


def test_a_server_that_listens_is_told_to_reload(tmp_path: Path) -> None:
    with running(LISTENS) as process:
        (tmp_path / "pid").write_text(f"{process.pid}\n")
        ServerProcess(tmp_path / "pid").check()
        ServerProcess(tmp_path / "pid").reload()
        assert process.stdout is not None
        assert process.stdout.readline() == "reloaded\n"


@pytest.mark.skipif(sys.platform != "linux", reason="what a process listens to is seen on Linux only")
def test_a_process_that_the_signal_would_end_is_left_alone(tmp_path: Path) -> None:
    """Such as one that got the number of a server that has ended."""
    with running(IGNORES) as process:
        (tmp_path / "pid").write_text(str(process.pid))
        with pytest.raises(ConfigurationError, match="does not listen to SIGHUP"):
            ServerProcess(tmp_path / "pid").check()
        with pytest.raises(ConfigurationError, match="does not listen to SIGHUP"):
            ServerProcess(tmp_path / "pid").reload()
        assert process.poll() is None


def test_the_file_is_read_anew_each_time(tmp_path: Path) -> None:
    server = ServerProcess(tmp_path / "pid")
    with pytest.raises(NotRunning, match="there is no"):
        server.reload()
    (tmp_path / "pid").write_text("")
    with pytest.raises(NotRunning, match="empty"):
        server.reload()
    with running(LISTENS) as process:
        (tmp_path / "pid").write_text(str(process.pid))
        server.reload()
    for ask in (server.check, server.reload):
        with pytest.raises(NotRunning, match="has ended"):
            ask()


@pytest.mark.parametrize("text", ["0", "-1", "-42", "1 2", "0x10", "٤٢", "12345678901", "nats", "1.5", "x" * 10_000])
def test_what_is_no_process_id_is_never_signaled(tmp_path: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """0 would be our own group, -1 everybody."""

    def kill(pid: int, number: int) -> None:
        raise AssertionError(f"{number} to {pid}")

    monkeypatch.setattr(os, "kill", kill)
    (tmp_path / "pid").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigurationError, match="does not hold a process ID"):
        ServerProcess(tmp_path / "pid").reload()


def test_another_users_process_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def kill(pid: int, number: int) -> None:
        assert number == signal.SIGHUP
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "kill", kill)
    monkeypatch.setattr(server_process, "_check_caught", lambda _: None)
    (tmp_path / "pid").write_text("4242")
    with pytest.raises(ConfigurationError, match="another user's"):
        ServerProcess(tmp_path / "pid").reload()


def test_a_pid_file_that_is_none_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read"):
        ServerProcess(tmp_path).reload()
