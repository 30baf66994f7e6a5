"""What the console's server says in tests of its pages: every area with something in it, and texts that strangers choose.

What is fixed stands in the JSON file beside this one, where `@-16` is the time 16 seconds before the denied message was
decided.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import cycle
from pathlib import Path
from typing import Any

from sealbus.agents.console.documents import WaitingDocument

__all__ = ["ALLOWED", "HOSTILE", "LEAF", "MANY", "MESSAGE", "answers", "live_map", "rows"]

_TOLD = Path(__file__).with_suffix(".json")
_LIBRARY = Path(__file__).parents[2] / "policies" / "library" / "sealbus" / "lib" / "rules.rego"

_NOW = datetime.now(UTC).replace(hour=2, minute=14, second=7, microsecond=318_000) - timedelta(days=1)
MESSAGE = "01a218817c3f4be0a52cd4a1b8fe38e8"
ALLOWED = "5ce01a90d1f44c2fb6e1c2a7a0d9127a"
MANY = "00000000000000000000000000000002"
"""A message about which several decisions were made."""
LEAF = hashlib.sha256(b"leaf").hexdigest()
HOSTILE = (
    '<img src=x onerror="document.title=1"><script>document.title=2</script>',
    "evil\u202egnp.exe\u2066 \u200bzero\x00null\x1b[31m",
    "\U0001f600 \ud800 " + "long" * 2_500,
    "\"'><svg/onload=alert(1)>&amp;{{7*7}}${1}",
    "javascript:alert(1)",
    "n\u0300\u0301\u0302\u0303\u0304\u0305\u0306\u0307" * 40,
    "שלום مرحبا 李雷 नमस्ते",
    "",
)
"""Names, reasons and ids that an attacker would like a browser to obey."""

_COLUMNS = (
    ("edge", "edge-partner", "mcp"),
    ("shop-web", "planner", "helpdesk", "research", "onboarding", "treasury", "reports", "claims"),
    ("inventory", "pricing", "billing", "kyc", "fraud", "summaries", "scheduler", "mail", "search", "ledger-view"),
    ("ledger", "cards", "archive", "crm-legacy", "fx", "payments", "documents", "sanctions", "notary"),
)
_ACTIONS = ("inventory.read", "pricing.quote", "planner.plan", "billing.invoice", "kyc.check", "ledger.post")
_USERS = ("alice", "bob", "maría", "zoë", "oskar", "")
_REASONS = ("not_owner", "over_limit", "outside_business_hours")


def at(seconds: float = 0.0) -> str:
    """Return the time so many seconds after the denied message was decided."""
    return (_NOW + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


def rows(first: int, many: int, *, hostile: bool = False) -> list[dict[str, Any]]:
    """Return rows of decisions with the sequences from `first` on; one of 40 is denied, one of 200 stands for several."""
    found = []
    for number in range(first, first + many):
        denied = number % 40 in {3, 17}
        sender = _COLUMNS[1][number * 3 % 8]
        row: dict[str, Any] = {
            "sequence": number,
            "record": hashlib.sha256(str(number).encode()).hexdigest(),
            "time": at((number - 1_204_331) * 0.002),
            "message": f"{number:032x}",
            "action": _ACTIONS[number * 5 % 6],
            "from": sender,
            "by": _ACTIONS[number * 5 % 6].partition(".")[0],
            "user": _USERS[number * 7 % 6],
            "allow": not denied,
            "reasons": [_REASONS[number % 3]] if denied else [],
            "code": "denied" if denied else "",
        }
        if denied and number % 200 == 17:
            row |= {"count": 37, "message": ""}
        if hostile:
            bad = HOSTILE[number % len(HOSTILE)]
            row |= {"action": bad, "from": bad, "user": bad, "reasons": [bad] if denied else []}
        found.append(row)
    return found


def live_map(beat: int, *, rate: float, hostile: bool = False) -> dict[str, Any]:
    """Return the news of the map for one half second."""
    names = {name: column for column, some in enumerate(_COLUMNS) for name in some}
    edges: list[dict[str, Any]] = []
    for column, some in enumerate(_COLUMNS[:-1]):
        following = _COLUMNS[column + 1]
        for index, name in enumerate(some):
            for step in range(3 if column == 0 else 1 + (index + column) % 2):
                to = following[(index * len(following) // len(some) + step * (1 + index % 2)) % len(following)]
                rate_there = (index * 7 + step * 13 + beat) % 60 / 2 + 0.4
                edges.append({"from": name, "to": to, "rate": rate_there, "denied": 0})
    wanted = {("shop-web", "inventory"): 6, ("claims", "ledger-view"): 3}
    for edge in edges:
        edge["denied"] = wanted.pop((edge["from"], edge["to"]), 0)
    edges += [{"from": a, "to": b, "rate": 9.0, "denied": n} for (a, b), n in wanted.items()]
    states = {"crm-legacy": "away", "fraud": "full"}
    agents = [
        {
            "name": name,
            "kind": "edge" if column == 0 else "agent",
            "column": column,
            "rate": (index * 17 + beat) % 600 / 10,
            "state": states.get(name, "ready"),
        }
        for index, (name, column) in enumerate(names.items())
    ]
    if hostile:
        agents += [{"name": bad or "-", "kind": "agent", "column": 2, "rate": 1.0, "state": "ready"} for bad in HOSTILE]
        edges += [{"from": "edge", "to": bad or "-", "rate": 1.0, "denied": 1} for bad in HOSTILE]
    return {
        "decided": rate, "denied_minute": 9, "agents": agents, "edges": edges, "unverified": 0, "problem": "",
    }  # fmt: skip


_CHOSEN = frozenset(
    {
        "acr",
        "acting",
        "action",
        "agent",
        "by",
        "client",
        "code",
        "detail",
        "engine",
        "from",
        "idp",
        "key",
        "name",
        "note",
        "origin",
        "owner",
        "part",
        "problem",
        "problems",
        "reason",
        "reasons",
        "remedy",
        "requester",
        "revision",
        "rule",
        "state",
        "subject",
        "text",
        "title",
        "user",
        "what",
        "words",
    }
)
"""Fields whose texts strangers choose, or could."""


def _timed(told: Any) -> Any:
    if isinstance(told, dict):
        return {key: _timed(value) for key, value in told.items()}
    if isinstance(told, list):
        return [_timed(value) for value in told]
    return at(float(told[1:])) if isinstance(told, str) and told.startswith("@") else told


def _chosen(told: Any, texts: Iterator[str], *, inside: bool = False) -> Any:
    """Return what is told with every text that strangers choose replaced by the next hostile one."""
    if isinstance(told, dict):
        return {
            key: value if key == "role" else _chosen(value, texts, inside=key in _CHOSEN) for key, value in told.items()
        }
    if isinstance(told, list):
        return [_chosen(value, texts, inside=inside) for value in told]
    return next(texts) if inside and isinstance(told, str) else told


def _decision() -> dict[str, Any]:
    """Return the denied decision, with the true source of the rules and their true lines."""
    told: dict[str, Any] = _timed(json.loads(_TOLD.read_text(encoding="utf-8"))["decision"])
    lines = _LIBRARY.read_text(encoding="utf-8").split("\n")
    number = {text.strip(): index for index, text in reversed(list(enumerate(lines, 1)))}
    explained = told["explanation"]
    for one in explained["reasons"]:
        for literal in (*one["failed"], *one["held"]):
            literal["line"] = number[literal["written"]]
    # The first alternative of `user_may_reach` looks at these two before it comes to the owner.
    for back, literal in zip((3, 1), explained["reasons"][0]["held"], strict=True):
        literal["line"] = number["user.id == properties.owner"] - back
    first, last = number["user.id == properties.owner"] - 6, number["properties[field] <= limit"] + 4
    explained["sources"] = {"sealbus/lib/rules.rego": {"first": first, "lines": lines[first - 1 : last]}}
    return told


def answers(*, hostile: bool = False) -> dict[str, Any]:
    """Return the answer of each path of the interface that has a fixed one."""
    told = {
        path: answer
        for path, answer in _timed(json.loads(_TOLD.read_text(encoding="utf-8"))).items()
        if path != "decision"
    }
    waiting = told["/api/approvals"]["approvals"]
    told[f"/api/approvals/{waiting[0]['id']}"] = waiting[0]
    listed = [{name: one[name] for name in WaitingDocument.__annotations__} for one in waiting]
    told["/api/approvals"] |= {"approvals": listed, "more": False}
    denied, allowed = _decision(), _decision()
    allowed |= {"allow": True, "code": "", "reasons": [], "words": []}
    allowed["explanation"] |= {"allow": True, "reasons": []}
    allowed["again"] |= {"allow": True, "reasons": []}
    allowed["outcome"] |= {"outcome": "done"}
    allowed["timeline"][-1] |= {"what": "handled: done"}
    allowed["chain"][-1]["checks"] = [{"what": "policy: allowed", "ok": True}]
    told |= {
        f"/api/decisions/{one}": {"decisions": found}
        for one, found in ((MESSAGE, [denied]), (ALLOWED, [allowed]), (MANY, [denied, allowed]))
    }
    flips = [("over_limit", ""), ("not_owner", ""), ("", "outside_business_hours")]
    told["/api/what-if"]["flipped"] = [
        {
            "row": row,
            "was": {"allow": not was, "reasons": [was]},
            "now": {"allow": not now, "reasons": [now]},
            "change": "denied" if now else "allowed",
        }
        for row, (was, now) in zip(rows(1_204_100, 3), flips, strict=True)
    ]
    if hostile:
        told = {path: _chosen(answer, cycle(HOSTILE)) for path, answer in told.items()}
        told[f"/api/decisions/{MESSAGE}"]["decisions"][0]["input"] = {
            text or "-": {"value": text, "list": list(HOSTILE)} for text in HOSTILE
        }
    return told
