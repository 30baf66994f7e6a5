"""How a vector is written down: what a reader is given, and what it must say (SPEC.md section 11)."""

from __future__ import annotations

import re
from hashlib import sha256

from vectors.issuing import BROKER, BUNDLES, EDGE, HOUR, INVENTORY, NOW, PLANNER, SECOND, Json
from vectors.world import Message, header_block, message_id

from sealbus.envelopes.trust.merkle import leaf_hash

__all__ = ["LIFETIMES", "Case", "archive", "call_given", "decided", "digest_of", "live", "pieces", "result", "world"]

Case = dict[str, Json]

LIFETIMES: dict[str, Json] = {
    "context_start": HOUR,
    "context_life": 8 * HOUR,
    "chain_life": 24 * HOUR,
    "chain_after": None,
}
"""How long the reader lets contexts and chains live, unless a case says otherwise: the settings' defaults."""

_RUN = re.compile(rb"(.{1,34}?)\1{63,}", re.DOTALL)
"""Up to 34 bytes (a hash as an encoded value), at least 64 times."""


def pieces(data: bytes) -> Json:
    """Return `data` as hex or, where something is repeated often, as a list of hex and of `{"hex", "times"}`."""
    parts: list[Json] = []
    end = 0
    for run in _RUN.finditer(data) if len(data) > 4_096 else ():
        parts += [data[end : run.start()].hex(), {"hex": run[1].hex(), "times": len(run[0]) // len(run[1])}]
        end = run.end()
    return [*parts, data[end:].hex()] if parts else data.hex()


def world() -> Json:
    """Return what all cases share: the bundles, and what a reader is given where a case does not say otherwise."""
    bundles: dict[str, Json] = {name: dict(domains) for name, domains in BUNDLES.items()}
    common: dict[str, Json] = {
        "trust_domain": "example.org",
        "template": "/agent/{name}",
        "table": {"broker": BROKER},
        "formats": [1],
        "bundles": "default",
    }
    trusting: dict[str, Json] = {"revoked_before": {}, "minters": [EDGE], "lifetimes": LIFETIMES}
    return {
        "bundles": bundles,
        "defaults": {
            "live": common
            | trusting
            | {
                "own": INVENTORY,
                "kinds": ["task", "event"],
                "own_subjects": [],
                "action": "inventory.update",
                "now": NOW + 2 * SECOND,
                "restored": [],
                "stream": {
                    "name": "TASKS",
                    "sequence": 1,
                    "subject": "task.inventory.update",
                    "header_block": header_block(message_id(2)).hex(),
                    "stored": NOW + SECOND,
                    "created": NOW - HOUR,
                },
            },
            "result": common | {"revoked_before": {}, "own": PLANNER, "before": []},
            "archive": common | {"subject": "audit.inventory", "time": NOW + 3 * SECOND},
            "decided": common | {"minters": [EDGE], "subject": "audit.inventory", "time": NOW + 3 * SECOND},
        },
    }


def call_given(message: Message | None = None, **changes: Json) -> dict[str, Json]:
    """Return what a reader of calls is given in place of a stream's arrival."""
    core: dict[str, Json] = {
        "subject": "call.inventory.update",
        "started": NOW - HOUR,
        "audit_created": NOW - HOUR,
        "memory": 8,
        "seen": [],
    }
    return {"kinds": ["call"], "stream": None, "core": core | changes}


def digest_of(header: bytes) -> str:
    """Return the hex of H(header)."""
    return sha256(header).hexdigest()


def live(name: str, message: Message | bytes, expect: tuple[str, int] | None = None, /, **given: Json) -> Case:
    """Return a case of the live profile; `expect` is code and step of a refusal."""
    case: Case = {"name": name, "profile": "live"}
    if given:
        case["given"] = given
    case["payload"] = pieces(message if isinstance(message, bytes) else message.payload())
    if expect is not None:
        return case | {"code": expect[0], "step": expect[1]}
    assert isinstance(message, Message)
    return case | {"expect": _message(message)}


def _message(message: Message) -> Json:
    """Return what a reader must have found in an accepted message."""
    headers = [message.raw(), *(ancestor.header for ancestor in message.ancestors)]
    found: dict[str, Json] = {
        "kind": str(message.entries()["t"]),
        "iss": message.sender.iss,
        "digest": digest_of(message.raw()),
        "body": pieces(message.body),
        "chain": [digest_of(header) for header in reversed(headers)],
    }
    if message.context is not None:
        found["context"] = sha256(message.context.payload).hexdigest()
    return found


def result(
    name: str,
    message: Message | bytes,
    requests: list[Json],
    expect: tuple[str, int] | str | None = None,
    /,
    **given: Json,
) -> Case:
    """Return a case of the result profile; `expect` is a refusal, or `"ignored"`."""
    case: Case = {"name": name, "profile": "result", "given": {"requests": requests, **given}}
    case["payload"] = pieces(message if isinstance(message, bytes) else message.payload())
    if isinstance(expect, tuple):
        return case | {"code": expect[0], "step": expect[1]}
    if expect is not None:
        return case | {"expect": {"ignored": True}}
    assert isinstance(message, Message)
    entries = message.entries()
    final = entries["t"] == "reply" or "fin" in entries
    found: dict[str, Json] = {
        "kind": str(entries["t"]),
        "iss": message.sender.iss,
        "digest": digest_of(message.raw()),
        "body": pieces(message.body),
        "final": final,
    }
    return case | {"expect": found}


def archive(
    name: str,
    message: Message | bytes,
    records: list[tuple[str, bytes]] | tuple[str, int],
    /,
    **given: Json,
) -> Case:
    """Return a case of the archive profile; `records` are kind and bytes of each, or code and step of a refusal."""
    case: Case = {"name": name, "profile": "archive"}
    if given:
        case["given"] = given
    case["payload"] = pieces(message if isinstance(message, bytes) else message.payload())
    if isinstance(records, tuple):
        return case | {"code": records[0], "step": records[1]}
    assert isinstance(message, Message)
    dig = message.entries()["dig"]
    assert isinstance(dig, bytes)
    found: dict[str, Json] = {
        "iss": message.sender.iss,
        "digest": digest_of(message.raw()),
        "dig": dig.hex(),
        "records": [{"kind": kind, "leaf": leaf_hash(item).hex()} for kind, item in records],
    }
    return case | {"expect": found}


def decided(name: str, audit: Message, record: bytes, message: Message | tuple[str, int], /, **given: Json) -> Case:
    """Return a case of a decided message inside an audit message; `message` is it, or code and step of a refusal."""
    case: Case = {
        "name": name,
        "profile": "decided",
        "given": {"record": leaf_hash(record).hex(), **given},
        "payload": pieces(audit.payload()),
    }
    if isinstance(message, tuple):
        return case | {"code": message[0], "step": message[1]}
    found = _message(message)
    assert isinstance(found, dict)
    del found["body"]
    return case | {"expect": found}
