"""The folder of a notary's log, and its stream, of a log made in memory."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from support.log_world import World, number_path
from support.settings import SMALLEST

from sealbus.agents.runtime.settings.settings import Settings, load_settings
from sealbus.bus.ports import Delivery
from sealbus.envelopes.export.trust_root import Root
from sealbus.envelopes.message.freshness import StreamArrival
from sealbus.envelopes.message.wire import parse_envelope
from sealbus.envelopes.records.body import parse_audit_body
from sealbus.envelopes.records.notary import BundleRecord

__all__ = ["StreamOfLog", "kept_files", "log_settings", "previous_of", "root_of", "written"]


def kept_files(world: World) -> dict[str, bytes]:
    """Return what a notary keeps of this log: tiles, places, checkpoint, and the bundles of its trust domain."""
    files = {name: data for name, data in world.files().items() if not name.startswith("messages/")}
    for start in range(0, len(world.frames), 256):
        some = world.frames[start : start + 256]
        name = number_path(start // 256) + (f".p/{len(some)}" if len(some) < 256 else "")
        files[f"tile/places/{name}"] = b"".join(
            bytes([one.kind]) + one.sequence.to_bytes(8, "big") + one.stored.to_bytes(8, "big") for one in some
        )
    for frame in world.frames:
        if frame.kind == 1:
            for record in parse_audit_body(parse_envelope(frame.data).body).records.values():
                if isinstance(record, BundleRecord):
                    name = sha256(record.encode()).hexdigest()[:32]
                    files[f"trust/{record.current:016d}-{name}"] = record.encode()
    return files


def previous_of(world: World) -> bytes:
    """Return the previous log's checkpoint, if this one begins with one."""
    return next((frame.data for frame in world.frames if frame.kind == 4), b"")


def root_of(world: World) -> Root:
    return Root.parse(json.dumps(world.root()).encode())


def log_settings(folder: Path, *lines: str) -> Settings:
    """Return the settings of `sealbus.toml` in `folder`, written anew with `lines` about the notary."""
    path = folder / "sealbus.toml"
    path.write_text(SMALLEST + "\n".join(["[control.notary]", *lines]) + "\n")
    return load_settings(path, environment={})


def written(files: dict[str, bytes], folder: Path) -> Path:
    """Write `files` into `folder`, and return it."""
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


@dataclass
class StreamOfLog:
    """A transport that only reads: the messages of a log's stream, some at a time."""

    world: World
    without: frozenset[int] = frozenset()
    some: int = 7

    async def read(
        self,
        stream: str,
        subjects: Sequence[str],
        *,
        start: int = 1,
        since: int = 0,
        follow: bool = False,
        current: asyncio.Event | None = None,
    ) -> AsyncGenerator[Sequence[Delivery], None]:
        assert (stream, tuple(subjects), since, follow) == ("AUDIT", ("audit.>",), 0, False)
        found = [
            Delivery(
                subject="audit.any",
                payload=one.data,
                header_block=b"",
                arrival=StreamArrival("audit.any", b"", stream, one.sequence, stored=one.stored, created=0, delivery=1),
            )
            for one in self.world.frames
            if one.kind in (0, 1) and one.sequence >= start and one.sequence not in self.without
        ]
        for at in range(0, len(found), self.some):
            yield found[at : at + self.some]
