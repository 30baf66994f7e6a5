from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from sealbus.agents.runtime.settings.state_folder import is_locked, lock_folder
from sealbus.envelopes.errors import ConfigurationError


def test_a_folder_is_locked_once_at_a_time(tmp_path: Path) -> None:
    held = lock_folder(tmp_path, "nats")
    with pytest.raises(ConfigurationError, match=f"{tmp_path} is in use by another process: stop that one, or choose"):
        lock_folder(tmp_path, "nats")
    (tmp_path / "nats.pid").write_text("4711\n")
    with pytest.raises(ConfigurationError, match="in use by process 4711"):
        lock_folder(tmp_path, "nats")
    os.close(lock_folder(tmp_path, "other"))
    os.close(held)
    os.close(lock_folder(tmp_path, "nats"))


def test_whoever_inherits_the_lock_holds_it(tmp_path: Path) -> None:
    held = lock_folder(tmp_path, "nats")
    with subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE, pass_fds=[held]) as heir:
        os.close(held)
        with pytest.raises(ConfigurationError, match="in use"):
            lock_folder(tmp_path, "nats")
        assert heir.stdin is not None
        heir.stdin.close()
    os.close(lock_folder(tmp_path, "nats"))


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"nats.lock cannot be opened: No such file or directory"):
        lock_folder(tmp_path / "missing", "nats")


def test_one_can_ask_whether_a_folder_is_locked(tmp_path: Path) -> None:
    assert not is_locked(tmp_path / "missing", "nats")
    assert not is_locked(tmp_path, "nats")
    held = lock_folder(tmp_path, "nats")
    assert is_locked(tmp_path, "nats")
    assert not is_locked(tmp_path, "other")
    os.close(held)
    # Whoever holds it no longer is not asked for by the file that they left.
    assert (tmp_path / "nats.lock").exists()
    assert not is_locked(tmp_path, "nats")
    # And asking leaves nothing behind that would keep the next one away.
    os.close(lock_folder(tmp_path, "nats"))


def test_the_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    held = lock_folder(tmp_path, "nats")
    with subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE, pass_fds=[held]) as heir:
        os.close(held)
        assert is_locked(tmp_path, "nats")
        heir.kill()
        heir.wait()
        assert not is_locked(tmp_path, "nats")
