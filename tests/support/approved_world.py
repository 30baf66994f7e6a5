"""A log in memory with an approval in it: denial, verdict, and the decision that rests on it; each can be bent anywhere.

Written out by hand from SPEC.md, as `log_world` is. Whatever is bent is signed by who sends it: these are the records of an
agent that lies, and of an edge or another agent that helps it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from random import Random
from typing import Any

from independent import verify_export as independent
from support.log_world import World
from support.memory_files import MemoryFiles
from vectors.issuing import EDGE, HOUR, INVENTORY, SECOND
from vectors.recorded import decision, evidence
from vectors.world import Message, context

from sealbus.agents.evidence.verify import NOTHING_ELSEWHERE, verify_export, verify_together
from sealbus.envelopes.encoding.codec import Value
from sealbus.envelopes.export.trust_root import Root

__all__ = ["TYPE", "Approval", "approval_world", "compact", "judged", "judged_together", "leaf_of"]

TYPE = "application/vnd.sealbus.approval.v1+json"
DENIED: dict[str, Value] = {"alw": False, "cod": "denied", "rsn": ["over_limit"]}


def compact(value: object) -> bytes:
    """Return `value` as JSON; half a character is escaped, and nothing else."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode(errors="backslashreplace")


def leaf_of(record: bytes) -> bytes:
    return sha256(b"\x00" + record).digest()


def approval_world(seed: int = 1) -> World:
    """Return a log that has begun."""
    world = World(Random(seed))  # noqa: S311  a log that can be made again
    world.creation()
    world.record_bundle("k0")
    return world


def judged(world: World, *, beside: World | None = None) -> list[tuple[str, str]]:
    """Return place and code of each finding about this log, with one `beside` it, about which both verifiers agree."""
    document, files = json.dumps(world.root()).encode(), world.files()
    shown, known = NOTHING_ELSEWHERE, None
    if beside is not None:
        root, others = json.dumps(beside.root()).encode(), beside.files()
        shown = verify_export(MemoryFiles(others), Root.parse(root), processes=1).shown
        known = independent.verify(others, independent.read_root(root))
    report = verify_export(MemoryFiles(files), Root.parse(document), beside=shown, processes=1)
    ours = [(one.place, one.code) for one in report.findings]
    found = independent.verify(files, independent.read_root(document), known).findings
    theirs = [(place, code) for place, code, _ in found]
    assert sorted(set(ours)) == sorted(set(theirs)), f"ours: {ours}, the independent one: {theirs}"
    return ours


def judged_together(*worlds: World) -> list[list[tuple[str, str]]]:
    """Return place and code of each finding about each log of a set, about which both verifiers agree."""
    documents = [json.dumps(world.root()).encode() for world in worlds]
    exports = [world.files() for world in worlds]
    reports = [
        verify_export(MemoryFiles(files), Root.parse(document), beside=None, processes=1)
        for files, document in zip(exports, documents, strict=True)
    ]
    verify_together(reports)
    ours = [[(one.place, one.code) for one in report.findings] for report in reports]
    both = zip(exports, map(independent.read_root, documents), strict=True)
    theirs = [[(place, code) for place, code, _ in one.findings] for one in independent.verify_together([*both])]
    assert [sorted(set(one)) for one in ours] == [sorted(set(one)) for one in theirs]
    return ours


