"""The nats-servers of two regions: the home region has the streams, the other joins it by leaf nodes and mirrors AUDIT.

Both are JetStream domains of their own, so that either goes on without the other. The files are in `deploy/regions/nats`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from sealbus.agents.dev.nats.accounts import AGENTS, STREAMS, SYSTEM, accounts
from sealbus.agents.dev.nats.config import Permissions
from sealbus.bus.stream_names import AUDIT
from sealbus.envelopes.trust.spiffe_id import SpiffeId
from stack.nats_server import access, listed
from stack.tools import CONFIGURATION

__all__ = ["DELIVER", "MIRROR", "HomePart", "RegionPart", "home_users", "region_users"]

MIRROR: Final = "APP_MIRROR"
"""The account of the home region by which another region copies AUDIT, and nothing else."""
DELIVER: Final = "mirror"
"""The subject under which what is copied crosses, as in the setting `streams.mirror.deliver`."""

_FOLDER: Final = CONFIGURATION.parent / "regions" / "nats"


@dataclass(frozen=True, slots=True, kw_only=True)
class HomePart:
    """What makes a server one of the home region: where leaf nodes join, and the SPIFFE IDs by which they do.

    `region_id` is for agents and edges, `mirror_id` for the mirror of AUDIT.
    """

    domain: str
    leaf_port: int
    region_id: SpiffeId
    mirror_id: SpiffeId
    arguments: Sequence[str] = ()

    @property
    def configuration(self) -> Path:
        """The file `home.conf`."""
        return _FOLDER / "home.conf"

    def variables(self) -> dict[str, str]:
        """Return the variables of `home.conf`."""
        return {
            "NATS_DOMAIN": json.dumps(self.domain),
            "NATS_LEAF_LISTEN": json.dumps(f"127.0.0.1:{self.leaf_port}"),
            "NATS_REGION_ID": json.dumps(str(self.region_id)),
            "NATS_MIRROR_ID": json.dumps(str(self.mirror_id)),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class RegionPart:
    """What makes a server one of the other region: the ports at which it joins `home`, and its second SVID for the mirror.

    `host` is a DNS name of the home servers' SVIDs.
    """

    domain: str
    home: str
    home_ports: tuple[int, ...]
    mirror_svid: Path
    host: str = "localhost"
    arguments: Sequence[str] = ()

    @property
    def configuration(self) -> Path:
        """The file `region.conf`."""
        return _FOLDER / "region.conf"

    def variables(self) -> dict[str, str]:
        """Return the variables of `region.conf`."""
        return {
            "NATS_DOMAIN": json.dumps(self.domain),
            "NATS_HOME_DOMAIN": json.dumps(self.home),
            "NATS_HOME": json.dumps([f"tls://{self.host}:{port}" for port in self.home_ports]),
            "NATS_MIRROR_SVID": json.dumps(str(self.mirror_svid / "svid.pem")),
            "NATS_MIRROR_SVID_KEY": json.dumps(str(self.mirror_svid / "svid.key")),
        }


def home_users(
    users: Mapping[SpiffeId, Permissions], *, with_streams: Mapping[SpiffeId, Permissions], mirrored: str = AUDIT
) -> str:
    """Return the accounts of the home region, with exactly these users, and the account by which `mirrored` is copied."""
    document: dict[str, Any] = accounts(with_streams=listed(with_streams), others=listed(users))
    # What a server asks for and answers that fills a mirror (seen with nats-server 2.15.1), and when the stream was created.
    services = [
        f"$JS.API.STREAM.INFO.{mirrored}",
        f"$JS.API.CONSUMER.CREATE.{mirrored}",
        f"$JS.API.CONSUMER.CREATE.{mirrored}.>",
        f"$JS.FC.{mirrored}.>",
    ]
    copied = f"{DELIVER}.>"
    document[STREAMS]["exports"] += [
        *({"service": subject, "accounts": [MIRROR]} for subject in services),
        {"stream": copied, "accounts": [MIRROR]},
    ]
    document[MIRROR] = {
        "imports": [
            *({"service": {"account": STREAMS, "subject": subject}} for subject in services),
            {"stream": {"account": STREAMS, "subject": copied}},
        ]
    }
    return access(document)


def region_users(
    users: Mapping[SpiffeId, Permissions], *, with_streams: Mapping[SpiffeId, Permissions], home: str
) -> str:
    """Return the accounts of the other region, with exactly these users, whose JetStream is that of the domain `home`.

    `with_streams` are those who see the mirror. Nothing crosses between the two accounts here.
    """
    asked = {spiffe_id: _of_domain(permissions, home) for spiffe_id, permissions in users.items()}
    return access(
        {
            STREAMS: {"jetstream": "enabled", "users": listed(with_streams)},
            AGENTS: {"users": listed(asked)},
            SYSTEM: {},
        }
    )


def _of_domain(permissions: Permissions, domain: str) -> Permissions:
    """Return `permissions` with the JetStream API of `domain`: the server puts its name in before it looks at them."""
    publish = (subject.replace("$JS.API.", f"$JS.{domain}.API.") for subject in permissions.publish)
    return replace(permissions, publish=tuple(publish))
