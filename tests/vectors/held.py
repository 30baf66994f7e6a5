"""Vectors of what agents keep in HELD: what is genuine, what counts, and what it says (SPEC.md section 7, "HELD")."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from hashlib import sha256

from vectors.control_bodies import A_SCHEDULE, SCHEDULE, SHORT
from vectors.issuing import BROKER, EDGE, HOUR, INVENTORY, NOW, PLANNER, PRICING, SECOND, Json, party
from vectors.recorded import core, decision, record_map
from vectors.state import stop_entries
from vectors.stored import SignedValue, digest, expired_party, packed, pieces
from vectors.world import Message

from sealbus.envelopes.encoding.codec import Value, pack
from sealbus.envelopes.trust.merkle import leaf_hash

__all__ = ["held"]

DAY = 24 * HOUR
KEPT, MARKER = "application/vnd.sealbus.kept-stop.v1", "application/vnd.sealbus.parked-marker.v1"
PARKED, KEYS = "application/vnd.sealbus.parked.v1", "application/vnd.sealbus.keys.v1"
PLAN = "application/vnd.sealbus.held-schedule.v1"
TASK = Message()
STOP_PLACE = f"held.inventory.stop.{TASK.digest().hex()}.planner"


def held() -> Json:
    """Return the whole file."""
    return {
        "values": _values(),
        "series": _series(),
        "kept_stops": _kept_stops(),
        "markers": _markers(),
        "parked": _parked(),
        "key_books": _key_books(),
        "past": _past(),
        "schedules": _schedules(),
    }


@dataclass(frozen=True, kw_only=True)
class Held:
    """A value in HELD in the making: the inventory's first version at `subject`, with these `keys` besides those of all."""

    subject: str
    typ: str
    keys: Mapping[str, object]
    extra: bytes = b""

    def signed(self, **changes: object) -> SignedValue:
        """Return the signed value; `changes` are of keys, and one that is None is left out."""
        entries: dict[str, object] = {
            "v": 1, "own": INVENTORY, "sub": self.subject, "n": 1, "at": NOW, "ext": sha256(self.extra).digest(),
        }  # fmt: skip
        return SignedValue(typ=self.typ, entries=entries | dict(self.keys) | changes, extra=self.extra)

    def case(self, name: str, expect: Mapping[str, object] | None = None, **changes: object) -> Json:
        """Return a value that was stored at once, with what is to be found of its own keys."""
        found = self.keys if expect is None else expect
        shown = {key: _shown(one) for key, one in found.items()}
        return {**self.refused(name, **changes), "expect": shown}

    def refused(self, name: str, **changes: object) -> dict[str, Json]:
        """Return a value that was stored at once."""
        return _stored(name, self.subject, self.signed(**changes).stored())


def _shown(value: object) -> Json:
    if isinstance(value, bytes):
        return pieces(value)
    if isinstance(value, list):
        return [_shown(one) for one in value]
    return value  # type: ignore[return-value]


def _stored(name: str, subject: str, value: bytes, stored: int = NOW) -> dict[str, Json]:
    return {"name": name, "subject": subject, "stored": stored, "value": pieces(value)}


def _kept(of: Message = TASK, **changes: object) -> Held:
    entries = {key: value for key, value in stop_entries().items() if key not in ("v", "own", "at")}
    keys = entries | {"dig": of.digest(), "mad": NOW} | changes
    return Held(subject=f"held.inventory.stop.{of.digest().hex()}.planner", typ=KEPT, keys=keys)


