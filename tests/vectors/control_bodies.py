"""Vectors of the bodies of control messages: cancels, approvals and schedules (SPEC.md section 7)."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

from vectors.issuing import Json

__all__ = ["control_bodies"]

CANCEL = "application/vnd.sealbus.cancel.v1+json"
APPROVAL = "application/vnd.sealbus.approval.v1+json"
SCHEDULE = "application/vnd.sealbus.schedule.v1+json"
TOP = 2**53 - 1
HASH = "0123456789abcdef" * 4

A_CANCEL: dict[str, Json] = {
    "v": 1, "task": HASH, "action": "inventory.update", "end": 1_764_000_000_000_000, "role": "requester", "reason": "",
}  # fmt: skip
AN_APPROVAL: dict[str, Json] = {"v": 1, "decision": HASH, "verdict": "approve", "note": ""}
DO: dict[str, Json] = {
    "action": "inventory.update", "typ": "application/json", "text": "{}", "partition": None, "grants": None, "life": None,
}  # fmt: skip
A_SCHEDULE: dict[str, Json] = {
    "v": 1,
    "name": "nightly",
    "state": "on",
    "do": DO,
    "when": {"cron": "30 2 * * *", "zone": "Europe/Berlin"},
    "overlap": "skip",
    "catchup": 60,
    "until": 1_764_000_000_000_000,
}
SHORT: dict[str, Json] = {"v": 1, "name": "nightly", "state": "paused"}


def control_bodies() -> Json:
    """Return the whole file."""
    return {
        "cancel": {"accept": _cancels(), "reject": _bad_cancels()},
        "approve": {"accept": _approvals(), "reject": _bad_approvals()},
        "schedule": {"accept": _schedules(), "reject": _bad_schedules()},
    }


def _text(entries: Mapping[str, Json]) -> str:
    return json.dumps(entries, separators=(",", ":"), ensure_ascii=False)


def _without(entries: Mapping[str, Json], name: str) -> dict[str, Json]:
    return {key: value for key, value in entries.items() if key != name}


def _case(name: str, typ: str, body: str | bytes, expect: Json = None) -> Json:
    data = body.encode() if isinstance(body, str) else body
    case: dict[str, Json] = {"name": name, "typ": typ, "body": _pieces(data)}
    return case if expect is None else {**case, "expect": expect}


def _pieces(data: bytes) -> Json:
    """Return `data` as hex or, with a long run of one byte in it, as pieces."""
    parts = re.split(rb"(( )\2{255,}|(a)\3{1023,})", data)
    if len(parts) == 1:
        return data.hex()
    before, run, _, _, after = parts
    return [before.hex(), {"hex": run[:1].hex(), "times": len(run)}, after.hex()]


def _padded(text: str, size: int) -> str:
    """Return `text` with white space behind it, of `size` bytes."""
    return text + " " * (size - len(text.encode()))


def _bad_json(typ: str, entries: Mapping[str, Json], most: int) -> dict[str, Json]:
    """Return what is refused of every kind of control message: what is not one JSON object with one meaning."""
    text = _text(entries)
    bodies: dict[str, str | bytes] = {
        "nothing": "",
        "an array": f"[{text}]",
        "a text": '"v"',
        "something after the object": text + "{}",
        "a comma too much": text[:-1] + ",}",
        "a comment": text + "// so",
        "a name without quotes": text.replace('"v"', "v"),
        "single quotes": text.replace('"', "'"),
        "a name that occurs twice": text.replace('"v":1', '"v":1,"v":1'),
        "a name that occurs twice, once escaped": text.replace('"v":1', '"v":1,"\\u0076":1'),
        "a byte order mark": "\ufeff" + text,
        "UTF-16": text.encode("utf-16-le"),
        "not UTF-8": text.encode().replace(b'"v"', b'"v\xff"'),
        "NaN": text.replace('"v":1', '"v":NaN'),
        "v with a fraction": text.replace('"v":1', '"v":1.0'),
        "v with an exponent": text.replace('"v":1', '"v":1e0'),
        "v with a zero before it": text.replace('"v":1', '"v":01'),
        "v as a text": text.replace('"v":1', '"v":"1"'),
        "v is true": text.replace('"v":1', '"v":true'),
        "v is null": text.replace('"v":1', '"v":null'),
        "v is 2": text.replace('"v":1', '"v":2'),
        "no v": _text(_without(entries, "v")),
        "one more member": _text({**entries, "more": ""}),
        "one more member that is null": _text({**entries, "more": None}),
        "a name in capitals": text.replace('"v"', '"V"'),
        "one byte too long": _padded(text, most + 1),
    }
    cases = {name: _case(name, typ, body) for name, body in bodies.items()}
    for other in ("", "application/json", typ.upper(), typ + "; charset=utf-8", typ.replace("v1", "v2")):
        cases[f"of type {other}"] = _case(f"of type {other!r}", other, text)
    return cases


def _changed(typ: str, entries: Mapping[str, Json], changes: Mapping[str, list[Json]]) -> list[Json]:
    cases = [_case(f"without {key}", typ, _text(_without(entries, key))) for key in changes]
    return cases + [
        _case(f"{key} {json.dumps(value)[:70]}", typ, _text({**entries, key: value}))
        for key, values in changes.items()
        for value in values
    ]


def _cancels() -> list[Json]:
    operator: dict[str, Json] = {**A_CANCEL, "role": "operator", "reason": "Übereilt: a line for people"}
    escaped = _text(operator).replace("Ü", "\\u00dc").replace('"role"', '"r\\u006fle"')
    full: dict[str, Json] = {**A_CANCEL, "action": "a" * 256, "reason": "é" * 128, "end": TOP}
    bodies: dict[str, tuple[str, dict[str, Json]]] = {
        "as a requester": (_text(A_CANCEL), A_CANCEL),
        "as an operator": (_text(operator), operator),
        "escapes and white space": (" \t\r\n" + escaped.replace(",", " ,\n"), operator),
        "members in another order": (_text(dict(reversed(A_CANCEL.items()))), A_CANCEL),
        "the longest texts": (_text(full), full),
        "of an own subject": (_text({**A_CANCEL, "action": "orders"}), {**A_CANCEL, "action": "orders"}),
        "an end of minus zero": (_text({**A_CANCEL, "end": 0}).replace('"end":0', '"end":-0'), {**A_CANCEL, "end": 0}),
        "as long as may be": (_padded(_text(A_CANCEL), 4_096), A_CANCEL),
    }
    return [_case(name, CANCEL, text, _without(expect, "v")) for name, (text, expect) in bodies.items()]


def _bad_cancels() -> list[Json]:
    changes: dict[str, list[Json]] = {
        "task": [None, 1, "", HASH[1:], HASH + "0", HASH.upper(), HASH[:-1] + "g", [HASH], HASH + "\n"],
        "action": [None, "", ".", "inventory.", "inventory.*", "*", "inventory update", "a" * 257, "é", ["inventory.update"]],
        "end": [None, -1, 2**53, 1.5, "1", True, [1]],
        "role": [None, "", "Requester", "owner", True],
        "reason": [None, 1, "é" * 128 + "a", "a\nb", "\u0000", "\u0085", {"text": ""}],
    }  # fmt: skip
    texts = {
        "an end with an exponent": _text(A_CANCEL).replace("1764000000000000", "1764e12"),
        "a reason with a lone surrogate": _text(A_CANCEL).replace('"reason":""', '"reason":"\\ud800"'),
        "a reason with a raw line feed": _text(A_CANCEL).replace('"reason":""', '"reason":"a\nb"'),
    }
    return [
        *_bad_json(CANCEL, A_CANCEL, 4_096).values(),
        *_changed(CANCEL, A_CANCEL, changes),
        *(_case(name, CANCEL, text) for name, text in texts.items()),
    ]


def _approvals() -> list[Json]:
    bodies: dict[str, tuple[str, dict[str, Json]]] = {
        verdict: (_text({**AN_APPROVAL, "verdict": verdict}), {**AN_APPROVAL, "verdict": verdict})
        for verdict in ("approve", "deny", "withdraw")
    }
    noted: dict[str, Json] = {**AN_APPROVAL, "note": "é" * 128}
    bodies["with the longest note"] = (_text(noted), noted)
    bodies["as long as may be"] = (_padded(_text(AN_APPROVAL), 4_096), AN_APPROVAL)
    return [_case(name, APPROVAL, text, _without(expect, "v")) for name, (text, expect) in bodies.items()]


def _bad_approvals() -> list[Json]:
    changes: dict[str, list[Json]] = {
        "decision": [None, 1, "", HASH[1:], HASH + "0", HASH.upper(), [HASH]],
        "verdict": [None, "", "Approve", "approved", "working", True],
        "note": [None, 1, "é" * 128 + "a", "a\nb", "\u007f", []],
    }
    return [*_bad_json(APPROVAL, AN_APPROVAL, 4_096).values(), *_changed(APPROVAL, AN_APPROVAL, changes)]


def _planned(**changes: Json) -> dict[str, Json]:
    return {**A_SCHEDULE, **changes}


def _doing(**changes: Json) -> dict[str, Json]:
    return _planned(do={**DO, **changes})


def _said(entries: Mapping[str, Json], body: bytes) -> Json:
    """Return what a reader finds: `do` has the bytes of the body, however they were written."""
    found = _without(entries, "v")
    if isinstance(do := entries.get("do"), dict):
        found["do"] = {**_without(_without(do, "text"), "base64"), "body": body.hex()}
    return found


def _schedules() -> list[Json]:
    binary = _without(_planned()["do"], "text")  # type: ignore[arg-type]
    largest = "a" * 49_152
    cases: dict[str, tuple[dict[str, Json], bytes]] = {
        "a cron expression": (A_SCHEDULE, b"{}"),
        "an interval": (_planned(when={"every": 10, "from": 0}), b"{}"),
        "the longest interval": (_planned(when={"every": 31_622_400, "from": TOP}), b"{}"),
        "once": (_planned(when={"at": 0}), b"{}"),
        "the next waits": (_planned(overlap="queue", catchup=0, until=0), b"{}"),
        "the widest bounds": (_planned(catchup=86_400, until=TOP, name="a" * 64), b"{}"),
        "with all that may be said": (_doing(partition="p1", grants=["a.b", "a.*"], life=1), b"{}"),
        "the longest life, and nothing may follow": (_doing(grants=[], life=86_400), b"{}"),
        "the most grants": (_doing(grants=["a"] * 32), b"{}"),
        "an own subject": (_doing(action="orders"), b"{}"),
        "an empty body": (_doing(text=""), b""),
        "a body with a line feed": (_doing(text="a\nb\u0000é"), b"a\nb\0\xc3\xa9"),
        "the largest body": (_doing(text=largest), largest.encode()),
        "base64": (_planned(do={**binary, "base64": "AP/+"}), b"\0\xff\xfe"),
        "base64 with padding": (_planned(do={**binary, "base64": "YQ=="}), b"a"),
        "base64 of nothing": (_planned(do={**binary, "base64": ""}), b""),
        "another state": (SHORT, b""),
        "removed": ({**SHORT, "state": "removed"}, b""),
        "on again": ({**SHORT, "state": "on"}, b""),
    }
    return [_case(name, SCHEDULE, _text(said), _said(said, body)) for name, (said, body) in cases.items()] + [
        _case("as long as may be", SCHEDULE, _padded(_text(SHORT), 65_536), _said(SHORT, b"")),
    ]


def _bad_schedules() -> list[Json]:
    changes: dict[str, list[Json]] = {
        "name": [None, "", "a" * 65, "a.b", "a b", "é", 1, "a\n"],
        "state": [None, "", "On", "off", "paused", "removed", True],
        "do": [None, [], {}, "x"],
        "when": [
            None, [], {}, {"cron": "* * * * *"}, {"cron": "* * * *", "zone": "UTC"}, {"cron": "* * * * *", "zone": "Nowhere"},
            {"cron": "* * * * *", "zone": "UTC", "from": 0}, {"every": 9, "from": 0}, {"every": 31_622_401, "from": 0},
            {"every": 60}, {"every": 60.5, "from": 0}, {"every": 60, "from": -1}, {"every": 60, "from": 2**53}, {"at": -1},
            {"at": 2**53}, {"at": 1.5}, {"at": True}, {"at": "0"}, {"at": 0, "every": 60, "from": 0},
        ],
        "overlap": [None, "", "Skip", "both"],
        "catchup": [None, -1, 86_401, 1.5, True, "60"],
        "until": [None, -1, 2**53, 1.5, True, "0"],
    }  # fmt: skip
    doing: dict[str, list[Json]] = {
        "action": [None, "", "inventory.*", "inventory._cancel", "a..b", "a b", "a" * 257, 1],
        "typ": [None, "a\nb", "é" * 128 + "a", 1],
        "text": [None, 1, [], "a" * 49_153],
        "partition": [1, "a\nb", ["p"], True],
        "grants": ["a", [1], [None], ["a b"], ["*"], [""], ["a"] * 33, {"a": "b"}],
        "life": [0, 86_401, 1.5, "1", True],
    }
    binary = _without(DO, "text")
    base64 = [None, 1, "YQ", "YQ=", "YR==", "YWJj=", "YWJj==", "=", "====", "-_8=", "YQ==\n", "Y Q==", "YQ==YQ==", "é"]
    texts = {
        "text with a lone surrogate": _text(A_SCHEDULE).replace('"text":"{}"', '"text":"\\ud800"'),
        "a name that occurs twice in do": _text(A_SCHEDULE).replace('"life":null', '"life":null,"life":null'),
        "four deep": _text(_doing(grants=[[["a"]]])),
        "catchup with an exponent": _text(A_SCHEDULE).replace('"catchup":60', '"catchup":6e1'),
    }
    parts: list[dict[str, Json]] = [
        {**A_SCHEDULE, "do": {**DO, "more": ""}},
        {**A_SCHEDULE, "do": {**DO, "base64": ""}},
        {**A_SCHEDULE, "do": binary},
        {**SHORT, "until": 0},
        {**SHORT, "state": "off"},
        {**SHORT, "name": ""},
    ]
    return [
        *_bad_json(SCHEDULE, A_SCHEDULE, 65_536).values(),
        *_changed(SCHEDULE, A_SCHEDULE, changes),
        *(_case(f"do without {key}", SCHEDULE, _text(_planned(do=_without(DO, key)))) for key in doing),
        *(
            _case(f"{key} {json.dumps(value)[:70]}", SCHEDULE, _text(_planned(do={**DO, key: value})))
            for key, values in doing.items()
            for value in values
        ),
        *(
            _case(f"base64 {json.dumps(value)}", SCHEDULE, _text(_planned(do={**binary, "base64": value})))
            for value in base64
        ),
        *(_case(name, SCHEDULE, text) for name, text in texts.items()),
        *(_case(f"members {number}", SCHEDULE, _text(entries)) for number, entries in enumerate(parts)),
    ]
