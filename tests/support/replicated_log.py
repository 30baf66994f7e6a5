"""Three nats-servers with three replicas of each stream, an agent that works, and a notary: to be damaged one at a time."""

from __future__ import annotations

import asyncio
import json
import shutil
import struct
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from ledger.servers import Layout, Server, Servers, open_servers
from ledger.site import make_streams, settings_text
from pydantic import BaseModel
from support.workload_api import short_folder

from sealbus import Agent, Client, Context
from sealbus.agents.backup.files import log_end
from sealbus.agents.control.notary.keys import load_signers, make_key_file
from sealbus.agents.dev.nats.config import BrokerRole, BrokerUser, permissions_of
from sealbus.agents.dev.settings_file import running_notary
from sealbus.agents.dev.workload_api.authority import DevelopmentAuthority
from sealbus.agents.dev.workload_api.server import EmbeddedWorkloadApi
from sealbus.agents.evidence.export import Written, export_log, log_files
from sealbus.agents.evidence.files import FolderFiles
from sealbus.agents.evidence.trust_root import make_root
from sealbus.agents.evidence.verify import Verification, verify_export
from sealbus.agents.runtime.open import open_connection, open_node
from sealbus.agents.runtime.settings.settings import Settings, load_settings
from sealbus.agents.runtime.worker import Worker
from sealbus.bus.nats import reader
from sealbus.bus.nats.api import api, make_reader
from sealbus.bus.nats.transport import NatsTransport
from sealbus.bus.ports import JsonObject, Request, StreamRefused
from sealbus.bus.stream_names import AUDIT, TASKS
from sealbus.envelopes.errors import BusUnavailable
from sealbus.envelopes.export.format import CHECKPOINT
from sealbus.envelopes.export.trust_root import Root
from sealbus.envelopes.records.work import OutcomeRecord
from sealbus.envelopes.trust.names import Names
from sealbus.envelopes.trust.spiffe_id import TrustDomain
from sealbus.policies.bundle.files import build_bundle, write_bundle

__all__ = ["Record", "ReplicatedLog", "Work", "records_of", "replicated_log"]

DOMAIN = TrustDomain("example.org")
NAMES = Names(DOMAIN)
ROLES = {
    "inventory": BrokerRole.AGENT,
    "shop": BrokerRole.AGENT,
    "notary": BrokerRole.NOTARY,
    "operator": BrokerRole.OPERATOR,
}
ORIGIN = "log.example.org/audit"
NO_MESSAGE = 10_037
"""JetStream: no message found."""
DAY = 86_400
WITHIN = 90.0
"""Seconds within which servers have a leader again and replicas are current, on a busy machine."""
POLICY = """package sealbus.authz

decision := decide(input)

batch := [decide(request) | some request in input.batch]

decide(_) := {"allow": true, "reasons": [], "obligations": [], "policy": "p"}
"""
NOTARY_SETTINGS = """[control.notary]
origin = "{origin}"
keys = ["{folder}/log.key"]
folder = "{folder}/log"
lease = 2
"""


class Work(BaseModel):
    """The body of a task."""

    number: int


@dataclass(frozen=True)
class Record:
    """One stored message as nats-server's filestore writes it, and where its parts begin in the file.

    Length with a bit for headers (4 bytes), sequence (8), time (8), length of the subject (2), subject, length of the
    headers (4), headers, body, checksum (8); all little-endian. The checksum is not over the three lengths.
    """

    sequence: int
    start: int
    headers_length: int
    headers: int
    body: int
    end: int


def records_of(block: bytes) -> list[Record]:
    """Return the records of a message block that is whole, all of which have headers."""
    found, start = list[Record](), 0
    while start < len(block):
        length, sequence, _, subject = struct.unpack_from("<IQqH", block, start)
        assert length & 1 << 31, "a record without headers"
        at = start + 22 + subject
        [headers] = struct.unpack_from("<I", block, at)
        end = start + (length & ~(1 << 31))
        found.append(Record(sequence, start, at, at + 4, at + 4 + headers, end))
        start = end
    return found