def _values() -> Json:
    """Return values that are genuine and that are not, whatever they are for: here they are kept stops."""
    good = _kept()
    value, subject = good.signed(), good.subject
    revoked: dict[str, Json] = {INVENTORY: NOW}
    accept: list[Json] = []
    for name, stored, changes, extra in (
        ("stored at once", 0, {}, b""),
        ("stored 5 s before", -5 * SECOND, {}, b""),
        ("stored 60 s after", 60 * SECOND, {}, b""),
        ("of a high number", 0, {"n": 2**53 - 1}, b""),
        ("with more that is not signed", 0, {}, b"more"),
        ("as large as may be", 0, {}, bytes(915_000)),
    ):
        made = replace(good, extra=extra).signed(**changes)
        case = _stored(name, subject, made.stored(), NOW + stored)
        accept.append({**case, "n": changes.get("n", 1), "extra": pieces(extra)})
    padding: list[Value] = [b""] * 2_049
    bad: dict[str, dict[str, object]] = {
        "of version 2": {"v": 2}, "number 0": {"n": 0}, "without a number": {"n": None}, "without an owner": {"own": None},
        "of another subject": {"sub": STOP_PLACE[:-1]}, "without a subject": {"sub": None},
        "of another agent": {"own": PRICING},
        "an owner that is none": {"own": "inventory"}, "another hash of nothing": {"ext": digest("")[::-1]},
        "without the hash of nothing": {"ext": None}, "a time that is text": {"at": "1"},
        "2,049 items in an array": {"x": padding}, "a text of 2,049 bytes": {"x": "a" * 2_049},
    }  # fmt: skip
    return {
        "type": KEPT,
        "accept": accept,
        "reject": [
            *(_stored(name, subject, raw) for name, raw in value.misshapen().items()),
            _stored("stored too early", subject, value.stored(), NOW - 5 * SECOND - 1),
            _stored("stored too late", subject, value.stored(), NOW + 60 * SECOND + 1),
            _stored("in another place", STOP_PLACE + "2", value.stored()),
            _stored("at another agent's", STOP_PLACE.replace("inventory", "pricing"), value.stored()),
            _stored("signed by another", subject, replace(value, sender=party(PLANNER)).stored()),
            _stored("under an expired credential", subject, replace(value, sender=expired_party(INVENTORY)).stored()),
            {**_stored("under a revoked credential", subject, value.stored()), "revoked_before": revoked},
            {**_stored("under a key that is not in the bundle", subject, value.stored()), "bundles": "rotated"},
            *(good.refused(name, **changes) for name, changes in bad.items()),
            _stored("another extra", subject, pack([*value.parts()[:4], b"other"])),
            _stored("of another type", subject, replace(value, typ=MARKER).stored()),
            _stored("another's, by its own key", subject, _of(PRICING, good).stored()),
            _stored("over 917,504 bytes", subject, replace(good, extra=bytes(917_504)).signed().stored()),
            _stored("a payload of over 524,288 bytes", subject, good.signed(x=bytes(524_288)).stored()),
        ],
    }


def _of(own: str, value: Held) -> SignedValue:
    return replace(value.signed(own=own), sender=party(own))


def _series() -> Json:
    """Return what was stored under one subject in this order, a second apart, and which of it counts."""
    good, other = _kept(), _kept(rsn="another")

    def made(number: int, seconds: int = 0, of: Held = good) -> bytes:
        return of.signed(n=number, at=NOW + seconds * SECOND).stored()

    forged = replace(good.signed(n=9), sender=party(PLANNER)).stored()
    cases: dict[str, tuple[list[bytes], int | None]] = {
        "nothing": ([], None),
        "the highest number": ([made(1), made(2, 1), made(3, 2)], 2),
        "an older one that was stored again": ([made(1), made(2, 1), made(1)], 1),
        "numbers with gaps": ([made(1), made(7, 1)], 1),
        "the first of one number": ([made(1), made(1, 1, other)], 0),
        "a lower number that is younger": ([made(5), made(4, 1, other)], 0),
        "before what is not genuine": ([made(1), forged], 0),
        "behind what is not genuine": ([forged, made(1, 1)], 1),
        "only what is not genuine": ([forged, b"bytes", b""], None),
        "bytes of others in between": ([made(1), b"bytes", made(2, 2), b""], 2),
    }
    return [
        {"name": name, "subject": good.subject, "type": KEPT, "values": [raw.hex() for raw in raws], "counts": counts}
        for name, (raws, counts) in cases.items()
    ]


def _kept_stops() -> Json:
    operator = _kept(rol="operator", rsn="Übereilt", by=EDGE)
    bad: dict[str, dict[str, object]] = {
        "another hash than its place": {"dig": digest("x")}, "another role": {"rol": "owner"},
        "without its time": {"mad": None},
        "an action that covers others": {"act": "inventory.*"}, "one key more": {"x": 1}, "nobody": {"by": "planner"},
        "a long reason": {"rsn": "a" * 257}, "a cancel of 31 bytes": {"can": bytes(31)}, "without an end": {"end": None},
    }  # fmt: skip
    return {
        "accept": [_kept().case("as a requester"), operator.case("as an operator")],
        "reject": [_kept().refused(name, **changes) for name, changes in bad.items()],
    }


