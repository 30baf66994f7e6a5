"""A reader of tests/vectors/: gives each case to the library as SPEC.md section 11 says, and returns what it says."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

from sealbus.envelopes.accept.live import CoreArrival, LiveProfile, Replays, StreamArrival, VerifiedMessage, accept_live
from sealbus.envelopes.accept.open_request import OpenRequest, PendingRequest
from sealbus.envelopes.accept.result import ResultProfile, VerifiedResult, accept_reply, accept_status
from sealbus.envelopes.lifetimes import Lifetimes
from sealbus.envelopes.message.kinds import Kind
from sealbus.envelopes.message.restored import RestoredStream
from sealbus.envelopes.message.subjects import OwnSubject, own_subjects
from sealbus.envelopes.records.archive import ArchiveProfile, accept_decided, accept_record
from sealbus.envelopes.records.decision import DecisionRecord
from sealbus.envelopes.trust.bundles import JwtBundle, Trust, TrustBundles
from sealbus.envelopes.trust.caches import Caches, ReplayMemory
from sealbus.envelopes.trust.names import Names
from sealbus.envelopes.trust.spiffe_id import SpiffeId, TrustDomain

__all__ = ["FOLDER", "Given", "load", "octets", "run"]

Given: TypeAlias = dict[str, Any]
"""JSON as it was read; what is wrong with a vector shows as a failing test."""

FOLDER = Path(__file__).parent.parent / "vectors"


@cache
def load(name: str) -> Any:  # JSON
    """Return the JSON of one file."""
    return json.loads((FOLDER / name).read_text(encoding="utf-8"))


def octets(value: str | list[Any]) -> bytes:
    """Return the bytes that a case writes as hex, or as pieces of hex and of repeated hex."""
    if isinstance(value, str):
        return bytes.fromhex(value)
    return b"".join(
        bytes.fromhex(one) if isinstance(one, str) else bytes.fromhex(one["hex"]) * one["times"] for one in value
    )


def run(case: Given, caches: Caches | None = None) -> Given:
    """Return what the library found in an accepted case; raise what it raises."""
    given = load("world.json")["defaults"][case["profile"]] | case.get("given", {})
    run_profile = {"live": _live, "result": _result, "archive": _archive, "decided": _decided}[case["profile"]]
    return run_profile(given, octets(case["payload"]), caches if caches is not None else Caches())


def _bundles(given: Given) -> TrustBundles:
    return _bundles_of(given["bundles"])


@cache
def _bundles_of(name: str) -> TrustBundles:
    sets: Mapping[str, str] = load("world.json")["bundles"][name]
    return TrustBundles(JwtBundle.parse(TrustDomain(name), jwks.encode()) for name, jwks in sets.items())


def _trust(given: Given) -> Trust:
    revoked = {SpiffeId(iss): time for iss, time in given["revoked_before"].items()}
    return Trust(bundles=_bundles(given), revoked_before=revoked)


def _names(given: Given) -> Names:
    table = {name: SpiffeId(iss) for name, iss in given["table"].items()}
    return Names(TrustDomain(given["trust_domain"]), given["template"], table)


def _live(given: Given, payload: bytes, caches: Caches) -> Given:
    profile = LiveProfile(
        own=SpiffeId(given["own"]),
        names=_names(given),
        kinds=frozenset(Kind(kind) for kind in given["kinds"]),
        own_subjects=own_subjects(
            *(
                OwnSubject(
                    subject=one["subject"], kind=Kind(one["kind"]), owner=SpiffeId(one["owner"]), action=one["action"]
                )
                for one in given["own_subjects"]
            )
        ),
        minters=frozenset(map(SpiffeId, given["minters"])),
        lifetimes=Lifetimes(**given["lifetimes"]),
        formats=frozenset(given["formats"]),
    )
    stream, core = given["stream"], given.get("core", {"memory": 1})
    memory = ReplayMemory(core["memory"])
    arrival: StreamArrival | CoreArrival
    if stream is not None:
        arrival = StreamArrival(
            subject=stream["subject"],
            header_block=bytes.fromhex(stream["header_block"]),
            stream=stream["name"],
            sequence=stream["sequence"],
            stored=stream["stored"],
            created=stream["created"],
            delivery=1,
        )
    else:
        arrival = CoreArrival(subject=core["subject"], started=core["started"], audit_created=core["audit_created"])
        for seen in core["seen"]:
            memory.remember((SpiffeId(seen["iss"]), bytes.fromhex(seen["id"])), seen["exp"], now=0)
    message = accept_live(
        payload,
        arrival,
        profile,
        action=given["action"],
        trust=_trust(given),
        caches=caches,
        replays=Replays(memory, [RestoredStream(**one) for one in given["restored"]]),
        now=given["now"],
    )
    return _message(message)


def _message(message: VerifiedMessage) -> Given:
    found: Given = {
        "kind": message.header.kind.value,
        "iss": message.header.iss.value,
        "digest": message.header.digest.hex(),
        "body": message.body,
        "chain": [link.digest.hex() for link in message.chain],
    }
    if message.context is not None and message.header.ctx is not None:
        found["context"] = message.header.ctx.hex()
    return found


def _result(given: Given, payload: bytes, caches: Caches) -> Given:
    requests = {}
    for one in given["requests"]:
        pending = PendingRequest(
            digest=bytes.fromhex(one["digest"]),
            id=bytes.fromhex(one["id"]),
            aud=SpiffeId(one["aud"]),
            end=one["end"],
            rpl=one.get("rpl"),
        )
        requests[pending.digest] = OpenRequest(PendingRequest.from_text(pending.to_text()))
    profile = ResultProfile(own=SpiffeId(given["own"]), names=_names(given), formats=frozenset(given["formats"]))
    result: VerifiedResult | None = None
    for one in [*map(octets, given["before"]), payload]:
        if "stored" in given:
            result = accept_status(
                one, given["subject"], profile, requests, stored=given["stored"], trust=_trust(given), caches=caches
            )
        else:
            result = accept_reply(
                one, given["subject"], profile, requests, now=given["now"], trust=_trust(given), caches=caches
            )
    if result is None:
        return {"ignored": True}
    return {
        "kind": result.header.kind.value,
        "iss": result.header.iss.value,
        "digest": result.header.digest.hex(),
        "body": result.body,
        "final": result.final,
    }


def _profile(given: Given) -> ArchiveProfile:
    return ArchiveProfile(
        names=_names(given),
        minters=frozenset(map(SpiffeId, given.get("minters", []))),
        formats=frozenset(given["formats"]),
    )


def _archive(given: Given, payload: bytes, caches: Caches) -> Given:
    audit = accept_record(
        payload, given["subject"], _profile(given), time=given["time"], bundles=_bundles(given), caches=caches
    )
    return {
        "iss": audit.header.iss.value,
        "digest": audit.header.digest.hex(),
        "dig": audit.header.dig.hex(),
        "records": [{"kind": record.kind, "leaf": leaf.hex()} for leaf, record in audit.body.records.items()],
    }


def _decided(given: Given, payload: bytes, caches: Caches) -> Given:
    profile, bundles = _profile(given), _bundles(given)
    audit = accept_record(payload, given["subject"], profile, time=given["time"], bundles=bundles, caches=caches)
    record = audit.body.records[bytes.fromhex(given["record"])]
    assert isinstance(record, DecisionRecord)
    body = bytes.fromhex(given["body"]) if "body" in given else None
    decided = accept_decided(record, audit, profile, bundles=bundles, caches=caches, body=body)
    found: Given = {
        "kind": decided.header.kind.value,
        "iss": decided.header.iss.value,
        "digest": decided.header.digest.hex(),
        "chain": [link.digest.hex() for link in decided.chain],
    }
    if decided.header.ctx is not None:
        found["context"] = decided.header.ctx.hex()
    return found