@dataclass
class ReplicatedLog:
    """The servers, the settings of all who connect, and the notary's log."""

    folder: Path
    servers: Servers
    settings: Settings
    reads_from: str = ""
    """The name of the server whose replica answers readers of AUDIT; any of them if empty."""

    @property
    def log(self) -> Path:
        """The folder of the notary."""
        return self.folder / "log"

    def block(self, server: Server, stream: str = AUDIT) -> Path:
        """Return the message block of a stream in a server's store; there is one."""
        [found] = self.store(server).rglob(f"streams/{stream}/msgs/*.blk")
        return found

    def store(self, server: Server) -> Path:
        return self.folder / "store" / server.name

    async def ask(self, what: str, content: JsonObject | None = None) -> JsonObject:
        """Ask the JetStream API until it is answered: the servers elect their leaders first."""
        async with asyncio.timeout(WITHIN):
            while True:
                try:
                    async with open_connection("operator", self.settings) as (_, connection):
                        return await api(connection.jetstream, what, content or {})
                except BusUnavailable:
                    await asyncio.sleep(0.2)

    async def last(self, stream: str = AUDIT) -> int:
        """Return the last sequence of a stream."""
        state = (await self.ask(f"STREAM.INFO.{stream}"))["state"]
        assert isinstance(state, dict)
        return int(state["last_seq"])

    async def elected(self, stream: str = AUDIT) -> str:
        """Wait until a stream has a leader and all its replicas say that they are current; return the leader's name."""
        async with asyncio.timeout(WITHIN):
            while True:
                cluster = (await self.ask(f"STREAM.INFO.{stream}")).get("cluster")
                assert isinstance(cluster, dict)
                replicas = cluster.get("replicas", ())
                if cluster.get("leader") and len(replicas) == 2 and all(one["current"] for one in replicas):
                    return str(cluster["leader"])
                await asyncio.sleep(0.2)

    async def lead(self, server: Server, stream: str = AUDIT) -> None:
        """Have a server lead a stream."""
        async with asyncio.timeout(WITHIN):
            while await self.elected(stream) != server.name:
                with suppress(StreamRefused):
                    await self.ask(f"STREAM.LEADER.STEPDOWN.{stream}", {"placement": {"preferred": server.name}})
                await asyncio.sleep(0.2)

    async def deliver_from(self, server: Server) -> None:
        """Have a server deliver the tasks, from its own replica."""
        async with asyncio.timeout(WITHIN):
            while True:
                # A server that has just started may not know yet who leads.
                cluster = (await self.ask(f"CONSUMER.INFO.{TASKS}.inventory")).get("cluster")
                if isinstance(cluster, dict) and cluster.get("leader") == server.name:
                    return
                with suppress(StreamRefused):
                    preferred: JsonObject = {"placement": {"preferred": server.name}}
                    await self.ask(f"CONSUMER.LEADER.STEPDOWN.{TASKS}.inventory", preferred)
                await asyncio.sleep(0.2)

    async def passed(self, sequence: int) -> None:
        """Wait until all tasks up to one are acknowledged, or are never delivered."""
        async with asyncio.timeout(WITHIN):
            while True:
                floor = (await self.ask(f"CONSUMER.INFO.{TASKS}.inventory"))["ack_floor"]
                assert isinstance(floor, dict)
                if floor["stream_seq"] >= sequence:
                    return
                await asyncio.sleep(0.1)

    async def record(self, count: int) -> None:
        """Have an agent record something so many times, without a task; each is a message that was acknowledged."""
        async with open_node("shop", self.settings) as node, asyncio.timeout(WITHIN):
            while count:
                tried, lost = asyncio.Event(), asyncio.Event()
                outcome = OutcomeRecord.of(decision=count.to_bytes(32, "big"), code=None, micros=1, delivery=1, sent=())
                await node.audit.note(outcome, tried.set, lost=lost.set)
                await tried.wait()
                count -= not lost.is_set()

    async def is_there(self, sequence: int, stream: str = AUDIT) -> bool:
        """Return whether the leader of a stream has a message of this number."""
        async with open_connection("operator", self.settings) as (_, connection):
            try:
                await api(connection.jetstream, f"STREAM.MSG.GET.{stream}", {"seq": sequence})
            except StreamRefused as error:
                if error.err_code != NO_MESSAGE:
                    raise
                return False
            return True

    @asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        """Run the worker that does the tasks."""
        agent = Agent("inventory")

        @agent.task("update", once=True)
        async def update(body: Work, ctx: Context) -> int:
            return body.number

        stop = asyncio.Event()
        async with (
            asyncio.TaskGroup() as group,
            open_node("inventory", self.settings) as node,
            Worker(agent, node) as worker,
        ):
            running = group.create_task(worker.run(stop))
            await worker.ready.wait()
            yield
            stop.set()
            await asyncio.wait([running])

    async def work(self, count: int) -> None:
        """Have tasks done: two messages of AUDIT each, or more."""
        async with self.working(), Client("shop", settings=self.settings) as client:
            for number in range(count):
                await (await client.submit("inventory.update", Work(number=number))).result()

    async def recorded(self) -> int:
        """Return the last sequence that an agent has recorded: for its own records alone the notary signs no checkpoint."""
        found = 0
        async with open_connection("operator", self.settings) as (_, connection):
            for agent in ("inventory", "shop"):
                with suppress(StreamRefused):
                    wanted: JsonObject = {"last_by_subj": f"audit.{agent}"}
                    message = (await api(connection.jetstream, f"STREAM.MSG.GET.{AUDIT}", wanted))["message"]
                    assert isinstance(message, dict)
                    found = max(found, message["seq"])
        return found

    async def logged(self) -> None:
        """Wait until the log covers what agents have recorded."""
        sequence = await self.recorded()
        assert sequence
        async with asyncio.timeout(WITHIN):
            while not (self.log / CHECKPOINT).exists() or log_end(self.log) < sequence:  # noqa: ASYNC110  files
                await asyncio.sleep(0.05)

    async def work_logged(self, count: int) -> int:
        """Have tasks done, with a notary; return the last sequence that the log covers."""
        async with running_notary(self.settings):
            await self.work(count)
            await self.logged()
        return log_end(self.log)

    def root(self) -> Root:
        """Return the trust root that the deployment's own settings give."""
        keys = [one.verifier.text for one in load_signers([self.folder / "log.key"], ORIGIN)]
        return make_root(self.settings, keys=keys, folder=None)

    async def verify(self, server: Server) -> tuple[Verification, Written]:
        """Verify the log with the messages that one server's replica has, as `sealbus audit verify --live` does."""
        self.reads_from = server.name
        try:
            return await self._verify()
        finally:
            self.reads_from = ""

    async def _verify(self) -> tuple[Verification, Written]:
        async with asyncio.timeout(WITHIN):
            while True:
                with tempfile.TemporaryDirectory(prefix="sb-") as temporary, suppress(BusUnavailable):
                    return await self._verify_in(Path(temporary) / "export", self.root())

    async def _verify_in(self, folder: Path, root: Root) -> tuple[Verification, Written]:
        async with open_connection("operator", self.settings) as (_, connection):
            written = await export_log(folder, get=log_files(self.log), transport=NatsTransport(connection), root=root)
        return await asyncio.to_thread(lambda: verify_export(FolderFiles(folder), root, processes=1)), written

    async def rebuild(self, server: Server) -> None:
        """Empty a server's store and start the server: it gets everything from the others."""
        await server.stop()
        shutil.rmtree(self.store(server))
        await server.start()

    async def make_reader(self, request: Request, stream: str, *arguments: Any, **options: Any) -> int:
        """Create a reader's consumer as `sealbus.bus.nats.api` does, again until the server that is wanted has it.

        A reader's consumer is in the memory of one server, which takes the messages from its own replica. The cluster
        chooses it at random.
        """
        async with asyncio.timeout(WITHIN):
            while True:
                answers: list[bytes] = []

                async def watched(subject: str, payload: bytes, answers: list[bytes] = answers) -> bytes:
                    answers.append(await request(subject, payload))
                    return answers[-1]

                count = await make_reader(watched, stream, *arguments, **options)
                if stream != AUDIT or self.reads_from in ("", json.loads(answers[-1])["cluster"]["leader"]):
                    return count
                await api(request, f"CONSUMER.DELETE.{stream}.{arguments[0]}", {})
                await asyncio.sleep(0.02)


