"""A notary that is killed at random moments under load: no fork, no gap, no duplicate (kill -9, real nats-server).

`NOTARY_KILLS` says how often it is killed; a few times unless said, 200 times for the full test.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

import pytest
from support import notary_process
from support.notary import ORIGIN, SIGNER, last_place, read_log

from sealbus.agents.control.notary.log.folder_store import CHECKPOINT, FolderStore
from sealbus.agents.dev.environment import DevOptions, Environment, open_environment
from sealbus.agents.dev.nats.config import BrokerRole
from sealbus.agents.runtime.open import open_connection, open_node
from sealbus.bus.nats.transport import NatsTransport
from sealbus.bus.ports import Outgoing
from sealbus.envelopes.log.checkpoint import Checkpoint, open_checkpoint
from sealbus.envelopes.log.tiles import TiledTree, tile_reader
from sealbus.envelopes.records.work import OutcomeRecord

KILLS = int(os.environ.get("NOTARY_KILLS", "12"))
PAUSES = max(3, KILLS // 6)

pytestmark = [pytest.mark.nats, pytest.mark.slow, pytest.mark.timeout(600 + 20 * KILLS)]


@pytest.fixture
async def environment(tmp_path: Path) -> AsyncIterator[Environment]:
    options = DevOptions(folder=tmp_path / "dev", agents=("notary", "shop"), port=-1, max_bytes=1 << 28)
    async with open_environment(options) as running:
        await running.nats.permit(running.names.id_of("notary"), BrokerRole.NOTARY)
        yield running


def with_notary(environment: Environment, folder: Path, *, name: str = "notary") -> Path:
    """Return a settings file as that of `sealbus dev`, and a notary in it."""
    key = environment.settings_file.parent / f"{name}.key"
    key.write_text(SIGNER.secret_text() + "\n")
    key.chmod(0o600)
    path = environment.settings_file.parent / f"{name}.toml"
    lines = [
        environment.settings_file.read_text(),
        "[control.notary]",
        f'origin = "{ORIGIN}"',
        f'keys = ["{key}"]',
        f'folder = "{folder}"',
        "lease = 3",
    ]
    path.write_text("\n".join(lines) + "\n")
    return path


class Nursery:
    """The process that notaries are forked from."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.running = 0

    async def start(self) -> int:
        assert self.process.stdin is not None
        self.process.stdin.write(b"go\n")
        self.running = int(await self.line())
        return self.running

    async def line(self) -> bytes:
        assert self.process.stdout is not None
        async with asyncio.timeout(60):
            return await self.process.stdout.readline()

    async def kill(self, pid: int) -> None:
        """Kill the notary `pid` and see that it is gone; it must not have ended by itself."""
        os.kill(pid, signal.SIGKILL)
        assert await self.line() == b"ended 9\n"
        self.running = 0


@asynccontextmanager
async def nursery(settings: Path) -> AsyncIterator[Nursery]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        notary_process.__file__,
        str(settings),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    notaries = Nursery(process)
    try:
        yield notaries
    finally:
        if notaries.running:
            # Its parent has not waited for it, so that the number is still its own.
            with suppress(ProcessLookupError):
                os.kill(notaries.running, signal.SIGKILL)
        assert process.stdin is not None
        process.stdin.close()
        async with asyncio.timeout(60):
            await process.wait()


async def load(environment: Environment, stop: asyncio.Event) -> int:
    """Have an agent record, and publish garbage, until `stop`; return how many messages there were."""
    count = 0
    async with open_node("shop", environment.settings) as node:
        while not stop.is_set():
            for number in range(5):
                record = OutcomeRecord.of(
                    decision=(count + number).to_bytes(32, "big"), code=None, micros=1, delivery=1, sent=()
                )
                await node.audit.note(record)
            await node.transport.publish([Outgoing(subject="audit.shop", payload=b"garbage")], deadline=60.0)
            count += 6
            with suppress(TimeoutError):
                async with asyncio.timeout(0.01):
                    await stop.wait()
    return count


def checkpoint_in(folder: Path) -> Checkpoint | None:
    note = FolderStore(folder).get(CHECKPOINT)
    return open_checkpoint(note, origin=ORIGIN, verifiers=[SIGNER.verifier]).checkpoint if note else None


async def moved(folder: Path, before: int) -> Checkpoint:
    async with asyncio.timeout(60):
        while True:
            found = checkpoint_in(folder)
            if found is not None and found.size > before:
                return found
            await asyncio.sleep(0.01)


