"""Vectors of what agents keep in STATE: stops, ticks, claims on effects, uses and counts of attempts (SPEC.md section 7)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from hashlib import sha256

from vectors.issuing import BROKER, EDGE, HOUR, INVENTORY, NOW, PLANNER, PRICING, SECOND, Json, party
from vectors.stored import SignedValue, digest, expired_party, packed, pieces
from vectors.world import Message, context

from sealbus.envelopes.encoding.codec import pack

__all__ = ["state"]

STOP, CLAIM = "application/vnd.sealbus.stop.v1", "application/vnd.sealbus.claim.v1"
TICK, LAST = "application/vnd.sealbus.tick.v1", "application/vnd.sealbus.last-tick.v1"
USES, ATTEMPTS = "application/vnd.sealbus.uses.v1", "application/vnd.sealbus.attempts.v1"
FAILED = "application/vnd.sealbus.failed.v1"
FLOOR = "application/vnd.sealbus.floor.v1"
TOP = 2**53 - 1
TASK = Message()
GRANT = digest("a grant")


def state() -> Json:
    """Return the whole file."""
    return {
        "stops": _stops(),
        "concerns": _concerns(),
        "tick_names": [_tick_names(time) for time in (NOW, NOW + 45 * SECOND, 0, TOP)],
        "ticks": _ticks(),
        "last_ticks": _last_ticks(),
        "effects": _effects(),
        "claims": _claims(),
        "uses": _uses(),
        "attempts": _attempts(),
        "failed": _failed(),
        "floors": _floors(),
    }


def _hex(entries: Mapping[str, object]) -> Json:
    return {key: pieces(value) if isinstance(value, bytes) else value for key, value in entries.items()}  # type: ignore[misc]


def _timely(good: Callable[..., SignedValue], subject: str, expect: Mapping[str, object]) -> list[Json]:
    """Return values that were stored in time, from the first moment to the last."""
    cases: list[Json] = []
    for name, stored in (("at once", 0), ("5 s before", -5 * SECOND), ("60 s after", 60 * SECOND)):
        cases.append(
            {
                "name": f"stored {name}",
                "subject": subject,
                "stored": NOW + stored,
                "value": good().stored().hex(),
                "expect": _hex(expect),
            }
        )
    return cases


def _refused(name: str, subject: str, value: bytes, *, stored: int = NOW, **given: Json) -> Json:
    return {"name": name, "subject": subject, "stored": stored, "value": pieces(value), **given}


def _never(good: Callable[..., SignedValue], subject: str, elsewhere: str) -> list[Json]:
    """Return what counts for no kind of value that says where it stands and when it was made."""
    value = good()
    revoked: Json = {INVENTORY: NOW}
    return [
        *(_refused(name, subject, raw) for name, raw in value.misshapen().items() if raw != value.stored()),
        _refused("stored too early", subject, value.stored(), stored=NOW - 5 * SECOND - 1),
        _refused("stored too late", subject, value.stored(), stored=NOW + 60 * SECOND + 1),
        _refused("in another place", elsewhere, value.stored()),
        _refused("signed by another", subject, replace(value, sender=party(PLANNER)).stored()),
        _refused("under an expired credential", subject, replace(value, sender=expired_party(INVENTORY)).stored()),
        _refused("under a credential that is revoked", subject, value.stored(), revoked_before=revoked),
        _refused("under a key that is not in the bundle", subject, value.stored(), bundles="rotated"),
    ]


def stop_entries(**changes: object) -> dict[str, object]:
    """Return the payload of the planner's stop of its task at the inventory."""
    return {
        "v": 1, "own": INVENTORY, "dig": TASK.digest(), "act": "inventory.update", "by": PLANNER, "rol": "requester",
        "rsn": "",
        "end": NOW + HOUR, "at": NOW, "can": digest("a cancel"),
    } | changes  # fmt: skip


def _stop(**changes: object) -> SignedValue:
    return SignedValue(typ=STOP, entries=stop_entries(**changes))


def _stop_subject(agent: str = "inventory", of: str = TASK.digest().hex(), by: str = "planner") -> str:
    return f"state.{agent}.stop.{of}.{by}"