def _markers() -> Json:
    subject = f"held.inventory.wait.planner.{TASK.entries()['id'].hex()}"  # type: ignore[attr-defined]
    marker = Held(subject=subject, typ=MARKER, keys={"dig": TASK.digest(), "unt": NOW + DAY, "end": False})
    bad: dict[str, dict[str, object]] = {
        "of another message": {"dig": digest("x")}, "without an end": {"end": None}, "an end that is a number": {"end": 0},
        "without a time": {"unt": None}, "a time that is text": {"unt": "1"}, "one key more": {"x": 1},
        "a hash in hex": {"dig": TASK.digest().hex()},
    }  # fmt: skip
    return {
        "task": TASK.raw().hex(),
        "accept": [
            marker.case("it waits"),
            replace(marker, keys=dict(marker.keys) | {"end": True, "unt": 0}).case("it has ended"),
        ],
        "reject": [marker.refused(name, **changes) for name, changes in bad.items()],
    }


OBLIGATION: dict[str, Json] = {"type": "approval", "queue": "managers", "text": "Update item 42", "until": 86_400}


def _denied(obligations: list[Json] | bytes, message: Message = TASK, **changes: Value) -> bytes:
    obl = obligations if isinstance(obligations, bytes) else json.dumps(obligations).encode()
    entries: dict[str, Value] = {"alw": False, "cod": "denied", "obl": obl}
    return decision(message, **(entries | changes))


def verdict(**changes: object) -> bytes:
    """Return one verdict that counts."""
    return packed(
        {
            "v": 1, "vrd": "approve", "usr": "u-2", "idp": "https://idp.example", "sid": "s-2", "cid": "web", "acr": "",
            "aut": 0,
            "tim": NOW, "msg": digest("an approval"), "rec": digest("its decision"), "edg": EDGE, "iss": NOW - SECOND,
        }
        | changes
    )  # fmt: skip


def _parked_task(record: bytes, *, queue: str = "managers", of: Message = TASK, **keys: object) -> Held:
    own: dict[str, object] = {
        "que": queue, "dig": of.digest(), "rec": record, "snc": NOW, "unt": NOW + DAY, "sta": "waiting", "trn": 0, "run": b"",
    }  # fmt: skip
    subject = f"held.inventory.task.{queue}.{of.digest().hex()}"
    return Held(subject=subject, typ=PARKED, keys=own | keys, extra=of.payload())


