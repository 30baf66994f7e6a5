from __future__ import annotations

import asyncio
import stat
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from sealbus.agents.console import console as console_module
from sealbus.agents.dev.idp.registry import DEMO_CLIENTS, merged_users
from sealbus.agents.dev.settings_file import Declared, DevLog, DevSettings, read_declared, running_console
from sealbus.agents.runtime.settings.schema import IssuerTable
from sealbus.agents.runtime.settings.settings import Settings, load_settings
from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.trust.spiffe_id import SpiffeId

PROJECT = """
trust_domain = "shop.example"
[agents]
template = "/ns/shop/{name}"
billing = "spiffe://shop.example/ns/money/billing"
[subjects."orders.created"]
kind = "event"
owner = "orders"
[subjects."mail.send"]
kind = "task"
owner = "billing"
action = "mail.post"
"""


def written(
    folder: Path, declared: Declared, issuers: Sequence[IssuerTable] = (), log: DevLog | None = None
) -> Settings:
    path = folder / "dev.toml"
    DevSettings(
        declared=declared,
        issuer="http://127.0.0.1:5/development-only",
        issuers=issuers,
        access=folder / "idp.json",
        nats="tls://127.0.0.1:4222",
        server_id=SpiffeId(f"spiffe://{declared.trust_domain}/nats"),
        workload_api=f"unix://{folder}/{{name}}.sock",
        engine="embedded",
        bundle=folder / "bundle.tar.gz",
        edge_address="127.0.0.1:8080",
        token_service="127.0.0.1:8444",
        actions=("inventory.*", "pricing.*"),
        max_bytes=1_000,
        policy=folder / "policy",
        log=log,
    ).write(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    return load_settings(path, environment={})


def test_what_is_written_is_read_as_settings(tmp_path: Path) -> None:
    # A folder may have any name; TOML has no escapes for surrogates, JSON does.
    folder = tmp_path / 'é "quoted" \\ 😀'
    folder.mkdir()
    settings = written(folder, Declared())
    assert settings.policy.file == folder / "bundle.tar.gz"
    assert settings.dev.access == folder / "idp.json"
    assert settings.dev.issuer == settings.client.issuer == "http://127.0.0.1:5/development-only"
    assert settings.client.client_id in {client.client_id for client in DEMO_CLIENTS}
    assert settings.minters == {SpiffeId("spiffe://example.org/edge")}
    assert settings.names.id_of("edge") == SpiffeId("spiffe://example.org/edge")
    assert settings.max_bytes == {"TASKS": 1_000, "AUDIT": 1_000}
    assert list(folder.iterdir()) == [folder / "dev.toml"]


def test_only_a_notary_that_runs_here_vouches_for_past_keys(tmp_path: Path) -> None:
    log = DevLog(origin="log.example.org/dev", key=tmp_path / "key", folder=tmp_path / "log")
    assert written(tmp_path, Declared(), log=log).notaries == {SpiffeId("spiffe://example.org/agent/notary")}
    assert written(tmp_path, Declared()).notaries == frozenset()


KEPT = """
trust_domain = "shop.example"
nats = ["tls://production:4222"]
[policy]
engine = "sidecar"
[worker]
concurrency = 3
drain = 1.5
[audit]
within = 2
bodies = ["task.mail.>"]
spool = "records"
[audit.redact]
"task.mail.>" = ["/action/properties/text"]
[streams]
replicas = 3
[streams.max_bytes]
tasks = "1MiB"
events = 5_000
[context]
minters = ["spiffe://shop.example/production/edge"]
start = 60
[trust]
notaries = ["spiffe://shop.example/production/notary"]
[chain]
after = 0
[limits]
pending_calls = 5
[identity]
within = 7
[edge]
address = "0.0.0.0:8443"
schemas = ["inventory.json"]
cors = ["http://localhost:3000"]
"""


def test_how_work_is_done_holds_as_the_project_says_and_places_do_not(tmp_path: Path) -> None:
    (tmp_path / "sealbus.toml").write_text(KEPT)
    declared = read_declared(tmp_path / "sealbus.toml")
    (tmp_path / "state").mkdir()
    settings = written(tmp_path / "state", declared)
    assert (settings.worker.concurrency, settings.worker.drain) == (3, 1.5)
    assert (settings.limits.pending_calls, settings.identity_within) == (5, 7)
    assert (settings.audit.within, settings.audit.bodies) == (2, ("task.mail.>",))
    assert settings.audit.redact == {"task.mail.>": ("/action/properties/text",)}
    assert settings.audit.spool == tmp_path / "records"
    assert (
        settings.max_bytes
        == {"TASKS": 1 << 20, "AUDIT": 1_000, "EVENTS": 5_000}
        == {
            "AUDIT": 1_000,
            **declared.max_bytes,
        }
    )
    assert settings.streams.replicas == 1
    assert settings.minters == {SpiffeId("spiffe://shop.example/edge")}
    assert (settings.lifetimes.context_start, settings.lifetimes.chain_after) == (60 * SECOND, 0)
    assert settings.edge.schemas == (tmp_path / "inventory.json",)
    assert settings.edge.cors == ("http://localhost:3000",)
    assert (settings.edge.address, settings.nats) == ("127.0.0.1:8080", ("tls://127.0.0.1:4222",))
    assert settings.notaries == frozenset()
    assert declared.unused == ("nats", "policy", "streams.replicas", "context.minters", "trust.notaries", "edge")


def test_names_and_own_subjects_of_the_project_are_those_of_the_environment(tmp_path: Path) -> None:
    (tmp_path / "sealbus.toml").write_text(PROJECT)
    declared = read_declared(tmp_path / "sealbus.toml")
    settings = written(tmp_path, declared)
    assert settings.own_subjects == declared.own
    for name in ("orders", "billing", "edge"):
        assert settings.names.id_of(name) == declared.names().id_of(name)


def test_the_edge_takes_tokens_of_the_development_issuer_only(tmp_path: Path) -> None:
    users = merged_users({"dora": {"groups": ["a"]}})
    settings = written(tmp_path, Declared(users=users))
    edge = settings.edge
    assert (edge.address, edge.resource) == ("127.0.0.1:8080", "http://127.0.0.1:8080")
    assert edge.token_service == "127.0.0.1:8444"
    assert settings.client.token_service == "https://127.0.0.1:8444"
    assert edge.actions == ("inventory.*", "pricing.*")
    (issuer,) = edge.issuers
    assert (issuer.issuer, issuer.algorithms, issuer.audiences) == (settings.dev.issuer, ("ES256",), None)
    assert issuer.claims == {name: name for name in ("department", "groups", "name", "region")}


def test_other_issuers_are_written_as_they_are(tmp_path: Path) -> None:
    row = IssuerTable(
        issuer="https://idp.partner.example",
        audiences=("https://api.example",),
        claims={"a.claim": "region"},
        bound=True,
        client_key=tmp_path / "client.pem",
    )
    partner = IssuerTable.model_validate({"issuer": "https://other.example", "domain": "other.example"})
    settings = written(tmp_path, Declared(), [row, partner])
    first, *others = settings.edge.issuers
    assert first.issuer == settings.dev.issuer
    assert others == [row, partner]


def test_an_edge_of_the_projects_own_name_is_kept(tmp_path: Path) -> None:
    (tmp_path / "sealbus.toml").write_text('[agents]\nedge = "spiffe://example.org/front/door"\n')
    settings = written(tmp_path, read_declared(tmp_path / "sealbus.toml"))
    assert settings.minters == {SpiffeId("spiffe://example.org/front/door")}


def test_a_project_says_which_agents_run_by_which_policy_and_who_sends(tmp_path: Path) -> None:
    (tmp_path / "sealbus.toml").write_text(
        '[client]\nname = "web"\n[dev]\npolicy = "rules"\n[dev.agents]\nnotes = "notes.agent:agent"\n'
    )
    declared = read_declared(tmp_path / "sealbus.toml")
    assert dict(declared.run) == {"notes": "notes.agent:agent"}
    assert declared.policy == tmp_path / "rules"
    assert (declared.client, declared.agents, declared.unused) == ("web", ("notes", "web"), ())
    assert written(tmp_path, declared).client.name == "web"
    assert (Declared().client, written(tmp_path, Declared()).client.name) == ("shop-web", "shop-web")


class _Console:
    """A console whose agent takes calls once `subscribed` is set."""

    problem = ""

    def __init__(self) -> None:
        self.began, self.subscribed, self.ready = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def run(self) -> None:
        self.began.set()
        await self.subscribed.wait()
        self.ready.set()
        await asyncio.Event().wait()


async def test_a_console_is_there_once_its_agent_takes_calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    console = _Console()

    @asynccontextmanager
    async def opened(settings: Settings, **options: object) -> AsyncGenerator[_Console, None]:
        yield console

    monkeypatch.setattr(console_module, "open_console", opened)
    settings = written(tmp_path, Declared())
    async with AsyncExitStack() as stack:
        entering = asyncio.ensure_future(stack.enter_async_context(running_console(settings)))
        await console.began.wait()
        for _ in range(10):
            await asyncio.sleep(0)
        assert not entering.done()
        console.subscribed.set()
        await entering
