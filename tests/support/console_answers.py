"""What the console's server says in tests of its pages: every area with something in it, and texts that strangers choose."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

__all__ = ["DENIED", "HOSTILE", "LEAF", "MANY", "MESSAGE", "NOW", "answers", "decision", "live_map", "rows"]

_LIBRARY = Path(__file__).parents[2] / "policies" / "library" / "sealbus" / "lib" / "rules.rego"

NOW = datetime.now(UTC).replace(hour=2, minute=14, second=7, microsecond=318_000) - timedelta(days=1)
MESSAGE = "01a218817c3f4be0a52cd4a1b8fe38e8"
DENIED = "5ce01a90d1f44c2fb6e1c2a7a0d9127a"
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
    return (NOW + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


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
    edges = []
    for column, some in enumerate(_COLUMNS[:-1]):
        following = _COLUMNS[column + 1]
        for index, name in enumerate(some):
            for step in range(3 if column == 0 else 1 + (index + column) % 2):
                to = following[(index * len(following) // len(some) + step * (1 + index % 2)) % len(following)]
                edges.append({"from": name, "to": to, "rate": (index * 7 + step * 13 + beat) % 60 / 2 + 0.4, "denied": 0})
    wanted = {("shop-web", "inventory"): 6, ("claims", "ledger-view"): 3}
    for edge in edges:
        edge["denied"] = wanted.pop((edge["from"], edge["to"]), 0)
    edges += [{"from": a, "to": b, "rate": 9.0, "denied": n} for (a, b), n in wanted.items()]
    agents = [
        {"name": name, "kind": "edge" if column == 0 else "agent", "column": column, "rate": (index * 17 + beat) % 600 / 10,
         "state": "away" if name == "crm-legacy" else "full" if name == "fraud" else "ready"}
        for index, (name, column) in enumerate(names.items())
    ]  # fmt: skip
    if hostile:
        agents += [{"name": bad or "-", "kind": "agent", "column": 2, "rate": 1.0, "state": "ready"} for bad in HOSTILE]
        edges += [{"from": "edge", "to": bad or "-", "rate": 1.0, "denied": 1} for bad in HOSTILE]
    return {"decided": rate, "denied_minute": 9, "agents": agents, "edges": edges}


def _literal(line: int, written: str, **looked: str | None) -> dict[str, Any]:
    values = [{"written": name.replace("__", "."), "value": value} for name, value in looked.items()]
    return {"file": "sealbus/lib/rules.rego", "line": line, "written": written, "looked": values}


def decision(*, hostile: bool = False) -> dict[str, Any]:
    """Return a denied decision for two reasons, explained, with the true source of the rules."""
    lines = _LIBRARY.read_text(encoding="utf-8").split("\n")
    number = {text.strip(): index for index, text in reversed(list(enumerate(lines, 1)))}
    owner, manages = number["user.id == properties.owner"], number["users[user.id].customers[properties.customer] == true"]
    limit = number["properties[field] <= limit"]
    owned = _literal(owner - 3, 'action.resource == "owned"', action__resource='"owned"')
    present = _literal(owner - 1, "user.present == true", user__present="true")
    not_owner = _literal(owner, "user.id == properties.owner", user__id='"alice"', properties__owner='"bob"')
    manager = _literal(manages, "users[user.id].customers[properties.customer] == true")
    manager["looked"] = [{"written": "users[user.id].customers[properties.customer]", "value": None}]
    over = _literal(limit, "properties[field] <= limit", limit="100")
    over["looked"].insert(0, {"written": "properties[field]", "value": "5000"})
    explained = {
        "explained": True, "allow": False, "policy": "sealbus.authz", "revision": "1f0c2d3e4a5b.platform-12", "cut": False, "untraced": [],
        "reasons": [
            {"reason": "not_owner", "title": "the item belongs to somebody else", "remedy": "let its owner ask, or who manages its customer",
             "failed": [not_owner, manager], "held": [owned, present]},
            {"reason": "over_limit", "title": "5,000 is over the limit of 100", "remedy": "ask for less, or raise the limit in registry/actions",
             "failed": [over], "held": []},
        ],
        "rules": [
            {"rule": "decide", "file": "sealbus/authz/decision.rego", "line": 7, "held": False, "depth": 0, "failed": None},
            {"rule": "user_may_reach", "file": "sealbus/lib/rules.rego", "line": owner - 4, "held": False, "depth": 1, "failed": not_owner},
            {"rule": "user_may_reach", "file": "sealbus/lib/rules.rego", "line": manages - 5, "held": False, "depth": 1, "failed": manager},
            {"rule": "chain_known", "file": "sealbus/lib/rules.rego", "line": 30, "held": True, "depth": 1, "failed": None},
            {"rule": "within_limits", "file": "sealbus/lib/rules.rego", "line": limit - 2, "held": False, "depth": 1, "failed": over},
        ],
        "sources": {"sealbus/lib/rules.rego": {"first": owner - 6, "lines": lines[owner - 7 : limit + 4]}},
    }  # fmt: skip
    document = {
        "subject": {"id": "spiffe://example.org/agent/shop-web", "type": "agent"},
        "action": {"name": "inventory.update", "properties": {"quantity": 5000, "item_id": "42"}},
        "resource": {"type": "item", "id": "42", "properties": {"owner": "bob", "customer": "acme", "region": "always", "note": "fragile\u202e<b>now", "version": 7, "shelf": "B2", "weight": 1.25, "labels": ["red", "heavy"]}},
        "context": {
            "user": {"id": "alice", "present": True, "type": "user", "domain": "", "session": "s-81f2", "client": "web", "acr": "mfa", "idp": "https://idp.example.org"},
            "chain": ["spiffe://example.org/edge", "spiffe://example.org/agent/shop-web"],
            "time": at(), "message": {"id": MESSAGE, "kind": "task", "age": 0.002}, "delivery": {"attempt": 1, "mode": "durable"}, "tenant": "", "region": "eu",
        },
    }  # fmt: skip
    sent = {"what": "sealed by key 7f3a…c1", "ok": True}
    chain: list[dict[str, Any]] = [
        {"role": "user", "name": "alice", "idp": "https://idp.example.org", "client": "web", "login": at(-16), "acr": "mfa"},
        {"role": "minter", "name": "edge", "id": "spiffe://example.org/edge", "checks": [{"what": "user context signed, bound to shop-web", "ok": True}], "until": at(298)},
        {"role": "sender", "name": "shop-web", "id": "spiffe://example.org/agent/shop-web", "checks": [sent, {"what": "SVID of the trust domain", "ok": True}], "until": at(1803)},
        {"role": "decider", "name": "inventory", "id": "spiffe://example.org/agent/inventory", "checks": [{"what": "policy: denied by 2 rules", "ok": False}, {"what": "handler not called", "ok": True}]},
    ]  # fmt: skip
    told: dict[str, Any] = {
        "record": {"sequence": 1_204_331, "leaf": LEAF, "time": at(), "recorder": "spiffe://example.org/agent/inventory", "name": "inventory"},
        "message": {"id": MESSAGE, "hash": hashlib.sha256(b"message").hexdigest(), "action": "inventory.update", "subject": "task.inventory.update", "kind": "task",
                    "sent": at(-0.0026), "expires": at(600), "trace": "4bf92f3577b34da6a3ce929d0e0e4736", "size": 412},
        "allow": False, "code": "denied", "reasons": ["not_owner", "over_limit"],
        "words": [{"reason": "not_owner", "title": "the item belongs to somebody else", "remedy": "let its owner ask, or who manages its customer"},
                  {"reason": "over_limit", "title": "5,000 is over the limit of 100", "remedy": "ask for less, or raise the limit in registry/actions"}],
        "chain": chain, "acting": "shop-web", "owner": "alice", "approver": [], "explanation": explained, "input": document, "redacted": [],
        "looked": ["subject.id", "action.name", "action.properties.quantity", "resource.properties.owner", "resource.properties.customer", "context.user.id", "context.user.present", "context.user.type", "context.chain"],
        "outcome": {"outcome": "rejected", "code": "denied", "ms": 7.4, "time": at(0.0041)},
        "timeline": [{"what": "sent", "time": at(-0.0026)}, {"what": "stored", "time": at(-0.001)}, {"what": "decided", "time": at()}, {"what": "ended", "time": at(0.0041)}],
        "evidence": {"record": "AUDIT 1,204,331", "signed_by": "inventory", "logged": {"entry": 1_204_333, "checkpoint": 1_204_500, "time": at(0.8)}, "receipt": f"/api/decisions/{LEAF}/receipt"},
        "policy": {"name": "sealbus.authz", "revision": "1f0c2d3e4a5b.platform-12", "engine": "embedded"},
        "again": {"same": True, "allow": False, "reasons": ["not_owner", "over_limit"], "revision": "77ab19c0d2e1.platform-14"},
    }  # fmt: skip
    if hostile:
        told["chain"] = [{**link, "name": HOSTILE[index], "id": HOSTILE[index]} for index, link in enumerate(chain)]
        told["acting"], told["owner"], told["reasons"] = HOSTILE[0], HOSTILE[1], list(HOSTILE[:3])
        told["words"] = [{"reason": bad, "title": bad, "remedy": bad} for bad in HOSTILE[:3]]
        told["message"] = {**told["message"], "action": HOSTILE[0], "subject": HOSTILE[2], "id": HOSTILE[4]}
        told["input"] = {bad or "-": {"value": bad, "list": list(HOSTILE)} for bad in HOSTILE}
        told["policy"] = {"name": HOSTILE[0], "revision": HOSTILE[2], "engine": HOSTILE[1]}
        told["approver"] = [{"user": HOSTILE[1], "verdict": HOSTILE[0], "time": at()}]
        told["explanation"] = json.loads(json.dumps(explained).replace("alice", "<b>\\u202e</b>"))
    return told


def _task(number: int, state: str, **more: Any) -> dict[str, Any]:
    return {
        "message": f"{number:032x}", "hash": f"{number:064x}", "handle": f"handle-{number}", "subject": "task.inventory.update", "action": "inventory.update", "agent": "inventory",
        "from": "shop-web", "user": "alice", "root": True, "verified": True, "refused": "", "time": at(number * -37.0), "until": at(600), "sequence": number, "state": state, "code": "",
        "reasons": [], "note": "", "by": "inventory", "unverified_statuses": [],
    } | more  # fmt: skip


def answers(*, hostile: bool = False) -> dict[str, Any]:
    """Return the answer of each path of the interface that has a fixed one."""
    bad = HOSTILE if hostile else ("refund of 240.00 EUR for order 8841", "the amount is over the limit of 100", "agent", "note", "x", "y", "z", "")
    one = decision(hostile=hostile)
    allowed = decision() | {"allow": True, "code": "", "reasons": [], "words": [], "outcome": {"outcome": "done", "code": "", "ms": 3.1, "time": at(0.003)}}  # fmt: skip
    allowed["explanation"] = allowed["explanation"] | {"allow": True, "reasons": []}
    allowed["again"] = {"same": True, "allow": True, "reasons": [], "revision": "77ab19c0d2e1.platform-14"}
    allowed["chain"] = [*allowed["chain"][:-1], allowed["chain"][-1] | {"checks": [{"what": "policy: allowed", "ok": True}]}]
    areas = ("live", "decisions", "tasks", "approvals", "dead", "schedules", "policy", "log", "agents")
    approval = {
        "id": "ap-1", "task": MESSAGE, "decision": LEAF, "queue": "refunds", "text": bad[0], "action": "payments.refund", "agent": "payments", "requester": "helpdesk", "chain": ["edge", "helpdesk"],
        "user": {"id": "alice", "idp": "https://idp.example.org"}, "resource": {"type": "order", "id": "8841", "properties": {"total": 240}}, "facts": {"paid_by": "card", "days": 12}, "reasons": ["over_limit"],
        "since": at(86_000), "until": at(90_000), "needs": {"acr": ["mfa"], "max_age": 300}, "follows": ["payments.notify"],
        "verdicts": [{"verdict": "approve", "user": "mona", "idp": "https://idp.example.org", "time": at(86_100)}], "body": {"order": "8841", "amount": 240, "note": bad[1]},
    }  # fmt: skip
    tasks = [
        _task(1, "working", note="3 of 8 shelves counted"), _task(2, "failed", code="handler_error", note=bad[0] if hostile else "the shelf reader did not answer"),
        _task(3, "completed"), _task(4, "rejected", reasons=["not_owner"], user="carol"), _task(5, "input-required", action="payments.refund", code="approval_required", reasons=["over_limit"]),
        _task(6, "submitted", agent="pricing", action="pricing.quote", user=""), _task(7, "canceled", note="ordered twice"), _task(8, "completed", unverified_statuses=["x"], verified=False),
    ]  # fmt: skip
    if hostile:
        tasks += [_task(10 + index, text, action=text, agent=text, user=text, note=text, code=text) for index, text in enumerate(HOSTILE)]
    return {
        "/api/session": {"user": bad[1] if hostile else "olga", "idp": "https://idp.example.org", "trust_domain": "example.org", "until": at(120_000), "areas": dict.fromkeys(areas, True)},
        f"/api/decisions/{MESSAGE}": {"decisions": [one]},
        f"/api/decisions/{DENIED}": {"decisions": [allowed]},
        f"/api/decisions/{MANY}": {"decisions": [one, allowed]},
        "/api/tasks": {"tasks": tasks, "unreadable": 1},
        "/api/approvals": {"approvals": [approval, approval | {"id": "ap-2", "text": "delete the account of customer acme", "action": "crm.erase", "queue": "privacy", "reasons": ["irreversible"]}], "queues": ["refunds", "privacy"]},
        "/api/dead": {"letters": [{"sequence": 5 + index, "time": at(index * -400), "subject": "task.billing.invoice", "agent": "billing", "action": "billing.invoice", "message": f"{index:032x}", "user": "bob", "from": "planner",
                                   "code": "handler_error", "detail": text, "deliveries": 5, "refused": ""} for index, text in enumerate(bad[:5])]},
        "/api/agents": {"agents": [{"name": name, "state": ("ready", "full", "away", "unknown")[index % 7 % 4 if index % 7 > 3 else 0], "processes": 1 + index % 3,
                                    "tasks": {"waiting": index * 3 % 40, "in_hand": index % 8, "redelivered": index % 5 // 4, "active": at(86_000), "full": index == 4} if index % 3 else None, "events": None,
                                    "listens": ["event.stock.changed"] if index % 4 == 0 else [], "actions": [f"{name}.read", f"{name}.update"]} for index, name in enumerate((*_COLUMNS[2], *(bad[:6] if hostile else ())))]},
        "/api/schedules": {"schedules": [{"owner": "reports", "name": bad[0] if hostile else "weekly summary", "action": "reports.weekly", "user": "alice", "rule": "0 7 * * MON", "next": at(200_000), "last": at(-400_000), "state": "active", "note": ""},
                                         {"owner": "treasury", "name": bad[1] if hostile else "close of day", "action": "ledger.close", "user": "", "rule": "30 18 * * 1-5", "next": None, "last": at(-40_000), "state": "paused", "note": "paused by mona during the audit"}]},
        "/api/policy": {"engine": "embedded", "revision": "1f0c2d3e4a5b.platform-12", "problem": "", "roots": ["sealbus/authz", "shop"],
                        "parts": [{"part": "platform", "serial": 12, "revision": "1f0c2d3e4a5b", "key": "platform-2026", "pushed": at(-200_000), "kept": 3, "problem": ""},
                                  {"part": "shop", "serial": 41, "revision": bad[1] if hostile else "c0ffee12ab34", "key": "shop-team", "pushed": at(-3_000), "kept": 3, "problem": bad[0] if hostile else ""}]},
        "/api/log": {"log": {"origin": "example.org/audit", "size": 1_204_500, "root": hashlib.sha256(b"root").hexdigest(), "time": at(86_000), "checkpoint_age_s": 1.4}},
        "/api/log/verify": {"passed": True, "findings": 0, "size": 1_204_500, "seconds": 8.2},
        "/api/tasks/cancel": {"canceled": True, "message": MESSAGE},
        "/api/approvals/ap-1": {},
        "/api/what-if": {"read": 4_320, "compared": 4_210, "same": 4_207, "problems": ["record 1204001: its input was redacted"],
                         "flipped": [{"row": row, "was": {"allow": False, "reasons": ["over_limit"]}, "now": {"allow": True, "reasons": []}} for row in rows(1_204_100, 2, hostile=hostile)]
                         + [{"row": row, "was": {"allow": True, "reasons": []}, "now": {"allow": False, "reasons": ["outside_business_hours"]}} for row in rows(1_204_200, 1, hostile=hostile)]},
    }  # fmt: skip
