"""Every configuration of nats-server that is shipped syncs before it acknowledges (docs/durability.md)."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

DEPLOY = Path(__file__).parents[2] / "deploy"

JETSTREAM = re.compile(r"^\s*jetstream \{(?P<block>[^}]*)\}", re.MULTILINE)


SHIPPED = (
    "kubernetes/nats/rendered-three.yaml",
    "kubernetes/nats/rendered.yaml",
    "local/nats/nats.conf",
    "local/nats/server.conf",
    "regions/nats/home.conf",
    "regions/nats/region.conf",
)


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_server_syncs_before_it_acknowledges(name: str) -> None:
    blocks = [found["block"] for found in JETSTREAM.finditer((DEPLOY / name).read_text())]
    assert blocks
    for block in blocks:
        assert re.search(r"\bsync_interval: always\b", re.sub(r"#.*", "", block))


def test_no_shipped_server_is_left_out() -> None:
    """A new configuration with a store has to be looked at here, too."""
    found = {
        path.relative_to(DEPLOY).as_posix()
        for path in DEPLOY.rglob("*")
        if path.suffix in (".conf", ".yaml", ".json") and JETSTREAM.search(path.read_text(errors="replace"))
    }
    assert found == set(SHIPPED)
