"""A person is taken out: nobody can say whose pseudonym it was, nothing else changes, and the records still verify.

The server is a real nats-server with the permissions of each identity, the edge has the policy from a store, and `sealbus
forget`, `audit reveal` and `streams apply` are processes of their own.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest
from pydantic import BaseModel
from support.callout import policy_folder
from support.issuer import AUDIENCE, LoopbackIssuer
from support.policy_desk import key_file
from support.ports import held_port
from support.restored_site import sealbus

from sealbus import Agent, Context, Resource
from sealbus.agents.dev.environment import DevOptions, open_environment
from sealbus.agents.dev.settings_file import running_notary
from sealbus.agents.edge.edge import RunningEdge, open_edge
from sealbus.agents.edge.oauth.private_file import write_key
from sealbus.agents.edge.oauth.tokens.pseudonyms import PSEUDONYM_PREFIX, PseudonymKey
from sealbus.agents.runtime.open import open_audit_trail, open_connection, open_node
from sealbus.agents.runtime.policy.push import content_of, push_content
from sealbus.agents.runtime.policy.store import PolicyStore
from sealbus.agents.runtime.settings.settings import Settings, load_settings
from sealbus.agents.runtime.worker import Worker
from sealbus.bus.audit.trail import AuditEntry
from sealbus.bus.nats.transport import NatsTransport
from sealbus.bus.ports import Outgoing, PubAck
from sealbus.bus.stream_names import PEOPLE
from sealbus.envelopes.encoding.strict_json import Json
from sealbus.envelopes.records.decision import DecisionRecord
from sealbus.envelopes.records.operation import ChangeRecord
from sealbus.envelopes.trust.keys import key_id, public_pem

pytestmark = pytest.mark.nats

PERSON = "anna.lindqvist-4711"
ANYBODYS: Json = {"inventory.read": {"user": "required", "resource": "any", "limits": {}, "hours": False}}


class Read(BaseModel):
    item_id: str


class Stock(BaseModel):
    item_id: str


def stock() -> Agent:
    agent = Agent("inventory")

    async def item(body: Read) -> Resource:
        return Resource("item", body.item_id, customer="acme", region="always")

    @agent.call("read", resource=item)
    async def read(body: Read, ctx: Context) -> Stock:
        del ctx
        return Stock(item_id=body.item_id)

    return agent


@dataclass(kw_only=True)
class Site:
    """A running deployment in `folder`, whose settings are in `file`; `root` is the file of the key that signs its policy."""

    folder: Path
    file: Path
    root: Path
    settings: Settings
    issuer: LoopbackIssuer
    edge: RunningEdge
    http: httpx2.AsyncClient

    async def read(self, person: str = PERSON) -> httpx2.Response:
        fields = {"Authorization": f"Bearer {self.issuer.token(sub=person)}"}
        return await self.http.post("/v1/calls/inventory/read", json={"item_id": "42"}, headers=fields)

    async def command(self, *arguments: str | Path, code: int = 0) -> str:
        return await sealbus(*arguments, "--config", self.file, code=code)

    async def records(self) -> list[object]:
        async with open_audit_trail("operator", self.settings) as trail:
            return [one.record async for one in trail.entries() if isinstance(one, AuditEntry)]

    async def users(self) -> list[str]:
        """Return the users of all decisions about the agent, in order."""
        decided = [
            one for one in await self.records() if isinstance(one, DecisionRecord) and one.action == "inventory.read"
        ]
        return [json.loads(one.input or b"{}")["context"]["user"]["id"] for one in decided]

    def files_with(self, text: str, *folders: Path) -> list[Path]:
        """Return the files of the server, or in `folders`, that hold `text` anywhere."""
        found = (file for folder in folders or (self.folder / "dev" / "nats",) for file in folder.rglob("*"))
        return [file for file in found if file.is_file() and text.encode() in file.read_bytes()]


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    port, agent = held_port(), stock()
    options = DevOptions(folder=tmp_path / "dev", agents=("inventory",), port=-1, max_bytes=1 << 26, notary=True)
    async with AsyncExitStack() as stack:
        environment = await stack.enter_async_context(open_environment(options))
        issuer = await stack.enter_async_context(LoopbackIssuer())
        root_file, root = key_file(tmp_path / "platform.pem")
        (tmp_path / "platform.pub").write_text(public_pem(root.public))
        write_key(tmp_path / "pseudonyms.key")
        file = tmp_path / "sealbus.toml"
        file.write_text(settings_of(environment.settings_file.read_text(), tmp_path, port=port, issuer=issuer.issuer))
        settings = load_settings(file, environment={})
        await sealbus("streams", "apply", "--config", file)
        async with open_connection("operator", settings) as (_, connection):
            store = PolicyStore(connection, "policies")
            await store.create()
            content = content_of(policy_folder(tmp_path / "policy", actions=ANYBODYS))
            await push_content(store, {key_id(root.public): root.public}, "platform", content, root)
        node = await stack.enter_async_context(open_node(agent.name, settings))
        worker = await stack.enter_async_context(Worker(agent, node))
        group = await stack.enter_async_context(asyncio.TaskGroup())
        stop = asyncio.Event()
        stack.callback(stop.set)
        group.create_task(worker.run(stop))
        await worker.ready.wait()
        edge = await stack.enter_async_context(open_edge(settings))
        http = httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60, trust_env=False)
        await stack.enter_async_context(http)
        yield Site(
            folder=tmp_path, file=file, root=root_file, settings=settings, issuer=issuer, edge=edge, http=http,
        )  # fmt: skip


def settings_of(text: str, folder: Path, *, port: int, issuer: str) -> str:
    """Return the settings `text` of `sealbus dev` with a policy in the store, random pseudonyms and another edge."""
    added = {
        "[policy]": f"""bundle = "nats://policies"