def _stops() -> Json:
    subject, edge = _stop_subject(), "id-" + sha256(EDGE.encode()).hexdigest()[:32]
    accept = _timely(_stop, subject, stop_entries())
    for name, place, changes in (
        ("as an operator", subject, {"rol": "operator", "rsn": "Übereilt"}),
        ("by one without a name", _stop_subject(by=edge), {"by": EDGE}),
        ("by one of another trust domain", _stop_subject(by="broker"), {"by": BROKER}),
        ("the longest texts, and an end that was long ago", subject, {"act": "a" * 256, "rsn": "é" * 128, "end": 0}),
    ):
        value = _stop(**changes).stored().hex()
        accept.append(
            {"name": name, "subject": place, "stored": NOW, "value": value, "expect": _hex(stop_entries(**changes))}
        )
    bad: dict[str, dict[str, object]] = {
        "of version 2": {"v": 2}, "of version true": {"v": True}, "without an end": {"end": None}, "one key more": {"x": 1},
        "a hash of 31 bytes": {"dig": bytes(31)}, "a cancel of 33 bytes": {"can": bytes(33)},
        "a hash in hex": {"can": "00" * 32},
        "an action that covers others": {"act": "inventory.*"}, "no action": {"act": ""}, "a long action": {"act": "a" * 257},
        "another role": {"rol": "owner"}, "a long reason": {"rsn": "a" * 257}, "a reason that is bytes": {"rsn": b""},
        "an end that is text": {"end": "1"}, "no agent": {"own": "inventory"}, "nobody": {"by": "planner"},
        "of another agent": {"own": PRICING}, "by another": {"by": EDGE}, "of another message": {"dig": digest("x")},
    }  # fmt: skip
    return {
        "accept": accept,
        "reject": [
            *_never(_stop, subject, _stop_subject(of=digest("x").hex())),
            *(_refused(name, subject, _stop(**changes).stored()) for name, changes in bad.items()),
            _refused("at another agent's", _stop_subject(agent="pricing"), _stop().stored()),
            _refused("at another requester's", _stop_subject(by="pricing"), _stop().stored()),
            _refused("over 32,768 bytes", subject, pack([*_stop().parts()[:3], bytes(32_768)])),
        ],
    }


def _concerns() -> Json:
    other = Message(fields={"id": bytes.fromhex("00000000000370008000000000000000")})
    cases: list[tuple[str, dict[str, object], Message, bool]] = [
        ("its message", {}, TASK, True),
        ("another message", {}, other, False),
        ("of another action", {"act": "inventory.read"}, TASK, False),
        ("by another requester", {"by": EDGE}, TASK, False),
        ("by an operator", {"by": EDGE, "rol": "operator"}, TASK, True),
        ("of another agent", {"own": PRICING}, TASK, False),
    ]
    found: list[Json] = []
    for name, changes, message, concerns in cases:
        found.append({
            "name": name, "stop": _hex(stop_entries(**changes)), "header": message.raw().hex(), "concerns": concerns,
        })  # fmt: skip
    return found


def tick_digest(time: int) -> bytes:
    """Return h of the tick at `time` of the grant."""
    return sha256(GRANT + time.to_bytes(8, "big")).digest()