@dataclass(kw_only=True)
class Approval:
    """What to record of one approval; unchanged, all of it is true and `put` makes a log that verifies.

    What is None is left out; a mapping holds what differs from that.
    """

    world: World
    recorder: str = INVENTORY
    asked: dict[str, Any] = field(
        default_factory=lambda: {"type": "approval", "queue": "managers", "text": "Pay ACME", "until": 3600}
    )
    task_fields: Mapping[str, object] = field(default_factory=dict)
    user: Mapping[str, Any] | None = field(default_factory=lambda: {"sub": "u-1"})
    denial: Mapping[str, Value] = field(default_factory=dict)
    wait: int = 0
    """How long the verdict takes, in microseconds."""
    person: Mapping[str, Any] | None = field(
        default_factory=lambda: {"sub": "boss", "sid": "s-2", "cid": "desk", "acr": "urn:x:2"}
    )
    login: int | None = 10 * SECOND
    """How old the person's login is, in microseconds."""
    sender: str = EDGE
    minter: str = EDGE
    verdict_fields: Mapping[str, object] = field(default_factory=dict)
    said: Mapping[str, object] = field(default_factory=dict)
    body: bytes | None = None
    verdict: Mapping[str, Value] = field(default_factory=dict)
    entry: Mapping[str, object] = field(default_factory=dict)
    entries: list[dict[str, Any]] | None = None
    document: bytes | None = None
    allowed: Mapping[str, Value] = field(default_factory=dict)
    made: dict[str, Any] = field(default_factory=dict, init=False)
    """The task, the records by D, A and R, and the verdict's message, once they were made."""
    parts: dict[str, tuple[list[bytes], bytes]] = field(default_factory=dict, init=False)
    """The evidence and the record of each, by D, A and R."""

    def task(self) -> Message:
        """Return the task, the same at each call."""
        if "task" not in self.made:
            now = self.made["stored"] = self.world.time
            user = None
            if self.user is not None:
                life: dict[str, Any] = {"iat": now, "exp": now + HOUR // 4, "end": now + 2 * HOUR}
                user = context(self.world.who(EDGE), **{**life, **self.user})
            fields: dict[str, object] = {
                "aud": INVENTORY, "to": "task.inventory.update", "id": self.world.ident(), "iat": now,
                "exp": now + HOUR, "end": now + HOUR,
            }  # fmt: skip
            self.made["task"] = Message(
                sender=self.world.who(EDGE), fields={**fields, **self.task_fields}, context=user
            )
        task: Message = self.made["task"]
        return task

    def denied(self) -> tuple[list[bytes], bytes]:
        """Return the evidence of the denial, and its record."""
        task, obl = self.task(), compact([self.asked])
        self.made["D"] = decision(task, **{"sto": self.made["stored"], "obl": obl, **DENIED, **self.denial})
        return evidence(task), self.made["D"]

    def beside(self, **changes: Any) -> Approval:
        """Return another verdict about the same task and its denial."""
        other = Approval(world=self.world, **changes)
        other.made |= {name: self.made[name] for name in ("task", "D", "stored")}
        return other

    def verdict_message(self) -> Message:
        """Return the message by which somebody says something about the task."""
        now, person = self.world.time, None
        if self.person is not None:
            life: dict[str, Any] = {"iat": now, "exp": now + HOUR // 4, "end": now + HOUR}
            aut = now - self.login if self.login is not None else None
            person = context(self.world.who(self.minter), **{**life, "aut": aut, **self.person})
        body = self.body
        if body is None:
            denial = leaf_of(self.made["D"]).hex() if "D" in self.made else "00" * 32
            body = compact({"v": 1, "decision": denial, "verdict": "approve", "note": "", **self.said})
        fields: dict[str, object] = {
            "aud": INVENTORY, "to": "control.inventory.approve", "id": self.world.ident(), "iat": now, "typ": TYPE,
            "exp": now + HOUR, "end": now + HOUR, "re": self.task().digest(), "grt": [],
        }  # fmt: skip
        return Message(
            sender=self.world.who(self.sender), fields={**fields, **self.verdict_fields}, body=body, context=person
        )

    def answered(self) -> tuple[list[bytes], bytes]:
        """Return the evidence of the verdict, and the record of its decision."""
        self.world.time += self.wait
        message = self.verdict_message()
        said: dict[str, Value] = {"sto": self.world.time, "act": "inventory._approve", "bdy": message.body, "obl": None}
        self.made["A"] = decision(message, **{**said, **self.verdict})
        self.made["verdict"], self.made["said"] = message, self.world.time
        return evidence(message), self.made["A"]

    def one(self) -> dict[str, Any]:
        """Return the entry about the verdict."""
        person = self.person or {}
        login = self.made["said"] - self.login if self.login is not None else 0
        own: dict[str, Any] = {
            "verdict": "approve", "user": person.get("sub", ""), "idp": person.get("idp", "https://idp.example"),
            "session": person.get("sid", "s-1"), "client": person.get("cid", "web"), "acr": person.get("acr", "") or "",
            "auth_time": person.get("aut", login) // SECOND,
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self.made["said"] // SECOND)),
            "message": self.made["verdict"].digest().hex(), "record": leaf_of(self.made["A"]).hex(),
        }  # fmt: skip
        return {**own, **self.entry}

    def rested(self) -> tuple[list[bytes], bytes]:
        """Return the evidence of the decision that rests on the verdict, and its record."""
        entries = self.entries if self.entries is not None else [self.one()]
        document = self.document
        if document is None:
            parked = {"since": "2026-11-27T10:00:00Z", "revision": "r1"}
            document = compact({"v": 1, "context": {"approvals": entries, "parked": parked}})
        self.made["document"] = document
        task = self.task()
        own: dict[str, Value] = {"sto": self.made["stored"], "obl": None, "inp": document, "dlv": 2}
        self.made["R"] = decision(task, **{**own, **self.allowed})
        return evidence(task), self.made["R"]

    def put(self, order: str = "D A R") -> None:
        """Record it: D the denial, A the verdict, R what rests on it; what stands together is in one message.

        Each is made when it is recorded, or when something before it rests on it; and once.
        """
        for group in order.split():
            for name in "DAR"[: 1 + max(map("DAR".index, group))]:
                self.make(name)
            parts = [self.parts[name] for name in group]
            items = list(dict.fromkeys(item for evidence_of, _ in parts for item in evidence_of))
            self.world.put(self.world.audit(self.recorder, items, [record for _, record in parts]))

    def put_over(self, other: World, before: str, after: str) -> None:
        """Record `before`, as `put` does, and then `after` in the `other` log: its agent was moved between the two."""
        self.put(before)
        other.time = max(other.time, self.world.time)
        self.world = other
        self.put(after)

    def make(self, name: str) -> None:
        """Make the record D, A or R, unless it was made."""
        if name not in self.made:
            self.parts[name] = {"D": self.denied, "A": self.answered, "R": self.rested}[name]()
