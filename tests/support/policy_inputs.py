"""Input documents for policies, made from a seed: well formed as the gate makes them, and broken past that border.

They speak of the starter policy's own registry (policies/rego/sealbus/registry) with `REVOKED` and others' users
put in, so that every rule decides both ways. The same seed gives the same documents.
"""

from __future__ import annotations

import datetime
import json
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TypeAlias

from sealbus.envelopes.encoding.strict_json import Json
from sealbus.policies.bundle.files import STARTER
from sealbus.policies.decision.approval import approval_question
from sealbus.policies.decision.request import (
    NOT_PARKED,
    Caller,
    GivenApproval,
    Parked,
    Request,
    Resource,
    User,
    input_document,
)

__all__ = [
    "REVOKED",
    "SEED",
    "approval_questions",
    "closed_policy",
    "mutated",
    "mutated_questions",
    "starter_with_revocations",
    "well_formed",
]

SEED = 20261124

REVOKED = {
    "agents": {"spiffe://example.org/agent/planner-old": True, "spiffe://example.org/agent/pricing": False},
    "users": {"dave": {"since": "2026-11-24T09:00:00Z"}},
    "sessions": {"s-13": True},
    "clients": {"kiosk": True, "app": False},
}
"""Takes the place of the starter policy's empty `revoked`. planner-old is no agent; false revokes nothing."""

Steps: TypeAlias = "tuple[str | int, ...]"

_AGENTS = {
    "spiffe://example.org/edge": ("inventory.read", "inventory.update", "planner.plan", "payments.pay", "payments.pay"),
    "spiffe://example.org/agent/shop-web": ("inventory.read", "inventory.update", "planner.plan", "pricing.quote"),
    "spiffe://example.org/agent/planner": ("inventory.read", "inventory.update", "planner.planned", "pricing.quote"),
    "spiffe://example.org/agent/inventory": ("inventory.low_stock", "inventory.update.reply", "pricing.quote"),
    "spiffe://example.org/agent/pricing": ("inventory.read", "pricing.changed", "pricing.quote.reply"),
}
_STRANGERS = (
    "spiffe://example.org/agent/stranger",
    "spiffe://example.org/agent/planner-old",
    "spiffe://example.com/agent/planner",
    "spiffe://example.org/agent/planner/",
)
_ACTIONS = (
    *("inventory.read", "inventory.update", "inventory.update", "inventory.low_stock", "planner.plan"),
    *("payments.pay", "pricing.quote", "pricing.quote.reply", "inventory.drop", "constructor", ""),
)
_OTHERS = (
    ("mia@partner.example", "user", "partner.example"),
    ("alice@partner.example", "user", "partner.example"),
    ("reports", "client", ""),
    ("carol", "client", ""),
    ("repo:acme/shop@ci.example", "workload", "ci.example"),
    ("bob", "", ""),
)
_KNOWN_OTHERS = {
    "mia@partner.example": {"customers": {"acme": True}},
    "reports": {"type": "client", "customers": {"globex": True}},
    "repo:acme/shop@ci.example": {"type": "workload", "customers": {}},
}
_OWNERS = ("alice", "bob", "carol", "dave")
_CUSTOMERS = ("acme", "globex", "initech")
_REGIONS = ("always", "eu", "india", "us-east")
_MONDAY = int(datetime.datetime(2026, 11, 23, tzinfo=datetime.UTC).timestamp())
_NUMBERS = (0, 1, 3, 19, 20, 21, 99, 100, 101, -1, -100, 2**53 - 1, -(2**53) + 1)
_ODD: tuple[bool | str | list[str], ...] = (True, False, "3", "", "100", [], ["3"])


_CLOSED = """package sealbus.authz

decision := decide(input)

batch := [decide(request) | some request in input.batch]

decide(_) := {"allow": false, "reasons": [], "obligations": [], "policy": "closed"}
"""


def starter_with_revocations(folder: Path) -> Path:
    """Copy the starter policy to a new `folder`, with `REVOKED` and other users in its registry; return `folder`."""
    shutil.copytree(STARTER, folder)
    (folder / "sealbus" / "registry" / "revoked" / "data.json").write_text(json.dumps(REVOKED))
    users = folder / "sealbus" / "registry" / "users" / "data.json"
    users.write_text(json.dumps(json.loads(users.read_text()) | _KNOWN_OTHERS))
    return folder


def closed_policy(folder: Path) -> Path:
    """Copy the starter policy to a new `folder`, its rules replaced by one that denies everything; return `folder`."""
    starter_with_revocations(folder)
    for rules in (folder / "sealbus" / "authz").iterdir():
        rules.unlink()
    (folder / "sealbus" / "authz" / "closed.rego").write_text(_CLOSED)
    return folder


def well_formed(count: int, seed: int = SEED) -> list[bytes]:
    """Return `count` documents as `input_document` makes them; the starter policy allows over a quarter."""
    chance = random.Random(seed)  # noqa: S311  the same documents each time
    return [input_document(_request(chance, number)) for number in range(count)]


