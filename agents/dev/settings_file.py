"""The settings of `sealbus dev`: those that it reads from ./sealbus.toml, and the file that it writes for other terminals.

Names, own subjects, users and settings of work apply, addresses and paths do not. The written file also describes the log of
the development notary, in the state folder, with a key made at the first start.
"""

from __future__ import annotations

import asyncio
import json
import tomllib
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Final

from sealbus.agents.control.control import Role
from sealbus.agents.control.notary.keys import load_signers, make_key_file
from sealbus.agents.control.notary.notary import Notary
from sealbus.agents.control.notary.role import open_notary
from sealbus.agents.dev.idp.registry import DEMO_USERS, DemoUser, merged_users
from sealbus.agents.dev.users import EDGE_PATH
from sealbus.agents.edge.egress.exit import open_exit
from sealbus.agents.files import PRIVATE, replace_file
from sealbus.agents.runtime.settings.schema import ClientTable, IssuerTable
from sealbus.agents.runtime.settings.settings import Settings, load_settings
from sealbus.agents.runtime.settings.source import Flag, Key, dotted, file_entries
from sealbus.bus.background import Background
from sealbus.bus.telemetry import Counters
from sealbus.envelopes.message.subjects import OwnSubject
from sealbus.envelopes.trust.names import Names
from sealbus.envelopes.trust.spiffe_id import SpiffeId, TrustDomain

DEFAULT_TRUST_DOMAIN = "example.org"
_TEMPLATE = "/agent/{name}"

_READ: Final = frozenset({"trust_domain", "agents", "subjects"})
_KEPT: Final = frozenset({"audit", "chain", "context", "egress", "identity", "limits", "streams", "worker"})
"""Tables that apply unchanged: they are about work, or about addresses outside the environment."""
_OF_PROJECT: Final = frozenset({("dev", "agents"), ("dev", "policy"), ("dev", "users"), ("client", "name")})
"""Keys that are about the project itself."""
_MCP: Final = ("edge", "mcp")
_DOORS: Final = frozenset({_MCP, ("edge", "a2a")})
_SHOWN: Final = frozenset({("edge", "schemas"), ("edge", "cors")})
"""Keys that apply unchanged in a table about addresses: clients of the edge, such as pages and tools, need them."""
_OURS: Final = frozenset(
    {("context", "minters"), ("streams", "replicas"), ("trust", "notaries"), (*_MCP, "state_keys")}
)
"""Keys that the development environment sets: its edge mints, it has one server, and at most its own notary."""

NOTARY = "notary"
"""The workload name of its notary."""
CONSOLE = "console"
"""The workload name of its console (`sealbus.agents.console.agent`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Declared:
    """The declarations of a project. `agents` are all names in it, including owners of own subjects."""

    trust_domain: str = DEFAULT_TRUST_DOMAIN
    template: str = _TEMPLATE
    table: Mapping[str, SpiffeId] = field(default_factory=lambda: MappingProxyType({}))
    agents: tuple[str, ...] = ()
    own: tuple[OwnSubject, ...] = ()
    users: tuple[DemoUser, ...] = DEMO_USERS
    kept: Mapping[Key, object] = field(default_factory=lambda: MappingProxyType({}))
    """Settings that apply unchanged."""
    max_bytes: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    """Most bytes of each stream in `kept`, by its name."""
    unused: tuple[str, ...] = ()
    """Tables or keys in the file that do not apply here."""

    run: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """The agents to run, by name, as MODULE:AGENT."""
    policy: Path | None = None
    """The folder of their policy."""
    client: str = ClientTable().name
    """The workload as which commands in other terminals send."""

    exit: str = ""
    """The name of the exit, if there are APIs outside."""
    mcp: bool = False
    """Whether the edge has an MCP server."""
    exchanges: bool = False
    """Whether the exit exchanges users' tokens for some of them."""

    def names(self) -> Names:
        """Return the declared names and SPIFFE IDs; `edge` has the usual SPIFFE ID unless the project lists another."""
        domain = TrustDomain(self.trust_domain)
        return Names(domain, self.template, {"edge": domain.id(EDGE_PATH), **self.table})


