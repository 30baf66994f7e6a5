"""One run of everything, watched: the demonstration's scenes and what else is done with secrets; then all is read back."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import secrets as random
import stat
import sys
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import pytest
from support import secret_flows
from support.backstage import in_development
from support.loose_agent import Told, granted, loose_agent
from support.secret_search import Group, Kept, Place, Secret
from support.secret_sources import Secrets
from support.witness import Witness
from support.workload_api import short_folder

from sealbus.agents.dev.demo.play import SCENES, play
from sealbus.agents.dev.demo.stage import STRANGER, Stage, open_stage
from sealbus.agents.dev.nats.config import BrokerRole, Permissions, permissions_of
from sealbus.agents.runtime.open import open_audit_trail, open_connection, open_node, streams_of
from sealbus.agents.runtime.worker import Worker
from sealbus.bus.audit.trail import Finding
from sealbus.bus.nats.transport import NatsTransport
from sealbus.bus.telemetry import Counters
from sealbus.envelopes.errors import SealbusError

__all__ = ["MEANT", "WholeRun", "whole_run"]

MEANT: Final = {
    "authority.json": "the CA's and the JWT signer's private keys, so that trust outlives a restart",
    "idp.json": "the secret of `sealbus token`",
    "nats/tls/svid.key": "the TLS key of nats-server, which reads it from a file",
}
"""Files of the state folder that hold secrets because that is what they are for."""

STORE: Final = "nats/store"
"""Below it nats-server keeps the streams: messages, in its own form."""


@dataclass(slots=True)
class WholeRun:
    """What came of it. `planted` are secrets that were put where they must not be, by the group where they are."""

    secrets: Secrets = field(default_factory=Secrets)
    planted: dict[Group, Secret] = field(default_factory=dict)
    places: list[Place] = field(default_factory=list)
    loggers: set[str] = field(default_factory=set)
    modes: dict[str, int] = field(default_factory=dict)
    """Of the files of the state folder while all ran."""
    meant: dict[str, bytes] = field(default_factory=dict)
    """What was in those of `MEANT`."""
    left: set[str] = field(default_factory=set)
    """Files that were there when all had ended."""
    surprises: list[str] = field(default_factory=list)
    dropped: float = 0

    def plant(self, group: Group) -> str:
        """Make a secret that is to be put into `group`."""
        value = random.token_urlsafe(24)
        self.planted[group] = Secret(f"planted in {group}", Kept.SECRET, value.encode())
        return value


def whole_run() -> WholeRun:
    """Play everything, and return what it left."""
    run, witness = WholeRun(), Witness()
    with pytest.MonkeyPatch.context() as patch, short_folder() as folder, witness.watching():
        run.secrets.watch(patch)
        _operator_hears_everything(patch)
        state = folder / "demo"
        asyncio.run(_play(run, state))
        run.left = {path.relative_to(state).as_posix() for path in state.rglob("*")}
    run.places += witness.places()
    run.loggers = witness.loggers
    return run


def _operator_hears_everything(patch: pytest.MonkeyPatch) -> None:
    def all_subjects(role: BrokerRole, *arguments: Any) -> Permissions:
        made = permissions_of(role, *arguments)
        return replace(made, subscribe=(">",)) if role is BrokerRole.OPERATOR else made

    patch.setattr("sealbus.agents.dev.nats.server.permissions_of", all_subjects)


async def _play(run: WholeRun, folder: Path) -> None:
    async with open_stage(folder, engine="embedded", opa=None) as stage:
        async with _wire(run, stage), _loose(run, stage):
            async for result in play(SCENES, stage):
                if not result.ok:
                    run.surprises.append(f"{result.scene.name}: {result.got}")
            await granted(loose_agent(str), stage, "edge", "shop-web")
            await _plant(run, stage)
            token = await secret_flows.log_ins(stage, run.secrets)
            await secret_flows.at_the_door(stage, run.secrets, token)
            await secret_flows.at_the_other_doors(stage, run.secrets, token)
            await secret_flows.backends(stage, run.secrets, token)
            await secret_flows.on_the_bus(stage, run.secrets, token)
            run.places += await secret_flows.commands(stage, run.secrets)
        await _streams(run, stage)
        await _records(run, stage)
        _files(run, folder)


@asynccontextmanager
async def _wire(run: WholeRun, stage: Stage) -> AsyncGenerator[None, None]:
    """Hear every message that passes the server, stored or not."""
    counters, heard, live = Counters(), bytearray(), asyncio.Event()
    async with open_connection("operator", in_development(stage).environment.settings, counters=counters) as (
        _,
        connection,
    ):

        async def hear() -> None:
            async for batch in NatsTransport(connection).listen(">", pending=1_000_000, live=live):
                for one in batch:
                    heard.extend(b"\n".join((one.subject.encode(), one.header_block, one.payload, b"")))

        hearing = asyncio.create_task(hear())
        await live.wait()
        yield
        hearing.cancel()
        await asyncio.wait([hearing])
    run.dropped = counters.value("sealbus_bus_dropped_total", reason="slow")
    run.places.append(Place(Group.MESSAGES, "on the wire", bytes(heard)))


@asynccontextmanager
async def _loose(run: WholeRun, stage: Stage) -> AsyncGenerator[None, None]:
    """Run the agent that tells what it knows."""
    agent = loose_agent(
        lambda name: run.secrets.add(f"text of the {name}'s error", random.token_urlsafe(24), Kept.TEXT)
    )
    stop = asyncio.Event()
    async with (
        open_node(STRANGER, in_development(stage).environment.settings) as node,
        Worker(agent, node) as worker,
        asyncio.TaskGroup() as group,
    ):
        group.create_task(worker.run(stop))
        await worker.ready.wait()
        in_development(stage).workers[STRANGER] = node
        try:
            yield
        finally:
            del in_development(stage).workers[STRANGER]
            stop.set()


async def _plant(run: WholeRun, stage: Stage) -> None:
    """Put a secret into each place: a line of log, the output, a message (encoded), a record, errors, a file."""
    logging.getLogger("sealbus.planted").debug("GET /callback?code=%s", run.plant(Group.LOGS))
    sys.stdout.write(f"token: {run.plant(Group.OUTPUT)}\n")
    client = stage.clients["shop-web"]
    text = base64.b64encode(run.plant(Group.MESSAGES).encode()).decode()
    handle = await client.submit(f"{STRANGER}.noted", Told(text=text, label=run.plant(Group.RECORDS)))
    await handle.result(Told, timeout=60)
    run.planted[Group.EVIDENCE] = run.planted[Group.RECORDS]
    for action, group in (("burst", Group.ERRORS), ("own", Group.OWN_ERRORS)):
        with suppress(SealbusError):
            await client.call(f"{STRANGER}.{action}", Told(text=run.plant(group)), returns=Told)
    (in_development(stage).environment.settings_file.parent / "left-behind").write_text(run.plant(Group.FILES))


async def _streams(run: WholeRun, stage: Stage) -> None:
    groups = {"AUDIT": Group.EVIDENCE, "REFUSALS": Group.REFUSALS}
    for stream in streams_of(in_development(stage).environment.settings):
        found = bytearray()
        async for batch in stage.operator.read(stream.name, list(stream.subjects)):
            for one in batch:
                found += b"\n".join((one.subject.encode(), one.header_block, one.payload, b""))
        run.places.append(Place(groups.get(stream.name, Group.MESSAGES), f"stream {stream.name}", bytes(found)))


async def _records(run: WholeRun, stage: Stage) -> None:
    found: list[str] = []
    async with open_audit_trail("operator", in_development(stage).environment.settings) as trail:
        async for entry in trail.entries():
            if isinstance(entry, Finding):
                run.surprises.append(repr(entry))
            else:
                found.append(json.dumps(entry.input))
                record = entry.record
                found += [repr(record), *(repr(value) for name, value in _fields(record) if name != "proof")]
    run.places.append(Place(Group.RECORDS, "decoded", "\n".join(found).encode()))


def _fields(record: object) -> Iterator[tuple[str, object]]:
    names = getattr(record, "_fields", ()) or getattr(record, "__dataclass_fields__", ())
    for name in names:
        yield name, getattr(record, name)


def _files(run: WholeRun, folder: Path) -> None:
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.is_symlink():
            name = path.relative_to(folder).as_posix()
            run.modes[name] = stat.S_IMODE(path.stat().st_mode)
            if name in MEANT:
                run.meant[name] = path.read_bytes()
            else:
                group = Group.MESSAGES if name.startswith(STORE) else Group.FILES
                run.places.append(Place(group, f"file {name}", path.read_bytes()))