def approval_questions(count: int, seed: int = SEED) -> list[bytes]:
    """Return `count` questions as `approval_question` makes them; the starter policy allows over a quarter."""
    chance = random.Random(seed + 3)  # noqa: S311  the same documents each time
    return [_approval(chance, number) for number in range(count)]


def mutated_questions(count: int, seed: int = SEED) -> list[bytes]:
    """Return `count` questions that are not as they should be, as `mutated` does for documents."""
    chance = random.Random(seed + 4)  # noqa: S311  the same documents each time
    asked = approval_questions(count, seed + 2)
    return [json.dumps(_broken(chance, json.loads(document))).encode() for document in asked]


def mutated(count: int, seed: int = SEED) -> list[bytes]:
    """Return `count` JSON objects that no gate would make: well-formed documents with one to three things wrong."""
    chance = random.Random(seed + 1)  # noqa: S311  the same documents each time
    return [json.dumps(_broken(chance, json.loads(document))).encode() for document in well_formed(count, seed + 2)]


def _mostly(chance: random.Random, right: str, wrong: tuple[str, ...], share: float = 0.9) -> str:
    return right if chance.random() < share else chance.choice(wrong)


def _request(chance: random.Random, number: int) -> Request:
    caller = _mostly(chance, chance.choice(list(_AGENTS)), _STRANGERS, 0.95)
    action = _mostly(chance, chance.choice(_AGENTS.get(caller, _ACTIONS)), _ACTIONS)
    between = [_mostly(chance, chance.choice(list(_AGENTS)), _STRANGERS, 0.97) for _ in range(chance.randrange(3))]
    chain = (*between, caller) if chance.random() < 0.97 else tuple(between)
    user = _user(chance)
    properties = _properties(chance)
    given = chance.choice((0, 0, 0, 1, 2))
    if chance.random() < 0.2:
        given = chance.choice((0, 1, 2, 2, 3))
        caller, action, chain = "spiffe://example.org/edge", "payments.pay", ("spiffe://example.org/edge",)
        properties["amount"] = chance.choice((100_001, 250_000, 1_000_000, 1_000_001))
    return Request(
        action=action,
        properties=properties,
        resource=_resource(chance, user),
        time=_time(chance),
        nats_subject=f"task.{action}",
        kind=chance.choice(("task", "call", "event", "reply")),
        message_id=f"{number:032x}",
        delivery=chance.randint(1, 5),
        caller=Caller(
            subject=caller,
            trust_domain="example.org",
            tenant=chance.choice(("", "acme")),
            user=user,
            chain=chain,
            grant=chance.choice((None, (), ("inventory.*", "pricing.quote"))),
        ),
        approvals=tuple(_given(chance, user) for _ in range(given)),
        parked=chance.choice((NOT_PARKED, Parked(since="2026-11-23T08:00:00Z", revision="r1"))),
    )


def _approval(chance: random.Random, number: int) -> bytes:
    of = _request(chance, number)
    edge = _mostly(chance, "spiffe://example.org/edge", _STRANGERS, 0.95)
    user = _user(chance)
    if chance.random() < 0.8:
        managers = {"acme": "bob", "globex": "carol"}
        manager = managers.get(str(of.resource.properties.get("customer")), "bob")
        user = User(
            id=manager, idp="https://idp.example.org", session="s-2", client=_mostly(chance, "desk", ("kiosk",))
        )
    verdict = _mostly(chance, chance.choice(("view", "approve", "deny", "withdraw")), ("", "run", "Approve"), 0.95)
    asked = Request(
        caller=Caller(
            subject=edge, trust_domain="example.org", user=user, chain=(edge,) if chance.random() < 0.97 else ()
        ),
        action="payments._approve",
        properties={"verdict": verdict, "note": ""},
        resource=Resource(type="task", id=f"{number:064x}"),
        time=_time(chance),
        nats_subject="control.payments.approve",
        kind="task",
        message_id=f"{number:032x}",
    )
    obligation = {"type": "approval", "queue": "managers", "text": "Pay", "until": 604_800, "acr": ["mfa"]}
    return approval_question(input_document(asked), of=input_document(of), obligation=json.dumps(obligation).encode())


def _given(chance: random.Random, user: User) -> GivenApproval:
    return GivenApproval(
        verdict=_mostly(chance, "approve", ("deny",), 0.95),
        user=_mostly(chance, chance.choice(_OWNERS[1:3]), (user.id, "dave", "eve", "reports", ""), 0.8),
        idp="https://idp.example.org",
        session=_mostly(chance, "s-2", ("s-13", ""), 0.95),
        client=_mostly(chance, "desk", ("kiosk", "app", ""), 0.95),
        acr="urn:example:silver",
        auth_time=1_795_500_000,
        time=1_795_528_800_000_000,
        message=chance.randbytes(32),
        record=chance.randbytes(32),
    )


