"""An export of what a bus in memory has recorded: its stream of audit messages as the log of a notary."""

from __future__ import annotations

import json
from collections.abc import Sequence
from hashlib import sha256

from support.log_world import Frame, LogKey, files_of, root_document
from support.notary import record_wire

from sealbus.agents.dev.memory.identity import MemoryIdentity
from sealbus.bus.stream_names import AUDIT
from sealbus.envelopes.export.trust_root import Root
from sealbus.envelopes.records.notary import BundleRecord
from sealbus.testing import TestBus

__all__ = ["exported", "frames_of_bus"]

KEY = LogKey("log 0")


def frames_of_bus(bus: TestBus) -> list[Frame]:
    """Return the log of everything that the agents of `bus` have recorded; its last message has the trust bundle."""
    notary = MemoryIdentity(bus.authority, bus.names.id_of("notary"))
    frames = [Frame(3, 0, 0, AUDIT.encode())]
    for number, one in enumerate(bus.broker.streams[AUDIT].stored, 1):
        assert one.arrival is not None
        frames.append(Frame(1, number, one.arrival.stored, one.payload))
    # Not before its credential, however long ago the last message was.
    now = max(bus.authority.clock(), frames[-1].stored)
    record = BundleRecord(trust_domain=bus.trust_domain, current=now, jwt=_jwks(bus))
    _, payload = record_wire(notary, 1, now, record)
    return [*frames, Frame(1, len(frames), now, payload)]


def exported(bus: TestBus, frames: Sequence[Frame] | None = None) -> tuple[dict[str, bytes], Root, bytes]:
    """Return the files of an export of `bus`, or of `frames` of its log; its root, and the file that says so."""
    document = root_document([KEY], [sha256(_jwks(bus)).digest()])
    document |= {
        "trust_domain": bus.trust_domain.name,
        "agents": {"template": "/agent/{name}", "table": {"edge": bus.edge.spiffe_id.value}},
        "minters": [bus.edge.spiffe_id.value],
        "notaries": [bus.names.id_of("notary").value],
    }
    text = json.dumps(document).encode()
    return files_of(list(frames) if frames is not None else frames_of_bus(bus), [KEY]), Root.parse(text), text


def _jwks(bus: TestBus) -> bytes:
    return bus.authority.jwt_bundles()[bus.trust_domain]
