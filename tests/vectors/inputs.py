"""Vectors of input documents: the question about a message, and what no engine is asked (SPEC.md section 7)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import NamedTuple

from vectors.issuing import BROKER, EDGE, MINUTE, NOW, PLANNER, SECOND, Json, party
from vectors.stored import digest
from vectors.world import Message, context, message_id

__all__ = ["inputs"]

TIME = "2025-11-24T16:00:01Z"
NOBODY: dict[str, Json] = {
    "present": False, "id": "", "idp": "", "session": "", "txn": "", "client": "", "scope": [], "claims": {}, "acr": "",
    "auth_time": 0, "type": "", "domain": "",
}  # fmt: skip
SOMEBODY: dict[str, Json] = {
    "present": True, "id": "u-1001", "idp": "https://idp.example", "session": "s-1", "txn": bytes(range(16)).hex(),
    "client": "web", "scope": ["inventory"],
    "claims": {"department": "sales", "groups": ["a", "b"], "level": -3, "staff": True}, "acr": "", "auth_time": 0,
    "type": "user", "domain": "",
}  # fmt: skip
APPROVAL: dict[str, Json] = {
    "verdict": "approve", "user": "u-2", "idp": "https://idp.example", "session": "s-2", "client": "web", "acr": "silver",
    "auth_time": NOW // SECOND, "time": TIME, "message": digest("an approval").hex(), "record": digest("its record").hex(),
}  # fmt: skip


class Asked(NamedTuple):
    """What a decision is asked about: a message with its chain, and what the handler adds."""

    chain: tuple[Message, ...]
    properties: Mapping[str, Json] = {}
    resource: Mapping[str, Json] | None = None
    delivery: int | None = 1
    approvals: tuple[Json, ...] = ()
    parked: Mapping[str, Json] | None = None


def inputs() -> Json:
    """Return the whole file."""
    cases: list[tuple[str, Asked, dict[str, Json], dict[str, Json]]] = []
    task = Message()
    cases.append(("without a user", Asked((task,)), {}, {}))
    cases.append(("of another trust domain", Asked((Message(sender=party(BROKER)),)), {}, {"chain": [BROKER]}))
    call = Message(fields={"t": "call", "to": "call.inventory.update", "rpl": "_INBOX.planner.x", "exp": NOW + MINUTE})
    cases.append(("a call", Asked((call,), delivery=None), {}, {"kind": "call", "subject": "call.inventory.update"}))
    user = Message(sender=party(EDGE), context=context())
    cases.append(("of a user", Asked((user,), delivery=3), {}, {"user": SOMEBODY, "chain": [EDGE], "delivery": 3}))
    full = context(
        ten="acme", acr="silver", aut=NOW - SECOND // 2, typ="client", dom="partner.example", sub="c@partner.example",
        scp=[], clm={},
    )  # fmt: skip
    of_partner: dict[str, Json] = {
        **SOMEBODY, "id": "c@partner.example", "scope": [], "claims": {}, "acr": "silver", "auth_time": NOW // SECOND - 1,
        "type": "client", "domain": "partner.example",
    }  # fmt: skip
    client = Message(sender=party(EDGE), context=full)
    cases.append(
        ("of a partner's client", Asked((client,)), {}, {"user": of_partner, "tenant": "acme", "chain": [EDGE]})
    )
    root = Message(
        sender=party(EDGE), context=context(), fields={"aud": PLANNER, "to": "task.planner.plan", "grt": ["a.*"]}
    )
    for name, grt, limited, actions in (
        ("what the root grants", None, True, ["a.*"]),
        ("what the nearest grants", ["inventory.*", "a.b"], True, ["inventory.*", "a.b"]),
        ("nothing is granted", [], True, list[Json]()),
    ):
        fields: dict[str, object] = {"aud": PLANNER, "to": "task.planner.plan", "grt": grt, "id": message_id(3)}
        between = Message(sender=party(PLANNER), context=root.context, ancestors=(root.ancestor(),), fields=fields)
        last = Message(context=root.context, ancestors=(between.ancestor(), root.ancestor()), fields={"grt": ["never"]})
        found: dict[str, Json] = {
            "user": SOMEBODY,
            "chain": [EDGE, PLANNER, PLANNER],
            "grant": {"limited": limited, "actions": list[Json](actions)},
        }
        cases.append((name, Asked((root, between, last)), {}, found))
    properties: dict[str, Json] = {
        "é": "é\u0000\b\t\n\f\r\u001f\u007f\u0085\u2028/\\\"<>&😀", "a": [1, "b", True], "Z": -(2**53 - 1), "z": [],
        "": False,
    }  # fmt: skip
    resource: dict[str, Json] = {"type": "item", "id": "42", "properties": {"owner": "u-1001", "amount": 2**53 - 1}}
    cases.append((
        "properties and a resource", Asked((task,), properties=properties, resource=resource),
        {"action": {"name": "inventory.update", "properties": _sorted(properties)},
         "resource": {**resource, "properties": {"amount": 2**53 - 1, "owner": "u-1001"}}}, {},
    ))  # fmt: skip
    waited: dict[str, Json] = {"since": TIME, "revision": "r1"}
    cases.append((
        "after an approval", Asked((task,), delivery=2, approvals=(APPROVAL, {**APPROVAL, "verdict": "deny", "user": "u-3"}),
                                   parked=waited),
        {}, {"delivery": 2, "approvals": [APPROVAL, {**APPROVAL, "verdict": "deny", "user": "u-3"}], "parked": waited},
    ))  # fmt: skip
    prompt, tools = digest("a prompt"), digest("tools")
    marked: list[tuple[str, dict[str, object], dict[str, Json]]] = [
        ("all is declared", {"_mdl": "m-1 \u00e9\"", "_prm": prompt, "_tls": tools},
         {"model": "m-1 \u00e9\"", "prompt": prompt.hex(), "tools": tools.hex()}),
        ("only the tools are declared", {"_one": True, "_tls": tools, "a": 1}, {"tools": tools.hex()}),
        ("a model without a name", {"_mdl": "", "_prm": prompt}, {"prompt": prompt.hex()}),
        ("a model that is no text", {"_mdl": 1, "_prm": prompt}, {"prompt": prompt.hex()}),
        ("hashes of other lengths", {"_mdl": "m", "_prm": prompt[1:], "_tls": tools + b"0"}, {"model": "m"}),
        ("hashes that are no bytes", {"_mdl": "m", "_prm": prompt.hex(), "_tls": True}, {"model": "m"}),
    ]  # fmt: skip
    for name, ext, found in marked:
        subject: dict[str, Json] = {
            "type": "workload", "id": PLANNER, "properties": {"trust_domain": PLANNER.split("/")[2], **found},
        }  # fmt: skip
        cases.append((name, Asked((Message(fields={"ext": ext}),)), {"subject": subject}, {}))
    return {
        "accept": [_case(*case) for case in cases],
        "reject": [{"name": name, "document": _pieces(data)} for name, data in _refused().items()],
    }


def _pieces(data: bytes) -> Json:
    before, run, after = data.partition(b"a" * 65_000)
    return [before.hex(), {"hex": "61", "times": len(run)}, after.hex()] if run else data.hex()


def _sorted(properties: Mapping[str, Json]) -> dict[str, Json]:
    return {name: properties[name] for name in sorted(properties)}


def _case(name: str, asked: Asked, changes: Mapping[str, Json], context_changes: Mapping[str, Json]) -> Json:
    message = asked.chain[-1]
    entries = message.entries()
    about: dict[str, Json] = {
        "time": TIME, "subject": "task.inventory.update", "kind": "task", "message_id": message_id(2).hex(), "tenant": "",
        "delivery": 1, "user": NOBODY, "chain": [PLANNER], "grant": {"limited": False, "actions": []}, "approvals": [],
        "parked": {"since": "", "revision": ""},
    }  # fmt: skip
    iss = str(entries["iss"])
    document: dict[str, Json] = {
        "v": 1,
        "subject": {"type": "workload", "id": iss, "properties": {"trust_domain": iss.split("/")[2]}},
        "action": {"name": "inventory.update", "properties": {}},
        "resource": {"type": "none", "id": "none", "properties": {}},
        "context": about | dict(context_changes),
    }
    text = json.dumps(document | dict(changes), separators=(",", ":"), ensure_ascii=False)
    return {
        "name": name,
        "headers": [one.raw().hex() for one in asked.chain],
        "context": message.context.payload.hex() if message.context is not None else None,
        "action": "inventory.update",
        "properties": dict(asked.properties),
        "resource": dict(asked.resource) if asked.resource is not None else None,
        "time": NOW + SECOND + 999_999,
        "delivery": asked.delivery,
        "approvals": list(asked.approvals),
        "parked": dict(asked.parked) if asked.parked is not None else None,
        "document": text.encode().hex(),
    }


def _refused() -> dict[str, bytes]:
    """Return what no engine is given, whatever it says: engines could differ on it."""
    return {
        "nothing": b"",
        "an array": b"[]",
        "two objects": b"{}{}",
        "a name that occurs twice": b'{"a":1,"a":1}',
        "a name that occurs twice, deep inside": b'{"a":[{"b":{"c":1,"\\u0063":1}}]}',
        "a fraction": b'{"a":1.0}',
        "an exponent": b'{"a":1e2}',
        "minus zero": b'{"a":-0}',
        "2^53": b'{"a":9007199254740992}',
        "-2^53": b'{"a":-9007199254740992}',
        "NaN": b'{"a":NaN}',
        "half a character": b'{"a":"\\ud83d"}',
        "half a character in a name": b'{"\\ude00":1}',
        "not UTF-8": b'{"a":"\xff"}',
        "a byte order mark": b"\xef\xbb\xbf{}",
        "a raw line feed": b'{"a":"\n"}',
        "33 deep": b'{"a":' * 32 + b"[]" + b"}" * 32,
        "65,537 bytes": b'{"a":"' + b"a" * (65_537 - 8) + b'"}',
    }
