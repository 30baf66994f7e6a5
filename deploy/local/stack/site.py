"""Where the stack stands: its folder, its ports, and what each of its processes finds in its environment."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from stack.ports import Ports
from stack.probes import http_well
from stack.program import Program
from stack.roster import EDGE, SHOP_GROUP, Workload
from stack.tools import CONFIGURATION

__all__ = ["SCHEMA", "SEALBUS", "STATE_KEY", "Site"]

SEALBUS: Final = str(Path(sys.executable).parent / "sealbus")
SCHEMA: Final = "inventory.json"
"""File of the edge's, with what the inventory takes and gives."""
STATE_KEY: Final = "mcp.key"
"""File of the edge's, with the key that seals what MCP clients bring back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """One stack in `folder`, which every user of the machine must be able to enter. Nothing is started here."""

    folder: Path
    ports: Ports
    workload_api: str = ""

    @property
    def logs(self) -> Path:
        """What each process writes to its standard error, a file each."""
        return self.folder / "logs"

    @property
    def policy(self) -> Path:
        """The policy as its team edits it: Rego and data."""
        return self.folder / "policy" / "rego"

    @property
    def signing_key(self) -> Path:
        """The private key of whoever owns the policy; the public one is beside it."""
        return self.folder / "policy" / "platform.pem"

    @property
    def public_key(self) -> Path:
        """The key by which every process believes a policy."""
        return self.folder / "policy" / "platform.pub"

    @property
    def database(self) -> Path:
        """The database that the example agents share."""
        return self.folder / "shop" / "shop.sqlite"

    @property
    def access(self) -> Path:
        """By which `sealbus token` gets tokens from the development identity provider."""
        return self.folder / "idp.json"

    @property
    def resource(self) -> str:
        """The edge's URL."""
        return f"http://127.0.0.1:{self.ports.edge}"

    @property
    def opa_url(self) -> str:
        """Where the central OPA is asked."""
        return f"https://localhost:{self.ports.opa}"

    @property
    def policy_url(self) -> str:
        """Where the policy server is asked by OPA."""
        return f"https://localhost:{self.ports.policy}"

    def home(self, workload: Workload) -> Path:
        """Return the folder of `workload`; that of root's is not an agent's, though they may have one name."""
        return self.folder / ("people" if not workload.uid else "") / workload.name

    def cache(self, workload: Workload) -> Path:
        """Return where `workload` keeps the policy that it took from the bus."""
        return self.home(workload) / "policy"

    def composed(self, workload: Workload) -> Path:
        """Return the bundle in force for `workload`, which its OPA watches."""
        return self.cache(workload) / workload.name / "composed" / "bundle.tar.gz"

    @property
    def log(self) -> Path:
        """The log that the notary keeps over the audit stream."""
        return self.folder / "notary" / "log"

    @property
    def log_key(self) -> Path:
        """The key by which verifiers believe the log's checkpoints, as root files hold it."""
        return self.folder / "notary.vkey"

    def svid(self, workload: Workload) -> Path:
        """Return the folder with the X.509-SVID of a server that reads files."""
        return self.home(workload) / "svid"

    def sidecar(self, workload: Workload) -> Path:
        """Return the socket of the OPA beside `workload`."""
        return self.home(workload) / "opa" / "opa.sock"

    def health(self, workload: Workload) -> int:
        """Return the port of the health server of `workload`, which must be one that has one."""
        port: int = getattr(self.ports, f"{workload.name}_health")
        return port

    def prepare(self) -> None:
        """Make the folders, each its owner's own."""
        self.folder.mkdir(mode=0o711, parents=True, exist_ok=True)
        self.folder.chmod(0o711)
        self.logs.mkdir(mode=0o700, exist_ok=True)
        self.policy.parent.mkdir(exist_ok=True)
        shop = self.database.parent
        shop.mkdir(exist_ok=True)
        self.database.touch()
        for path, mode in ((shop, 0o2770), (self.database, 0o660)):
            shutil.chown(path, group=SHOP_GROUP)
            path.chmod(mode)

    def own_folder(self, workload: Workload, *parts: str) -> Path:
        """Make a folder that only `workload` may enter, and return it."""
        path = self.home(workload)
        for part in ("", *parts):
            path = path / part
            path.mkdir(mode=0o700, exist_ok=True)
            shutil.chown(path, workload.uid, workload.gid)
        return path

    def environment(self, workload: Workload) -> dict[str, str]:
        """Return the variables of a `sealbus` process of `workload`: what differs from the settings that all share."""
        ports = self.ports
        common = {
            "SEALBUS_CONFIG": str(CONFIGURATION / "sealbus.toml"),
            "SPIFFE_ENDPOINT_SOCKET": self.workload_api,
            "SEALBUS_NATS": f"tls://localhost:{ports.nats}",
            "SEALBUS_POLICY__ENGINE": workload.engine,
            "SEALBUS_POLICY__BUNDLE": "nats://policies",
            "SEALBUS_POLICY__KEYS": str(self.public_key),
            "SEALBUS_POLICY__CACHE": str(self.cache(workload)),
            "SEALBUS_CLIENT__TOKEN_SERVICE": f"https://127.0.0.1:{ports.token_service}",
            "SEALBUS_DEV__ACCESS": str(self.access),
            "HOME": str(self.home(workload)),
        }
        engine = {
            "sidecar": {"SEALBUS_POLICY__OPA": f"unix:{self.sidecar(workload)}"},
            "central": {"SEALBUS_POLICY__OPA": self.opa_url},
        }.get(workload.engine, {})
        return common | engine

    def sealbus(
        self,
        workload: Workload,
        arguments: Sequence[str],
        *,
        environment: Mapping[str, str] | None = None,
        name: str = "",
    ) -> Program:
        """Return a `sealbus` process of `workload`, called `name` where it has several, well once it says so itself."""
        name = name or workload.name
        port: int = getattr(self.ports, f"{name}_health")
        return Program(
            [SEALBUS, *arguments, "--health", f"127.0.0.1:{port}"],
            name=f"sealbus-{name}",
            uid=workload.uid,
            gid=workload.gid,
            log=self.logs / f"{name}.log",
            healthy=http_well(port),
            environment={**self.environment(workload), **(environment or {})},
        )

    def edge_environment(self, issuer: str) -> dict[str, str]:
        """Return what the edge is told beside: where it listens, and whose tokens it takes."""
        return {
            "SEALBUS_EDGE__ADDRESS": f"127.0.0.1:{self.ports.edge}",
            "SEALBUS_EDGE__RESOURCE": self.resource,
            "SEALBUS_EDGE__TOKEN_SERVICE": f"127.0.0.1:{self.ports.token_service}",
            "SEALBUS_EDGE__SCHEMAS": json.dumps([str(self.home(EDGE) / SCHEMA)]),
            "SEALBUS_EDGE__MCP": json.dumps(
                {"actions": ["inventory.*"], "state_keys": [str(self.home(EDGE) / STATE_KEY)]}
            ),
            "SEALBUS_EDGE__A2A__AGENTS": "inventory",
            "SEALBUS_EDGE__ISSUERS": f'[{{"issuer": "{issuer}", "algorithms": ["ES256"]}}]',
        }
