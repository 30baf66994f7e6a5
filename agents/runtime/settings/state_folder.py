"""The state folder of a development environment: its name, and the lock that shows that one is running.

The kernel releases the lock however its holders end.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Final

from sealbus.envelopes.errors import ConfigurationError

__all__ = ["DEV_LOCK", "STARTER_AGENTS", "STATE_FOLDER", "is_locked", "lock_folder"]

STATE_FOLDER: Final = ".sealbus"
"""The one folder that `sealbus dev` writes to."""

DEV_LOCK: Final = "dev"
"""Name of the lock in it that a running `sealbus dev` holds: what it wrote there is valid while it does."""

STARTER_AGENTS: Final = ("shop-web", "planner", "inventory", "pricing", "payments")
"""The agents that the starter policy knows."""


def lock_folder(folder: Path, name: str) -> int:
    """Lock `folder` by its file `<name>.lock` and return the open file descriptor that holds the lock.

    A process that inherits the descriptor holds the lock too, so a child that outlives its parent still keeps others away.
    Raises `ConfigurationError` if another process holds it, and names that process by `<name>.pid` if it left one.
    """
    path = folder / f"{name}.lock"
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be opened: {error.strerror}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise ConfigurationError(
            f"{folder} is in use{_by(folder / f'{name}.pid')}: stop that one, or choose another state folder"
        ) from error
    return descriptor


def is_locked(folder: Path, name: str) -> bool:
    """Return whether a living process holds the lock of `lock_folder`: the kernel keeps none of a dead one.

    It takes the lock for a moment, shared, so that several may ask at once.
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


def _by(path: Path) -> str:
    try:
        return f" by process {int(path.read_text())}"
    except (OSError, ValueError):
        return " by another process"