def read_declared(path: Path) -> Declared:
    """Return the declarations in the settings file `path`; none if there is no such file.

    Raises `ConfigurationError`, one line, for a file that is invalid as settings.
    """
    if not path.exists():
        return Declared()
    entries = file_entries(path)
    named = entries.get(("trust_domain",))
    settings = load_settings(
        path,
        environment={},
        # The environment sets these itself. A file may leave them out, and their values do not matter here.
        flags=[
            Flag(option="sealbus dev", key="nats", value=["tls://127.0.0.1:4222"]),
            Flag(option="sealbus dev", key="policy.engine", value="embedded"),
            Flag(option="sealbus dev", key="trust_domain", value=None if named else DEFAULT_TRUST_DOMAIN),
        ],
    )
    names = settings.names
    listed = [key[1] for key in entries if key[0] == "agents" and key[1] != "template"]
    owners = [name for subject in settings.own_subjects if (name := names.name_of(subject.owner)) is not None]
    sender = [settings.client.name] if ("client", "name") in entries else []
    template = entries.get(("agents", "template"))
    # Read again unparsed: a user without claims is an empty table, which the settings' keys do not represent.
    users = tomllib.loads(path.read_text(encoding="utf-8")).get("dev", {}).get("users", {})
    return Declared(
        trust_domain=settings.trust_domain.name,
        template=str(template.value) if template is not None else _TEMPLATE,
        table=MappingProxyType({name: names.id_of(name) for name in listed}),
        agents=tuple(dict.fromkeys((*listed, *owners, *settings.dev.agents, *sender))),
        own=settings.own_subjects,
        users=merged_users(users),
        kept=MappingProxyType({key: entry.value for key, entry in entries.items() if _is_kept(key)}),
        max_bytes=settings.max_bytes,
        run=MappingProxyType(dict(settings.dev.agents)),
        policy=settings.dev.policy,
        client=settings.client.name,
        exit=settings.egress.agent if settings.egress.apis else "",
        mcp=settings.edge.mcp is not None,
        exchanges=any(api.grant == "token_exchange" for api in settings.egress.apis.values()),
        unused=tuple(dict.fromkeys(dotted(key if key in _OURS else key[:1]) for key in entries if not _is_used(key))),
    )


def _is_kept(key: Key) -> bool:
    return key in _SHOWN or ((key[0] in _KEPT or key[:2] in _DOORS) and key not in _OURS)


def _is_used(key: Key) -> bool:
    return key[0] in _READ or key[:2] in _OF_PROJECT or _is_kept(key)


@dataclass(frozen=True, slots=True)
class DevLog:
    """The paths of the log and its key, and its origin."""

    origin: str
    key: Path
    folder: Path

    @classmethod
    def prepared(cls, state: Path, trust_domain: TrustDomain) -> DevLog:
        """Return the log in the state folder; make its key if there is none."""
        made = cls(origin=f"{trust_domain.name}/development/audit", key=state / "log.key", folder=state / "log")
        if not made.key.exists():
            make_key_file(made.key, made.origin)
        return made

    @property
    def verifier(self) -> str:
        """The log's verifier key, as root files hold it."""
        (signer,) = load_signers([self.key], self.origin)
        return signer.verifier.text


@dataclass(frozen=True, slots=True, kw_only=True)
class DevSettings:
    """The settings that `sealbus dev` writes: what the project declares, and where the parts of the environment are.

    `nats` and `workload_api` are URLs; `edge_address`, `token_service` and `console` are HOST:PORT. `opa` is the socket of
    OPA, `bundle` the policy in force, `policy` the folder that it is built from.
    """

    declared: Declared
    issuer: str
    issuers: Sequence[IssuerTable] = ()
    access: Path
    nats: str
    server_id: SpiffeId
    workload_api: str
    engine: str
    bundle: Path
    opa: str = ""
    edge_address: str
    token_service: str
    actions: Sequence[str]
    max_bytes: int
    policy: Path
    token_key: Path | None = None
    state_key: Path | None = None
    log: DevLog | None = None
    console: str = ""
    development: bool = False

    def write(self, path: Path) -> None:
        """Write `path` by rename, mode 0600."""
        replace_file(path, ("\n".join(self._lines()) + "\n").encode(), mode=PRIVATE)

    def _lines(self) -> list[str]:
        declared = self.declared
        # All claims of the declared users: the edge passes on only listed claims, here too.
        claims = {claim: claim for claim in sorted({claim for user in declared.users for claim in user.claims})}
        own_issuer = IssuerTable(
            issuer=self.issuer, algorithms=("ES256",), claims=claims, keep_tokens=self.token_key is not None
        )
        return [
            "# Written by `sealbus dev`, and gone when it stops.",
            f"trust_domain = {_text(declared.trust_domain)}",
            f"nats = [{_text(self.nats)}]",
            f"nats_ids = [{_text(self.server_id.value)}]",
            f"workload_api = {_text(self.workload_api)}",
            *(["development = true"] if self.development else []),
            "[policy]",
            f"engine = {_text(self.engine)}",
            f"bundle = {_text(str(self.bundle))}",
            *([f"opa = {_text(self.opa)}"] if self.opa else []),
            "[agents]",
            f"template = {_text(declared.template)}",
            *(
                f"{_text(name)} = {_text(spiffe_id.value)}"
                for name, spiffe_id in {"edge": declared.names().id_of("edge"), **declared.table}.items()
            ),
            *_tables(self._values()),
            *(line for subject in declared.own for line in _own_subject(subject)),
            *(line for issuer in (own_issuer, *self.issuers) for line in _issuer(issuer)),
            *(_notary(self.log) if self.log is not None else []),
            "[client]",
            f"name = {_text(declared.client)}",
            f"token_service = {_text(f'https://{self.token_service}')}",
            f"issuer = {_text(self.issuer)}",
            'client_id = "sealbus-cli"',
            "[dev]",
            f"issuer = {_text(self.issuer)}",
            f"access = {_text(str(self.access))}",
            f"policy = {_text(str(self.policy))}",
        ]

    def _values(self) -> dict[Key, object]:
        """Return the settings that are written by key, among them the declared ones that apply unchanged."""
        names = self.declared.names()
        return {
            ("context", "minters"): [names.id_of("edge").value],
            **({("trust", "notaries"): [names.id_of(NOTARY).value]} if self.log is not None else {}),
            ("streams", "max_bytes", "tasks"): self.max_bytes,
            ("streams", "max_bytes", "audit"): self.max_bytes,
            ("edge", "address"): self.edge_address,
            ("edge", "resource"): f"http://{self.edge_address}",
            ("edge", "token_service"): self.token_service,
            ("edge", "actions"): list(self.actions),
            **({("console", "address"): self.console} if self.console else {}),
            **({("edge", "token_key"): str(self.token_key)} if self.token_key is not None else {}),
            **self.declared.kept,
            **({(*_MCP, "state_keys"): [str(self.state_key)]} if self.state_key is not None else {}),
        }


