"""Where the programs are that `make tools` builds."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from sealbus.envelopes.errors import ConfigurationError

__all__ = ["CONFIGURATION", "find_tool"]

CONFIGURATION = Path(__file__).parent.parent
"""The folder `deploy/local`."""

_BUILT = CONFIGURATION.parents[1] / ".tools" / "bin"


def find_tool(name: str) -> Path:
    """Return the program `name`: the one in the folder SEALBUS_TOOLS, else that of `make tools`, else one on PATH.

    Raises `ConfigurationError` if there is none.
    """
    folder = os.environ.get("SEALBUS_TOOLS")
    for place in (Path(folder) if folder else _BUILT, _BUILT):
        if os.access(place / name, os.X_OK):
            return place / name
    found = shutil.which(name)
    if found is None:
        raise ConfigurationError(f"there is no {name}: `make tools` builds it")
    return Path(found).absolute()
