"""The NATS server of the stack, with the configuration that stands in `deploy/local/nats`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from sealbus.agents.dev.nats.server import find_nats_server
from stack.probes import listens
from stack.program import Program
from stack.roster import NATS
from stack.site import Site
from stack.tools import CONFIGURATION

__all__ = ["nats_server", "pid_file"]


def pid_file(site: Site) -> Path:
    """Return where the server notes its process ID, for whoever reloads it."""
    return site.home(NATS) / "nats.pid"


def nats_server(site: Site, keys: Mapping[str, str]) -> Program:
    """Return the server, whose SVID is kept in `site.svid(NATS)`; `keys` are the public ones of the auth callout."""
    svid = site.svid(NATS)
    environment = {
        "NATS_LISTEN": f"127.0.0.1:{site.ports.nats}",
        "NATS_NAME": "stack",
        "NATS_STORE": str(site.own_folder(NATS, "jetstream")),
        "NATS_CERT": str(svid / "svid.pem"),
        "NATS_KEY": str(svid / "svid.key"),
        "NATS_BUNDLE": str(svid / "bundle.pem"),
    }
    command = [str(find_nats_server()), "-c", str(CONFIGURATION / "nats" / "nats.conf"), "-P", str(pid_file(site))]
    return Program(
        command,
        name="nats-server",
        uid=NATS.uid,
        log=site.logs / "nats.log",
        healthy=listens(site.ports.nats),
        environment={**environment, **keys},
    )