def _text(value: object) -> str:
    # Of these values JSON strings are TOML basic strings. No JSON escapes for non-ASCII characters: TOML has no surrogates.
    return json.dumps(value, ensure_ascii=False)


def _tables(values: Mapping[Key, object]) -> list[str]:
    lines = []
    for table in dict.fromkeys(key[0] for key in values):
        lines.append(f"[{table}]")
        lines += [f"{dotted(key[1:])} = {_text(value)}" for key, value in values.items() if key[0] == table]
    return lines


def _issuer(row: IssuerTable) -> list[str]:
    values = row.model_dump(mode="json", exclude_defaults=True, exclude={"claims"})
    return [
        "[[edge.issuers]]",
        *(f"{name} = {_text(value)}" for name, value in values.items()),
        "[edge.issuers.claims]",
        *(f"{_text(name)} = {_text(value)}" for name, value in row.claims.items()),
    ]


def _notary(log: DevLog) -> list[str]:
    return [
        "[control.notary]",
        f"origin = {_text(log.origin)}",
        f"keys = [{_text(str(log.key))}]",
        f"folder = {_text(str(log.folder))}",
        # There is no other notary. After a restart with new keys it waits only for its former self.
        "lease = 2",
    ]


def _own_subject(subject: OwnSubject) -> list[str]:
    return [
        f"[subjects.{_text(subject.subject)}]",
        f"kind = {_text(str(subject.kind))}",
        f"owner = {_text(subject.owner.value)}",
        f"action = {_text(subject.action)}",
    ]


@asynccontextmanager
async def running_exit(settings: Settings) -> AsyncGenerator[None, None]:
    """Run the exit of `settings` while entered."""
    stop = asyncio.Event()
    async with open_exit(settings, recorded=False) as worker, Background() as group:
        group.create_task(worker.run(stop), name="exit")
        await worker.ready.wait()
        try:
            yield
        finally:
            stop.set()


@asynccontextmanager
async def running_notary(settings: Settings) -> AsyncGenerator[Notary, None]:
    """Run the notary of `settings` while entered."""
    async with open_notary(settings, name=NOTARY) as notary, _running(notary):
        yield notary


@asynccontextmanager
async def running_console(settings: Settings) -> AsyncGenerator[None, None]:
    """Run the console of `settings` while entered, once its agent takes calls: it asks itself whether a person may look."""
    from sealbus.agents.console.console import open_console

    async with open_console(settings, counters=Counters(), recorded=False) as console, _running(console):
        await console.ready.wait()
        yield


@asynccontextmanager
async def _running(role: Role) -> AsyncGenerator[None, None]:
    async with asyncio.TaskGroup() as group:
        running = group.create_task(role.run())
        try:
            yield
        finally:
            running.cancel()