def _user(chance: random.Random) -> User:
    if chance.random() < 0.1:
        return User(present=False, type="")
    draw = chance.random()
    if draw < 0.1:
        id_, type_, domain = chance.choice(_OTHERS)
        return User(id=id_, idp="https://idp.partner.example", client="shop", type=type_, domain=domain)
    return User(
        id=_mostly(chance, chance.choice(_OWNERS[:3]), ("dave", "eve", "", "Alice", "ålice\u202e", "__proto__")),
        idp="https://idp.example.org",
        session=_mostly(chance, "s-1", ("s-13", "")),
        txn=f"{chance.getrandbits(128):032x}",
        client=_mostly(chance, "shop", ("kiosk", "app", "")),
        scope=("orders", "profile"),
        claims={"department": "sales", "level": 3, "groups": ["a", "b"]},
        acr="urn:example:mfa",
        auth_time=1_795_500_000,
    )


def _resource(chance: random.Random, user: User) -> Resource:
    if chance.random() < 0.05:
        return Resource(type="", id="")
    properties: dict[str, object] = {
        "owner": _mostly(chance, user.id, (*_OWNERS, ""), 0.5),
        "customer": chance.choice(_CUSTOMERS),
        "region": _mostly(chance, chance.choice(_REGIONS), ("frozen", "atlantis", "", "eu ")),
    }
    if chance.random() < 0.05:
        del properties[chance.choice(list(properties))]
    if chance.random() < 0.05:
        properties[chance.choice(("owner", "customer", "region"))] = chance.choice(_ODD)
    id_ = _mostly(chance, str(chance.randrange(100)), ("7, for carol", "7:", "", "ä", "x" * 256, "A-7:b/c@d.e_f+g=h|i"))
    return Resource(type="item", id=id_, properties=properties)


def _properties(chance: random.Random) -> dict[str, object]:
    found: dict[str, object] = {"quantity": chance.randint(0, 100), "items": chance.randint(0, 20)}
    found["amount"] = chance.choice((0, 99_999, 100_000, 100_001, 250_000, 999_999, 1_000_000, 1_000_001, -1, "250000"))
    draw = chance.random()
    if draw < 0.15:
        found[chance.choice(("quantity", "items"))] = chance.choice(_NUMBERS)
    elif draw < 0.2:
        found[chance.choice(("quantity", "items"))] = chance.choice(_ODD)
    elif draw < 0.25:
        del found[chance.choice(("quantity", "items"))]
    return found


def _time(chance: random.Random) -> int:
    """Return an instant of one week in microseconds, mostly in some region's hours or at their very edge."""
    day = chance.randrange(5) if chance.random() < 0.85 else chance.randrange(7)
    draw = chance.random()
    if draw < 0.6:
        second = chance.randrange(9 * 3_600, 16 * 3_600)
    elif draw < 0.85:
        second = chance.choice((7, 17, 14, 22, 4, 13)) * 3_600 + chance.choice((-1, 0, 1))
    else:
        second = chance.randrange(86_400)
    return (_MONDAY + day * 86_400 + second) * 1_000_000


def _broken(chance: random.Random, document: dict[str, Json]) -> Json:
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        draw = chance.random()
        if draw < 0.15:
            _distrust(chance, document)
        elif draw < 0.25:
            _add(chance, document)
        else:
            _replace(chance, document)
    return document


def _distrust(chance: random.Random, document: dict[str, Json]) -> None:
    """Put something that is no known agent into the chain, or make the chain something else."""
    context = document.get("context")
    if not isinstance(context, dict):
        return
    chain = context.get("chain")
    known = "spiffe://example.org/edge"
    if isinstance(chain, list) and chance.random() < 0.8:
        hops: list[Json] = [*_STRANGERS, None, True, 0, 1, "", [], {}, [known]]
        chain.insert(chance.randrange(len(chain) + 1), chance.choice(hops))
    else:
        chains: list[Json] = ["", known, {}, {known: known}, {"0": known}, [chain], None, 0, [[]]]
        context["chain"] = chance.choice(chains)


def _add(chance: random.Random, document: dict[str, Json]) -> None:
    inside = [at for steps in _paths(document) if isinstance(at := _at(document, steps), dict)]
    chance.choice([document, *inside])[chance.choice(("allow", "owner", "present", "0", ""))] = _value(chance)


def _replace(chance: random.Random, document: dict[str, Json]) -> None:
    """Remove something, or put a value of another type in its place."""
    *before, last = chance.choice(list(_paths(document)) or [("v",)])
    place = _at(document, tuple(before))
    if isinstance(place, list) and isinstance(last, int):
        place[last] = _value(chance)
    elif isinstance(place, dict) and isinstance(last, str):
        if chance.random() < 0.35:
            place.pop(last, None)
        else:
            place[last] = _value(chance)


def _value(chance: random.Random) -> Json:
    values: list[Json] = [None, None, True, False, 0, 1, -1, "", "alice", "2026-11-24", [], {}, ["alice"], {"id": "a"}]
    return chance.choice(values)


def _paths(value: Json, before: Steps = ()) -> Iterator[Steps]:
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for step, below in inside:
        yield (*before, step)
        yield from _paths(below, (*before, step))


def _at(value: Json, steps: Steps) -> Json:
    for step in steps:
        if isinstance(value, dict):
            value = value[str(step)]
        elif isinstance(value, list) and isinstance(step, int):
            value = value[step]
    return value
