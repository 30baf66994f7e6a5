"""Commands about policies against a real server that runs while one of them does; its store lasts over all of them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from support.lab import running
from support.teams import PLATFORM_FOLDER, owner, team_policy

from sealbus.agents.cli.options import Invocation
from sealbus.agents.cli.policy import deny
from sealbus.agents.cli.policy import push as policy_push
from sealbus.agents.cli.policy import status as policy_status
from sealbus.agents.cli.policy.push import Act
from sealbus.agents.runtime.policy.store import PolicyStore
from sealbus.envelopes.trust.keys import PublicKey, SigningKey, key_id

__all__ = ["Desk", "key_file"]


def key_file(path: Path) -> tuple[Path, SigningKey]:
    """Write a new private key."""
    private = ec.generate_private_key(ec.SECP256R1())
    path.write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return path, SigningKey(private)


class Desk:
    """An operator's desk: `root` and `stock` are keys of the platform and of a team."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.acts: list[Act] = []
        """What was to be recorded, in order."""
        self.root, root = key_file(folder / "root.pem")
        self.stock, stock = key_file(folder / "stock.pem")
        self.anchors: Mapping[str, PublicKey] = {key_id(root.public): root.public}
        self.platform = folder / "platform"
        self.team = folder / "team"
        self._platform(stock)
        self.write_team()
        for name, value in (
            ("TRUST_DOMAIN", "example.org"),
            ("NATS", "tls://nats:4222"),
            ("POLICY__ENGINE", "sidecar"),
        ):
            monkeypatch.setenv(f"SEALBUS_{name}", value)
        for module in (policy_push, policy_status, deny):
            monkeypatch.setattr(module, "open_store", self.open_store)

    @asynccontextmanager
    async def open_store(
        self, invocation: Invocation | None = None, act: Act | None = None
    ) -> AsyncIterator[tuple[PolicyStore, Mapping[str, PublicKey]]]:
        assert invocation is None or invocation.as_name == "operator"
        if act is not None:
            self.acts.append(act)
        async with running(self.folder / "nats", "a") as lab, lab.connection("a") as connection:
            yield PolicyStore(connection, "policies"), self.anchors

    def _platform(self, stock: SigningKey) -> None:
        for file in PLATFORM_FOLDER.rglob("*"):
            if file.is_file():
                copy = self.platform / file.relative_to(PLATFORM_FOLDER)
                copy.parent.mkdir(parents=True, exist_ok=True)
                copy.write_bytes(file.read_bytes())
        owners = self.platform / "sealbus" / "platform" / "owners" / "data.json"
        owners.write_text(json.dumps({"stock": owner(stock, ["inventory"])}), encoding="utf-8")

    def write_team(self, policy: str = "") -> None:
        self.team.mkdir(exist_ok=True)
        (self.team / ".manifest").write_text('{"roots": ["sealbus/teams/stock"]}', encoding="utf-8")
        (self.team / "policy.rego").write_text(policy or team_policy("stock"), encoding="utf-8")

    def run(self, command: click.Command, *arguments: str | Path) -> Result:
        return CliRunner().invoke(command, [str(one) for one in arguments])

    def json(self, command: click.Command, *arguments: str | Path) -> list[dict[str, Any]]:
        result = self.run(command, *arguments, "--json")
        assert result.exit_code == 0, (result.output, result.exception)
        return [json.loads(line) for line in result.stdout.splitlines()]

    def push_both(self) -> None:
        self.json(policy_push.push, self.platform, "--key", self.root)
        self.json(policy_push.push, self.team, "--name", "stock", "--key", self.stock)