def _parked() -> Json:
    record = _denied([OBLIGATION])
    plain = _parked_task(record)
    full: dict[str, Json] = OBLIGATION | {
        "count": 1, "acr": ["urn:example:silver"], "max_age": 300, "follows": ["ledger.post", "a.*"], "body": False,
    }  # fmt: skip
    all_kinds = [verdict(vrd=kind, usr=f"u-{number}") for number, kind in enumerate(("approve", "deny", "withdraw"))]
    accept = [
        plain.case("it waits"),
        _parked_task(record, sta="running", trn=1, run=digest("an approval"), apr=[verdict()]).case("it runs"),
        _parked_task(record, sta="ended", trn=2, run=digest("x"), apr=all_kinds).case("it has ended"),
        _parked_task(record, apr=[verdict(usr=f"u-{number}") for number in range(16)]).case("16 verdicts"),
        _parked_task(_denied([full, {"type": "show_reasons"}])).case("all that may be asked for"),
        _parked_task(_denied([OBLIGATION | {"queue": "a" * 64}]), queue="a" * 64).case("the longest queue"),
    ]
    bad: dict[str, dict[str, object]] = {
        "in another queue": {"que": "others"}, "of another message": {"dig": digest("x")},
        "in another state": {"sta": "lost"},
        "without a state": {"sta": None}, "a turn that is text": {"trn": "1"}, "without a turn": {"trn": None},
        "without run": {"run": None}, "without until": {"unt": None}, "without since": {"snc": None},
        "one key more": {"x": 1},
        "no record": {"rec": b""}, "an outcome": {"rec": record_map("outcome", dec=bytes(32), suc=True, mic=0, dlv=1)},
        "allowed": {"rec": decision(TASK, obl=json.dumps([OBLIGATION]).encode())},
        "about a call": {"rec": core(TASK, alw=False, cod="denied", obl=json.dumps([OBLIGATION]).encode())},
        "about another message": {"rec": _denied([OBLIGATION], Message(fields={"to": "task.inventory.read"}))},
        "nothing asked for": {"rec": _denied([])}, "two approvals": {"rec": _denied([OBLIGATION, OBLIGATION])},
        "obligations that are no JSON": {"rec": _denied(b"[")}, "obligations that are no array": {"rec": _denied(b"{}")},
        "an obligation that is no object": {"rec": _denied([OBLIGATION, "x"])},
        "a header that is none": {"rec": _denied([OBLIGATION], hdr=b"\x80")},
        "no verdicts in an array": {"apr": []}, "17 verdicts": {"apr": [verdict(usr=f"u-{number}") for number in range(17)]},
        "a verdict that is text": {"apr": ["approve"]}, "a verdict that is none": {"apr": [b""]},
    }  # fmt: skip
    asked: dict[str, dict[str, Json]] = {
        "a member more": {"more": 1}, "another queue": {"queue": "a.b"}, "a long queue": {"queue": "a" * 65},
        "no text": {"text": ""},
        "a long text": {"text": "a" * 257}, "no time": {"until": 0}, "over 30 days": {"until": 2_592_001},
        "two": {"count": 2},
        "an age of null": {"max_age": None}, "a negative age": {"max_age": -1}, "acr in a text": {"acr": "silver"},
        "acr with a space": {"acr": ["a b"]}, "what follows in a text": {"follows": "a"},
        "what may not follow": {"follows": ["*"]},
        "a body of 1": {"body": 1}, "true days": {"until": True},
    }  # fmt: skip
    verdicts: dict[str, dict[str, object]] = {
        "of version 2": {"v": 2}, "of another word": {"vrd": "maybe"}, "a message of 31 bytes": {"msg": bytes(31)},
        "a record of 33 bytes": {"rec": bytes(33)}, "a long user": {"usr": "u" * 257}, "no edge": {"edg": "edge"},
        "without a time": {"tim": None}, "a login that is text": {"aut": ""}, "one key more": {"x": 1},
        "no issue": {"iss": None},
    }  # fmt: skip
    reject = [plain.refused(name, **changes) for name, changes in bad.items()]
    reject += [
        plain.refused(f"an obligation: {name}", rec=_denied([OBLIGATION | changes])) for name, changes in asked.items()
    ]
    reject += [plain.refused(f"a verdict: {name}", apr=[verdict(**changes)]) for name, changes in verdicts.items()]
    reject.append(
        _stored(
            "a task for another agent",
            f"held.pricing.task.managers.{TASK.digest().hex()}",
            _of(PRICING, replace(plain, subject=f"held.pricing.task.managers.{TASK.digest().hex()}")).stored(),
        )
    )
    return {
        "verdict": {"raw": verdict().hex(), "leaf": leaf_hash(record).hex()},
        "accept": list[Json](accept),
        "reject": list[Json](reject),
    }


def _jwks(kid: str) -> bytes:
    return b'{"keys":[{"kty":"oct","kid":"%b","use":"other"}]}' % kid.encode()


def _bundle(domain: str, current: int, kid: str) -> bytes:
    return record_map("bundle", dom=domain, cur=current, jwt=_jwks(kid))


