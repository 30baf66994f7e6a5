"""What a running stack leaves for the commands that come after it: where it stands, and which processes decide."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Self

from sealbus.agents.files import PRIVATE, replace_file
from sealbus.envelopes.errors import ConfigurationError
from stack.ports import Ports
from stack.site import Site

__all__ = ["State"]

_FILE = "stack.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """A running stack: `pid` is the process that started all the others, `opas` those that decide, by name."""

    site: Site
    pid: int
    opas: Mapping[str, int] = field(default_factory=dict)

    def write(self) -> None:
        """Put it into the stack's folder, for its owner only."""
        document = {
            "pid": self.pid,
            "opas": dict(self.opas),
            "ports": asdict(self.site.ports),
            "workload_api": self.site.workload_api,
        }
        replace_file(self.site.folder / _FILE, json.dumps(document, indent=1).encode(), mode=PRIVATE)

    def remove(self) -> None:
        """Say that nothing runs any more."""
        (self.site.folder / _FILE).unlink(missing_ok=True)

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Return what runs in `folder`; raise `ConfigurationError` if nothing does."""
        try:
            document = json.loads((folder / _FILE).read_bytes())
        except FileNotFoundError as error:
            raise ConfigurationError(f"no stack runs in {folder}: `make stack` starts one") from error
        site = Site(folder=folder, ports=Ports(**document["ports"]), workload_api=document["workload_api"])
        return cls(site=site, pid=document["pid"], opas=document["opas"])