@asynccontextmanager
async def replicated_log(patch: pytest.MonkeyPatch) -> AsyncIterator[ReplicatedLog]:
    """Start the servers and make the streams."""
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(short_folder())
        (folder / "policy").mkdir()
        (folder / "policy" / "authz.rego").write_text(POLICY)
        write_bundle(build_bundle(folder / "policy"), folder / "bundle.tar.gz")
        authority = DevelopmentAuthority(DOMAIN)
        workloads = EmbeddedWorkloadApi(folder / "api", authority, x509_ttl=DAY, jwt_ttl=3_600)
        await stack.enter_async_context(workloads)
        users = []
        for name, role in ROLES.items():
            address = await workloads.add_identity(NAMES.id_of(name))
            link = folder / "api" / f"{name}.sock"
            link.unlink(missing_ok=True)
            link.symlink_to(Path(address.removeprefix("unix://")).name)
            rights = permissions_of(role, NAMES.id_of(name), NAMES)
            users.append(BrokerUser(spiffe_id=NAMES.id_of(name), permissions=rights, with_streams=role.with_streams))
        servers = await stack.enter_async_context(
            open_servers(folder, Layout.CLUSTER, authority=authority, users=users)
        )
        make_key_file(folder / "log.key", ORIGIN)
        policy = f'engine = "embedded"\nbundle = "{folder / "bundle.tar.gz"}"'
        notaries = [NAMES.id_of("notary").value]
        text = settings_text(folder, servers.entrances, policy=policy, replicas=3, notaries=notaries)
        # So that a test can say which server delivers.
        text = text.replace("[streams]\n", "[streams]\nreplicated_consumers = true\n")
        (folder / "sealbus.toml").write_text(text + NOTARY_SETTINGS.format(origin=ORIGIN, folder=folder))
        made = ReplicatedLog(folder, servers, load_settings(folder / "sealbus.toml", environment={}))
        patch.setattr(reader, "make_reader", made.make_reader)
        await servers.start()
        await make_streams(made.settings)
        yield made