def _key_books() -> Json:
    one, two = _bundle("example.org", NOW - DAY, "1"), _bundle("example.org", NOW, "2")
    other = _bundle("partner.example", NOW, "1")
    line = f"TASKS {NOW - DAY} {NOW} 7"
    subject = "held.inventory.keys"
    book = Held(subject=subject, typ=KEYS, keys={"rec": [one, two, other]})
    with_certificate = record_map("bundle", dom="example.org", cur=NOW, jwt=_jwks("1"), x5c=[b"certificate"])
    broken = record_map("bundle", dom="example.org", cur=NOW, jwt=b'{"keys":[{"use":"jwt-svid"}]}')
    bad: dict[str, dict[str, object]] = {
        "no records": {"rec": None}, "an empty array": {"rec": []}, "a record twice": {"rec": [one, two, one]},
        "another record": {"rec": [one, record_map("checkpoint", **{"not": b"note"})]}, "no record": {"rec": [b""]},
        "with a certificate": {"rec": [with_certificate]}, "a bundle that is refused": {"rec": [one, broken]},
        "one key more": {"x": 1}, "a record that is text": {"rec": ["x"]}, "no array": {"rec": one},
        "no restored streams": {"rst": []}, "257 restored streams": {"rst": [line] * 257},
        "a line of bytes": {"rst": [line.encode()]},
        "a stream restored before it was created": {"rst": ["TASKS 2 1 7"]},
        "a line with a word more": {"rst": [line + " 1"]},
        "a line with two spaces": {"rst": ["TASKS  1 2 3"]}, "a number with a zero before it": {"rst": ["TASKS 1 02 3"]},
        "a stream without a name": {"rst": [" 1 2 3"]},
    }  # fmt: skip
    return {
        "accept": [
            book.case("three bundles"),
            replace(book, keys={"rec": [other]}).case("one"),
            replace(book, keys={"rec": [two, other, one]}).case("in another order"),
            replace(book, keys={"rec": [one], "rst": [line]}).case("a restored stream"),
            replace(book, keys={"rec": [one], "rst": [line] * 256}).case("256 restored streams"),
        ],
        "reject": [book.refused(name, **changes) for name, changes in bad.items()],
    }


def _past() -> Json:
    """Return which bundles of a key book a value of a time is judged by: of each trust domain, by their hashes."""
    times = {"1": NOW - 2 * DAY, "2": NOW - DAY, "3": NOW}
    records = [_bundle("example.org", time, kid) for kid, time in times.items()]
    records.append(_bundle("partner.example", NOW - DAY, "p"))
    cases: list[Json] = []
    for time, sets in (
        (0, ["1", "2"]),
        (NOW - 2 * DAY - 1, ["1", "2"]),
        (NOW - 2 * DAY, ["1", "2"]),
        (NOW - DAY - 1, ["1", "2"]),
        (NOW - DAY, ["2", "3"]),
        (NOW - 1, ["2", "3"]),
        (NOW, ["3"]),
        (NOW + DAY, ["3"]),
    ):
        shown: list[Json] = [
            {
                "example.org": sha256(_jwks(kid)).hexdigest(),
                "partner.example": sha256(_jwks("p")).hexdigest(),
            }
            for kid in sets
        ]
        cases.append({"time": time, "bundles": shown})
    return {"records": [record.hex() for record in records], "cases": cases}


def _schedules() -> Json:
    body = json.dumps(A_SCHEDULE, separators=(",", ":")).encode()
    keys: dict[str, object] = {
        "sta": "on", "typ": SCHEDULE, "gdig": digest("a grant"), "giss": PLANNER, "gisu": NOW - SECOND,
        "cdig": digest("a change"),
        "ciss": BROKER, "cisu": NOW, "sto": NOW, "seq": 7, "snc": NOW,
    }  # fmt: skip
    good = Held(subject="held.inventory.schedule.nightly", typ=PLAN, keys=keys, extra=body)
    bad: dict[str, dict[str, object]] = {
        "in another state": {"sta": "over"}, "of another type": {"typ": "application/json"},
        "without its grant": {"gdig": None},
        "by nobody": {"giss": "planner"}, "one key more": {"x": 1}, "a context that is text": {"ctx": "x"},
        "no place": {"seq": None},
        "without since": {"snc": None}, "a change by nobody": {"ciss": ""}, "without an issue": {"cisu": None},
    }  # fmt: skip
    short = json.dumps(SHORT).encode()
    return {
        "accept": [
            good.case("on"),
            replace(good, keys=keys | {"sta": "paused"}).case("paused"),
            replace(good, keys=keys | {"sta": "removed"}).case("removed"),
            replace(good, keys=keys | {"ctx": b"payload"}).case("for a user"),
        ],
        "reject": [
            *(good.refused(name, **changes) for name, changes in bad.items()),
            replace(good, extra=short).refused("a body that says only a state"),
            replace(good, extra=b"{}").refused("a body that is none"),
            replace(good, subject="held.inventory.schedule.daily").refused("of another name than its body's"),
        ],
    }