cache = "{folder / "cache"}"
keys = ["{folder / "platform.pub"}"]""",
        "[streams]": 'max_bytes.people = "1MiB"',
        "[edge]": f"""pseudonyms = "random"
actions = ["inventory.read"]
pseudonym_key = "{folder / "pseudonyms.key"}\"""",
    }
    replaced = {
        "address = ": f'address = "127.0.0.1:{port}"',
        "resource = ": f'resource = "{AUDIENCE}"',
        "token_service = ": "",
    }
    lines, table = [], ""
    for line in text.splitlines():
        table = line if line.startswith("[") else table
        if "edge.issuers" in table or line.startswith(("bundle = ", "actions = ")):
            continue
        name = next((name for name in replaced if line.startswith(name)), "") if table == "[edge]" else ""
        lines += [replaced.get(name, line)] + ([added[line]] if line in added else [])
    return "\n".join([*lines, "[[edge.issuers]]", f'issuer = "{issuer}"', f'audiences = ["{AUDIENCE}"]\n'])


async def test_a_person_is_taken_out(site: Site) -> None:
    assert (await site.read()).status_code == 200
    assert (await site.read("somebody.else")).status_code == 200
    person, other = await site.users()
    assert person.startswith(PSEUDONYM_PREFIX)
    row = PseudonymKey.read(site.folder / "pseudonyms.key").row(site.issuer.issuer, PERSON)
    assert site.files_with(row)
    assert PERSON not in await site.command("audit", "reveal", person, "--user", "nobody", code=1)
    assert PERSON in await site.command("audit", "reveal", person, "--user", PERSON)

    said = await site.command("forget", "--user", PERSON, "--key", site.root, "--reason", "request 17", "--json")
    assert json.loads(said) == {"pseudonym": person, "serial": 2, "row": "deleted"}

    # The edge still remembers the row, and the policy denies its pseudonym as soon as it is in force.
    async with asyncio.timeout(60):
        while (answer := await site.read()).status_code == 200:
            pass
    assert (answer.status_code, answer.json()["code"]) == (403, "denied")
    assert (await site.read("somebody.else")).status_code == 200
    # Nobody can say who it was, and no byte leads there: not with the key and the right candidate.
    await site.command("audit", "reveal", person, "--user", PERSON, code=1)
    assert (site.files_with(row), site.files_with(PERSON)) == ([], [])
    again = await site.command("forget", "--user", PERSON, "--key", site.root, code=1)
    assert "has a pseudonym here" in again
    assert PERSON not in again
    # The records name the pseudonym, and verify.
    changes = [one for one in await site.records() if isinstance(one, ChangeRecord) and one.action == "forget"]
    assert [(one.target, one.reason) for one in changes] == [(f"user {person}", "request 17")]
    assert set(await site.users()) == {person, other}
    async with running_notary(site.settings):
        export = site.folder / "export"
        await site.command("audit", "export", export)
        assert await site.command("audit", "verify", "--live") == "verified\n"
    await site.command("backup", site.folder / "backup", "--log", site.folder / "dev" / "log")
    kept = [export, site.folder / "backup", site.folder / "dev"]
    assert (site.files_with(PERSON, *kept), site.files_with(row, *kept)) == ([], [])


async def test_a_row_that_comes_back_from_a_backup_is_deleted_by_its_pseudonym(site: Site) -> None:
    assert (await site.read()).status_code == 200
    [person] = await site.users()
    async with open_connection("operator", site.settings) as (_, connection):
        transport = NatsTransport(connection)
        row = PseudonymKey.read(site.folder / "pseudonyms.key").row(site.issuer.issuer, PERSON)
        stored = await transport.last(PEOPLE, row, within=5.0)
        assert stored is not None
        await site.command("forget", "--user", PERSON, "--key", site.root)
        assert await transport.last(PEOPLE, row, within=5.0) is None
        # As a restored stream has it again.
        [again] = await site.edge.node.transport.publish([Outgoing(subject=row, payload=stored.payload)], deadline=5.0)
        assert isinstance(again, PubAck)
        assert PERSON in await site.command("audit", "reveal", person, "--user", PERSON)
        said = await site.command("forget", person, "--key", site.root, "--json")
        assert json.loads(said) == {"pseudonym": person, "serial": 3, "row": "deleted"}
        assert await transport.last(PEOPLE, row, within=5.0) is None
        said = await site.command("forget", person, "--key", site.root, "--json")
        assert json.loads(said) == {"pseudonym": person, "serial": 4, "row": "absent"}
    assert site.files_with(row) == []
