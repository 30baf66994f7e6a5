"""A desk that looks customers up at an API outside: its policy, and a site with an exit and a provider's users.

The policy is the starter's, with what it takes to be allowed that.
"""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import httpx2
from joserfc.jwk import ECKey
from pydantic import BaseModel
from support.issuer import TRUSTS_NOBODY, public_jwk
from support.oidc_provider import ES256_API, EXIT, OidcProvider
from support.pages import Page
from support.workload_api import short_folder

from sealbus import Agent, Context
from sealbus.agents.dev.environment import DevOptions, Environment, open_environment, starter_policy
from sealbus.agents.dev.settings_file import read_declared
from sealbus.agents.runtime.open import open_audit_trail, open_node
from sealbus.agents.runtime.settings.schema import IssuerTable
from sealbus.agents.runtime.worker import Worker
from sealbus.bus.audit.trail import AuditEntry
from sealbus.envelopes.records.decision import DecisionRecord
from sealbus.envelopes.records.work import OutcomeRecord

__all__ = [
    "DESK",
    "OPERATIONS",
    "PAGE",
    "SECONDS",
    "Customer",
    "Look",
    "Provider",
    "Site",
    "desk_policy",
    "key_file",
    "provided",
    "site",
    "written",
]

PAGE = Page("legacy.md")

OPERATIONS = ["GET /customers/{customer}", "POST /customers/{customer}/notes"]
SECONDS = 60.0

DESK = Agent("desk")


class Look(BaseModel):
    customer: str
    api: str = "crm"


class Customer(BaseModel):
    status: int
    text: str


@DESK.call("look")
async def look(body: Look, ctx: Context) -> Customer:
    """Look a customer up for the user of the message."""
    found = await ctx.http(body.api, timeout=20).get(f"/customers/{body.customer}")
    return Customer(status=found.status_code, text=found.text)


def desk_policy(folder: Path, *apis: str) -> Path:
    """Write the starter policy to `folder`, in which `alice` may see customer 42 through the desk and `apis`; return it."""
    shutil.copytree(starter_policy(), folder)
    registry = folder / "sealbus" / "registry"
    action = {"user": "required", "resource": "any", "limits": {}, "hours": False}
    _change(registry / "actions" / "data.json", {"desk.look": action, "desk.look.reply": {**action, "user": "none"}})
    desk: dict[str, bool] = {"desk.look.reply": True}
    answers: dict[str, bool] = {}
    for api in apis:
        _change(
            registry / "actions" / "data.json",
            {f"exit.{api}": {**action, "resource": "owned"}, f"exit.{api}.reply": {**action, "user": "none"}},
        )
        desk[f"exit.{api}"] = answers[f"exit.{api}.reply"] = True
    agents = json.loads((registry / "agents" / "data.json").read_text())
    for caller in ("edge", "agent/shop-web"):
        agents[f"spiffe://example.org/{caller}"]["actions"]["desk.look"] = True
    agents |= {
        "spiffe://example.org/agent/desk": {"actions": desk},
        "spiffe://example.org/agent/exit": {"actions": answers},
    }
    (registry / "agents" / "data.json").write_text(json.dumps(agents))
    _change(registry / "users" / "data.json", {"alice": {"customers": {"42": True}}})
    return folder


def _change(file: Path, more: dict[str, Any]) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | more))


@dataclass(frozen=True, kw_only=True)
class Site:
    """A development environment with a desk and an exit, whose edge takes tokens of a provider."""

    dev: Environment
    http: httpx2.AsyncClient

    async def look(self, customer: str, token: str, api: str = "crm") -> httpx2.Response:
        body = {"customer": customer, "api": api}
        return await self.http.post("/v1/calls/desk/look", json=body, headers={"Authorization": f"Bearer {token}"})

    async def decisions(self, action: str) -> list[DecisionRecord]:
        async with open_audit_trail("operator", self.dev.settings) as trail:
            return [
                entry.record
                async for entry in trail.entries()
                if isinstance(entry, AuditEntry)
                and isinstance(entry.record, DecisionRecord)
                and entry.record.action == action
            ]

    async def outcomes(self, action: str, count: int) -> list[str | None]:
        """Wait for `count` outcomes of an action, and return the code of each, None for one that was done."""
        codes: list[str | None] = []
        async with asyncio.timeout(SECONDS), open_audit_trail("operator", self.dev.settings) as trail:
            async for entry in trail.entries(follow=True):
                if isinstance(entry, AuditEntry) and isinstance(entry.record, OutcomeRecord):
                    codes += [entry.record.code] if entry.decision and entry.decision.action == action else []
                if len(codes) >= count:
                    break
        return codes


def written(path: Path, apis: Mapping[str, Mapping[str, Any]]) -> Path:
    """Write a settings file with these APIs, which are reached on loopback, to `path`, and return it."""
    lines = []
    for name, api in apis.items():
        said = {"networks": ["127.0.0.0/8"], **api}
        lines += [f"[egress.apis.{name}]", *(f"{key} = {json.dumps(value)}" for key, value in said.items())]
    path.write_text("\n".join(lines) + "\n")
    return path


def key_file(path: Path, content: str) -> Path:
    path.touch(mode=0o600)
    path.write_text(content)
    return path


class Provider(Protocol):
    """Who gives users their tokens."""

    issuer: str


@asynccontextmanager
async def site(
    folder: Path,
    provider: Provider,
    apis: Mapping[str, Mapping[str, Any]],
    *,
    users: IssuerTable | None = None,
    others: Sequence[IssuerTable] = (),
) -> AsyncIterator[Site]:
    """Open the site in `folder`; `users` is the edge's row for them, by default one for tokens of `ES256_API`.

    `others` are further rows.
    """
    exchanges = any(api["grant"] == "token_exchange" for api in apis.values())
    row = users or IssuerTable(issuer=provider.issuer, audiences=(ES256_API,), keep_tokens=exchanges)
    options = DevOptions(
        folder=folder / "dev",
        agents=("shop-web", "desk"),
        declared=read_declared(written(folder / "sealbus.toml", apis)),
        policy=desk_policy(folder / "policy", *apis),
        issuers=(row, *others),
        port=0,
        max_bytes=1 << 24,
    )
    stop = asyncio.Event()
    async with (
        open_environment(options) as dev,
        open_node("desk", dev.settings) as node,
        Worker(DESK, node) as worker,
        asyncio.TaskGroup() as group,
        httpx2.AsyncClient(
            base_url=dev.edge.front.resource, trust_env=False, verify=TRUSTS_NOBODY, timeout=SECONDS
        ) as http,
    ):
        group.create_task(worker.run(stop))
        await worker.ready.wait()
        yield Site(dev=dev, http=http)
        stop.set()


@asynccontextmanager
async def provided() -> AsyncIterator[tuple[OidcProvider, Path]]:
    """Start the provider, which believes what its client, the exit, says of users."""
    key = ECKey.generate_key("P-256", private=True)
    with short_folder() as folder:
        provider = OidcProvider({"k": ("ES256", key)})
        exit_key = provider.exit_key
        provider = OidcProvider({"k": ("ES256", key)}, trusted={EXIT: [public_jwk(exit_key, exit_key.thumbprint())]})
        provider.exit_key = exit_key
        async with provider:
            yield provider, folder