def _tick_names(time: int) -> Json:
    named = tick_digest(time)
    rest = bytearray(named[16:26])
    rest[0], rest[2] = 0x70 | rest[0] & 0x0F, 0x80 | rest[2] & 0x3F
    return {
        "grant": GRANT.hex(),
        "tick": time,
        "subject": f"state.inventory.tick.{named.hex()}",
        "id": ((time // 1_000).to_bytes(6, "big") + bytes(rest)).hex(),
        "idm": f"tick-{named.hex()[:32]}",
    }


def _ticks() -> Json:
    subject = f"state.inventory.tick.{tick_digest(NOW).hex()}"
    elsewhere = f"state.inventory.tick.{tick_digest(NOW + SECOND).hex()}"

    def made(**changes: object) -> SignedValue:
        entries = {"v": 1, "sub": subject, "at": NOW, "stage": "claimed", "until": NOW + 45 * SECOND} | changes
        return SignedValue(typ=TICK, entries=entries)

    accept = _timely(made, subject, {"stage": "claimed", "until": NOW + 45 * SECOND})
    for name, changes in (
        ("sent", {"stage": "sent"}),
        ("void", {"stage": "void"}),
        ("with a key of a newer version", {"stage": "sent", "why": "so"}),
    ):
        expect: Json = {"stage": str(changes["stage"]), "until": NOW + 45 * SECOND}
        value = made(**changes).stored().hex()
        accept.append({"name": name, "subject": subject, "stored": NOW, "value": value, "expect": expect})
    bad: dict[str, dict[str, object]] = {
        "of version 2": {"v": 2, "stage": "sent"}, "of another stage": {"stage": "done"},
        "a stage in capitals": {"stage": "Sent"},
        "without a stage": {"stage": None}, "without until": {"until": None, "stage": "sent"},
        "of another tick": {"sub": elsewhere},
        "until that is text": {"until": "1", "stage": "sent"}, "without at": {"at": None, "stage": "sent"},
    }  # fmt: skip
    return {
        "own": INVENTORY,
        "accept": accept,
        "reject": [
            *_never(lambda: made(stage="sent"), subject, elsewhere),
            *(_refused(name, subject, made(**changes).stored()) for name, changes in bad.items()),
        ],
    }


def _last_ticks() -> Json:
    subject = "state.inventory.last.nightly"
    handle: dict[str, object] = {
        "v": 1, "dig": TASK.digest(), "id": bytes.fromhex("00000000000270008000000000000000"), "aud": PRICING,
        "end": NOW + HOUR,
    }  # fmt: skip

    def made(**changes: object) -> SignedValue:
        entries = {"v": 1, "sub": subject, "at": NOW, "t": NOW - SECOND, "task": packed(handle)} | changes
        return SignedValue(typ=LAST, entries=entries)

    bad: dict[str, dict[str, object]] = {
        "a task that is no handle": {"task": b""}, "a task without an end": {"task": packed(handle | {"end": None})},
        "without a task": {"task": None}, "without a time": {"t": None}, "of another schedule": {"sub": subject + "2"},
    }  # fmt: skip
    return {
        "own": INVENTORY,
        "schedule": "nightly",
        "accept": _timely(made, subject, {"t": NOW - SECOND, "task": packed(handle)}),
        "reject": [
            *_never(made, subject, "state.inventory.last.daily"),
            *(_refused(name, subject, made(**changes).stored()) for name, changes in bad.items()),
        ],
    }


def _effects() -> Json:
    user, client = context(), context(typ="client")
    cases: dict[str, Message] = {
        "without a key of its own": TASK,
        "without a key of its own, for a user": Message(sender=party(EDGE), context=user),
        "with a key": Message(fields={"idm": "order-7"}),
        "with a key, for a user": Message(sender=party(EDGE), context=user, fields={"idm": "order-7"}),
        "with a key, for a client of the same name": Message(sender=party(EDGE), context=client, fields={"idm": "order-7"}),
        "with a key that is empty": Message(fields={"idm": ""}),
    }  # fmt: skip
    found: list[Json] = []
    for name, message in cases.items():
        case: dict[str, Json] = {"name": name, "header": message.raw().hex()}
        if message.context is not None:
            case["context"] = message.context.payload.hex()
        entries = message.entries()
        if "idm" not in entries:
            case["key"] = message.digest().hex()
        else:
            who: list[object] = [None, None]
            if message.context is not None:
                who = ["https://idp.example", "u-1001", *(["client"] if message.context is client else [])]
            case["key"] = sha256(pack(["idm", entries["iss"], entries["to"], *who, entries["idm"]])).hexdigest()
        found.append(case)
    return found


def _claims() -> Json:
    entries: dict[str, object] = {
        "v": 1, "key": digest("a key"), "dig": digest("a body"), "first": TASK.digest(), "by": bytes(range(16)),
        "stage": "started",
        "at": NOW, "until": NOW + 45 * SECOND,
    }  # fmt: skip
    done, result = entries | {"stage": "done"}, {"typ": "application/json", "res": b"{}"}

    def unsigned(found: Mapping[str, object]) -> bytes:
        return pack([packed(found)])

    def signed(found: Mapping[str, object]) -> SignedValue:
        return SignedValue(typ=CLAIM, entries=found)

    free, unknown = entries | {"stage": "free"}, entries | {"stage": "unknown"}
    largest = done | {"typ": "a/b", "res": bytes(65_536)}
    accept: list[Json] = [
        _claim(name, value, expect, signed=trusted)
        for name, value, expect, trusted in (
            ("started", unsigned(entries), entries, False),
            ("unknown", unsigned(unknown), unknown, False),
            ("free", signed(free).stored(), free, True),
            ("done", signed(done).stored(), done, True),
            ("done with a result", signed(done | result).stored(), done | result, True),
            ("done with the largest result", signed(largest).stored(), largest, True),
            ("done, unsigned", unsigned(done), done, False),
            ("a result that nobody signed", unsigned(done | result), done, False),
            ("a result of one that has not ended, unsigned", unsigned(entries | result), entries, False),
            ("signed by another", replace(signed(done | result), sender=party(PLANNER)).stored(), done, False),
            ("expired", replace(signed(free), sender=expired_party(INVENTORY)).stored(), free, False),
            ("started, signed", signed(entries).stored(), entries, True),
        )
    ]
    for name, raw in signed(free).misshapen().items():
        if name.startswith(("a signature", "another payload", "a key", "a credential")):
            accept.append(_claim(name, raw, free, signed=False))
    bad: dict[str, dict[str, object]] = {
        "of version 2": {"v": 2}, "of another stage": {"stage": "over"}, "a key of 31 bytes": {"key": bytes(31)},
        "a body of 33 bytes": {"dig": bytes(33)}, "a process of 15 bytes": {"by": bytes(15)},
        "without first": {"first": None},
        "a time that is text": {"at": "1"}, "one key more": {"x": 1}, "a type without a result": {"typ": "a/b"},
        "a result without a type": {"res": b""}, "a result that has no bytes": {"typ": "a/b", "res": "text"},
    }  # fmt: skip
    reject: list[Json] = [{"name": name, "value": unsigned(done | changes).hex()} for name, changes in bad.items()]
    for name, raw in signed(done).misshapen().items():
        if not name.startswith(("a signature", "another payload", "a key", "a credential")):
            reject.append({"name": name, "value": raw.hex()})
    reject += [
        {"name": "two parts", "value": pack([packed(done), b""]).hex()},
        {"name": "a result of one that has not ended", "value": signed(entries | result).stored().hex()},
        {
            "name": "too large a result",
            "value": pieces(signed(largest | {"res": bytes(65_537)}).stored()),
        },
    ]
    return {"own": INVENTORY, "accept": accept, "reject": reject}


def _claim(name: str, value: bytes, expect: Mapping[str, object], *, signed: bool) -> Json:
    found = {key: one for key, one in expect.items() if key != "v"}
    return {"name": name, "value": pieces(value), "signed": signed, "expect": _hex(found)}


def _uses() -> Json:
    # The slot is 1, so that a bool in its place is equal to it in Python.
    first, second = bytes((0, 1)) + digest("first")[2:16], digest("second")[:16]
    slot = int.from_bytes(first[:2], "big") % 4_096
    place = f"state.inventory.proof.{slot}"
    listed = first + (NOW + 90 * SECOND).to_bytes(8, "big") + second + (NOW + SECOND).to_bytes(8, "big")

    def made(
        *, name: object = "proof", number: object = slot, at: object = NOW, version: object = 1, uses: bytes = listed
    ) -> SignedValue:
        return SignedValue(typ=USES, payload=pack([version, name, number, at, uses]))

    return {
        "own": INVENTORY,
        "use": "proof",
        "digest": first.hex(),
        "accept": _timely(made, place, {first.hex(): NOW + 90 * SECOND, second.hex(): NOW + SECOND}),
        "reject": [
            *(
                _refused(name, place, raw)
                for name, raw in made().misshapen().items()
                if name != "a payload of version 2"
            ),
            _refused("stored too early", place, made().stored(), stored=NOW - 5 * SECOND - 1),
            _refused("stored too late", place, made().stored(), stored=NOW + 60 * SECOND + 1),
            _refused("of another slot", place, made(number=slot ^ 1).stored()),
            _refused("of another use", place, made(name="event").stored()),
            _refused("of version 2", place, made(version=2).stored()),
            _refused("of version true", place, made(version=True).stored()),
            _refused("of slot true", place, made(number=True).stored()),
            _refused("a use that is cut off", place, made(uses=listed[:-1]).stored()),
            _refused("a time that is text", place, made(at="1").stored()),
            _refused("signed by another", place, replace(made(), sender=party(PLANNER)).stored()),
            _refused("under an expired credential", place, replace(made(), sender=expired_party(INVENTORY)).stored()),
        ],
    }


def _attempts() -> Json:
    def place(of: bytes) -> str:
        return f"state.inventory.attempts.{of.hex()}"

    def made(
        *,
        version: object = 1,
        dig: object = TASK.digest(),
        deaths: object = 0,
        alone: object = False,
        is_open: object = True,
        at: object = NOW,
        more: tuple[object, ...] = (),
    ) -> SignedValue:
        return SignedValue(typ=ATTEMPTS, payload=pack([version, dig, deaths, alone, is_open, at, *more]))

    subject = place(TASK.digest())
    cases: list[tuple[str, int, int, bool, bool]] = [
        ("an attempt beside others", 0, 0, False, True),
        ("stored 5 s before", -5 * SECOND, 0, False, True),
        ("stored 60 s after", 60 * SECOND, 0, False, True),
        ("an attempt alone", 0, 0, True, True),
        ("an attempt beside others, after one that ended alone", 0, 1, False, True),
        ("an attempt alone, after one that ended alone", 0, 1, True, True),
        ("closed", 0, 0, False, False),
        ("closed, after one that ended alone", 0, 1, False, False),
        ("closed, of an attempt alone", 0, 0, True, False),
    ]
    accept: list[Json] = []
    for name, stored, deaths, alone, is_open in cases:
        ended = deaths + (alone and is_open)
        following: Json = {"deaths": ended, "alone": is_open, "open": True}
        accept.append({
            "name": name, "subject": subject, "stored": NOW + stored,
            "value": made(deaths=deaths, alone=alone, is_open=is_open).stored().hex(),
            "expect": {"deaths": deaths, "alone": alone, "open": is_open},
            "next": following if ended < 2 else None,
        })  # fmt: skip
    bad: dict[str, SignedValue] = {
        "of version 2": made(version=2), "of version true": made(version=True), "of another message": made(dig=digest("x")),
        "a hash of 31 bytes": made(dig=bytes(31)), "a hash in hex": made(dig=TASK.digest().hex()),
        "two that ended alone": made(deaths=2), "deaths that are true": made(deaths=True), "alone as a number": made(alone=1),
        "open as a number": made(is_open=1), "a time that is text": made(at="1"), "one more": made(more=(0,)),
        "one fewer": SignedValue(typ=ATTEMPTS, payload=pack([1, TASK.digest(), 0, False, True])),
    }  # fmt: skip
    return {
        "own": INVENTORY,
        "accept": accept,
        "reject": [
            *_never(made, subject, place(digest("x"))),
            *(_refused(name, subject, one.stored()) for name, one in bad.items()),
        ],
    }


def _failed() -> Json:
    def place(of: bytes) -> str:
        return f"state.inventory.failed.{of.hex()}"

    def made(
        *,
        version: object = 1,
        dig: object = TASK.digest(),
        failed: object = 2,
        at: object = NOW,
        more: tuple[object, ...] = (),
        typ: str = FAILED,
    ) -> SignedValue:
        return SignedValue(typ=typ, payload=pack([version, dig, failed, at, *more]))

    subject = place(TASK.digest())
    accept = _timely(made, subject, {"failed": 2})
    for name, failed in (("the first", 1), ("many", 1_000_000)):
        accept.append({
            "name": name, "subject": subject, "stored": NOW, "value": made(failed=failed).stored().hex(),
            "expect": {"failed": failed},
        })  # fmt: skip
    bad: dict[str, SignedValue] = {
        "of version 2": made(version=2), "of version true": made(version=True), "of another message": made(dig=digest("x")),
        "a hash of 31 bytes": made(dig=bytes(31)), "a hash in hex": made(dig=TASK.digest().hex()),
        "none": made(failed=0), "a number that is true": made(failed=True), "a number that is text": made(failed="2"),
        "a time that is text": made(at="1"), "a time that is true": made(at=True), "one more": made(more=(NOW,)),
        "one fewer": SignedValue(typ=FAILED, payload=pack([1, TASK.digest(), NOW])),
        "of the type of attempts": made(typ=ATTEMPTS),
    }  # fmt: skip
    return {
        "own": INVENTORY,
        "accept": accept,
        "reject": [
            *_never(made, subject, place(digest("x"))),
            *(_refused(name, subject, one.stored()) for name, one in bad.items()),
        ],
    }


def _floors() -> Json:
    def key(stream: str, consumer: str) -> bytes:
        return sha256(pack([stream, consumer])).digest()

    def place(of: bytes) -> str:
        return f"state.inventory.floor.{of.hex()}"

    own = key("TASKS", "inventory")

    def made(
        *,
        version: object = 1,
        dig: object = own,
        created: object = NOW - SECOND,
        floor: object = 41,
        moves: object = 2,
        listened: tuple[object, ...] = (),
        at: object = NOW,
        more: tuple[object, ...] = (),
        typ: str = FLOOR,
    ) -> SignedValue:
        return SignedValue(typ=typ, payload=pack([version, dig, created, floor, moves, *listened, at, *more]))

    subject = place(own)
    accept = _timely(made, subject, {"created": NOW - SECOND, "floor": 41, "moves": 2, "listened": {}})
    for name, floor, moves in (("nothing", 0, 0), ("the greatest", TOP, TOP)):
        accept.append({
            "name": name, "subject": subject, "stored": NOW, "value": made(floor=floor, moves=moves).stored().hex(),
            "expect": {"created": NOW - SECOND, "floor": floor, "moves": moves, "listened": {}},
        })  # fmt: skip
    events: list[tuple[str, dict[str, Json]]] = [
        ("one event", {"event.pricing.changed": NOW // SECOND}),
        ("all that there may be", {f"event.pricing.e{number:03}": number for number in range(512)}),
    ]
    for name, listened in events:
        flat = tuple(part for pair in listened.items() for part in pair)
        accept.append({
            "name": name, "subject": subject, "stored": NOW, "value": made(listened=flat).stored().hex(),
            "expect": {"created": NOW - SECOND, "floor": 41, "moves": 2, "listened": listened},
        })  # fmt: skip
    bad: dict[str, SignedValue] = {
        "of version 2": made(version=2), "of version true": made(version=True),
        "of another consumer": made(dig=key("TASKS", "id-ctl-inventory")),
        "of another stream": made(dig=key("AUDIT", "inventory")),
        "a hash of 31 bytes": made(dig=bytes(31)), "a hash in hex": made(dig=own.hex()),
        "a creation that is text": made(created="1"), "a floor that is true": made(floor=True),
        "a floor that is text": made(floor="2"),
        "moves that are true": made(moves=True), "a time that is text": made(at="1"), "a time that is true": made(at=True),
        "one more": made(more=(NOW,)), "an event without its time": made(listened=("event.pricing.changed",)),
        "an event whose time is text": made(listened=("event.pricing.changed", "1")),
        "an event whose time is true": made(listened=("event.pricing.changed", True)),
        "a time without its event": made(listened=(1,)), "a number in the place of an event": made(listened=(1, 1)),
        "an event twice": made(listened=("event.pricing.changed", 1, "event.pricing.changed", 2)),
        "more events than there may be": made(
            listened=tuple(part for number in range(513) for part in (f"event.pricing.e{number:03}", number))),
        "one fewer": SignedValue(typ=FLOOR, payload=pack([1, own, NOW, 41, NOW])),
        "of the type of failed attempts": made(typ=FAILED),
    }  # fmt: skip
    return {
        "own": INVENTORY,
        "stream": "TASKS",
        "consumer": "inventory",
        "accept": accept,
        "reject": [
            *_never(made, subject, place(key("TASKS", "pricing"))),
            *(_refused(name, subject, one.stored()) for name, one in bad.items()),
        ],
    }
