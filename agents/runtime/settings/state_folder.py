"""The state folder of a development environment: its name, and the lock of a running environment.

The kernel releases the lock when its holders end, in any way.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Final

from sealbus.agents.files import file_errors
from sealbus.envelopes.errors import ConfigurationError

STATE_FOLDER: Final = ".sealbus"
"""The one folder that `sealbus dev` writes to."""

DEV_LOCK: Final = "dev"
"""Name of the lock that a running `sealbus dev` holds in it: the files that it wrote there are valid meanwhile."""

STARTER_AGENTS: Final = ("shop-web", "planner", "inventory", "pricing", "payments")
"""The agents that the starter policy knows."""


def lock_folder(folder: Path, name: str) -> int:
    """Lock `folder` by its file `<name>.lock` and return the open file descriptor that holds the lock.

    A process that inherits the descriptor holds the lock too, so a child that outlives its parent still excludes others.
    Raises `ConfigurationError` if another process holds it; the text names that process if there is a `<name>.pid`.
    """
    path = folder / f"{name}.lock"
    with file_errors(f"{path} cannot be opened"):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise ConfigurationError(
            f"{folder} is in use{_holder(folder / f'{name}.pid')}: stop that one, or choose another state folder"
        ) from error
    return descriptor


def is_locked(folder: Path, name: str) -> bool:
    """Return whether a running process holds the lock of `lock_folder`.

    This takes the lock for a moment, shared, so that several processes may call it at once.
    """
    try:
        descriptor = os.open(folder / f"{name}.lock", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


def _holder(path: Path) -> str:
    try:
        return f" by process {int(path.read_text())}"
    except (OSError, ValueError):
        return " by another process"