async def test_two_that_are_paused_in_turn_sign_one_history(environment: Environment, tmp_path: Path) -> None:
    """Each has a folder of its own and the same key; the one that is paused does not learn that it was given up."""
    folders = [tmp_path / "one", tmp_path / "two"]
    settings = [with_notary(environment, folder, name=folder.name) for folder in folders]
    chance = random.Random()  # noqa: S311  moments, and no keys
    seen: list[Checkpoint] = []
    stop = asyncio.Event()
    async with AsyncExitStack() as stack, asyncio.TaskGroup() as group:
        pids = [await (await stack.enter_async_context(nursery(one))).start() for one in settings]
        loading = group.create_task(load(environment, stop))
        holder, other = 0, 1
        for _ in range(PAUSES):
            # Whoever has the lease moves; which of the two that is first is theirs.
            holder = await first_to_move(folders)
            other = 1 - holder
            await asyncio.sleep(chance.random())
            os.kill(pids[holder], signal.SIGSTOP)
            before = checkpoint_in(folders[other])
            seen.append(await moved(folders[other], before.size if before else 0))
            os.kill(pids[holder], signal.SIGCONT)
            # It goes on with what it was at, and must not get further.
            await asyncio.sleep(0.3)
            seen += [one for folder in folders if (one := checkpoint_in(folder)) is not None]
        stop.set()
        await loading
        # What was loaded last is sealed by whoever has the lease.
        async with open_connection("operator", environment.settings) as (_, connection):
            transport = NatsTransport(connection)
            last = await last_sequence(transport)
            longest = await sealed_by_one(folders, last)
            for pid in pids:
                os.kill(pid, signal.SIGSTOP)
            log = await read_log(transport, folders[longest], environment.names.id_of("notary"))
    tree = TiledTree(log.size, tile_reader(FolderStore(folders[longest]).get))
    for one in seen:
        assert one.size <= log.size
        assert tree.root(one.size) == one.root
    assert len({one.size for one in seen}) > PAUSES


async def first_to_move(folders: list[Path]) -> int:
    before = [found.size if (found := checkpoint_in(folder)) else 0 for folder in folders]
    async with asyncio.timeout(60):
        while True:
            for number, folder in enumerate(folders):
                if (found := checkpoint_in(folder)) is not None and found.size > before[number]:
                    return number
            await asyncio.sleep(0.01)


async def last_sequence(transport: NatsTransport) -> int:
    last = 0
    async for batch in transport.read("AUDIT", ["audit.>"]):
        last = batch[-1].arrival.sequence if batch[-1].arrival else last
    return last


async def sealed_by_one(folders: list[Path], sequence: int) -> int:
    """Return which folder's log is the first with a checkpoint over the message `sequence`."""
    async with asyncio.timeout(60):
        while True:
            for number, folder in enumerate(folders):
                found = checkpoint_in(folder)
                if found is not None and last_place(FolderStore(folder), found.size).sequence >= sequence:
                    return number
            await asyncio.sleep(0.05)


async def test_killed_at_random_moments(environment: Environment, tmp_path: Path) -> None:
    folder = tmp_path / "log"
    chance = random.Random()  # noqa: S311  moments, and no keys
    seen: list[Checkpoint] = []
    stop = asyncio.Event()
    async with nursery(with_notary(environment, folder)) as notaries, asyncio.TaskGroup() as group:
        loading = group.create_task(load(environment, stop))
        for number in range(KILLS):
            pid = await notaries.start()
            if number % 4 == 0:
                # Far enough to have written; the others end wherever they are, some before they have read anything.
                seen.append(await moved(folder, seen[-1].size if seen else 0))
            await asyncio.sleep(chance.random() * 1.5)
            await notaries.kill(pid)
            if (found := checkpoint_in(folder)) is not None:
                seen.append(found)
        stop.set()
        await loading
        pid = await notaries.start()
        async with open_connection("operator", environment.settings) as (_, connection):
            transport = NatsTransport(connection)
            await sealed_by_one([folder], await last_sequence(transport))
            await notaries.kill(pid)
            log = await read_log(transport, folder, environment.names.id_of("notary"))
    tree = TiledTree(log.size, tile_reader(FolderStore(folder).get))
    assert all(tree.root(one.size) == one.root for one in seen)
    assert [one.size for one in seen] == sorted(one.size for one in seen)
    assert len(seen) >= KILLS // 4
    assert len({one.size for one in log.published}) == len(log.published)
