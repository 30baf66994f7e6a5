"""A log in memory with a standing grant in it: what a user granted, its end, and what was done; each can be bent anywhere.

Written out by hand from SPEC.md, as `approved_world` is. Whatever is bent is signed by who sends it: an edge that lies.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from support.approved_world import compact
from support.log_world import World
from vectors.issuing import EDGE, HOUR, INVENTORY, SECOND
from vectors.recorded import decision, evidence
from vectors.world import Message, context

from sealbus.envelopes.encoding.codec import Value

__all__ = ["SCHEDULE", "StandingGrant"]

SCHEDULE = "application/vnd.sealbus.schedule.v1+json"
DAY = 86_400 * SECOND
CLAIMS: dict[str, Any] = {"level": 3, "staff": True}


def named(user: str, idp: str = "https://idp.example", name: str = "often") -> str:
    return sha256(f"{idp}\0{user}".encode()).hexdigest()[:24] + "-" + name


@dataclass(kw_only=True)
class StandingGrant:
    """What to record of one grant; unchanged, all of it is true and `put` makes a log that verifies.

    S is the grant, E its end, T what was done at a tick, C what followed from that. A mapping holds what differs; what is
    None is left out.
    """

    world: World
    recorder: str = EDGE
    user: Mapping[str, Any] = field(default_factory=dict)
    said_fields: Mapping[str, object] = field(default_factory=dict)
    body: Mapping[str, Any] = field(default_factory=dict)
    do: Mapping[str, Any] = field(default_factory=dict)
    said: Mapping[str, Value] = field(default_factory=dict)
    wait: int = 0
    """How long until the tick, in microseconds."""
    away: Mapping[str, Any] = field(default_factory=dict)
    task_fields: Mapping[str, object] = field(default_factory=dict)
    task_body: bytes = b'{"item_id":"7"}'
    done: Mapping[str, Value] = field(default_factory=dict)
    ends: Mapping[str, Any] = field(default_factory=dict)
    ended: Mapping[str, Value] = field(default_factory=dict)
    start: int = field(init=False)
    token: str = field(init=False)
    made: dict[str, Message] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self.start = self.world.time
        name = self.recorder.removeprefix("spiffe://example.org/agent/")
        self.token = name if "/" not in name else "id-" + sha256(self.recorder.encode()).hexdigest()[:32]

    def _context(self, **changes: Any) -> Any:
        now = self.world.time
        life = {"iat": now, "exp": now + HOUR // 4, "end": now + 2 * HOUR}
        who: dict[str, Any] = {"sub": "u-1", "clm": CLAIMS, "aut": self.start - 10 * SECOND, "acr": "urn:x:2"}
        return context(self.world.who(EDGE), **{**life, **who, **changes})

    def _control(self, body: Mapping[str, Any], user: Any, **fields: object) -> Message:
        now = self.world.time
        own: dict[str, object] = {
            "aud": self.recorder, "to": f"control.{self.token}.schedule", "id": self.world.ident(), "iat": now,
            "exp": now + HOUR, "end": now + HOUR, "typ": SCHEDULE,
        }  # fmt: skip
        text = compact({name: value for name, value in body.items() if value is not None})
        return Message(sender=self.world.who(EDGE), fields={**own, **fields}, body=text, context=user)

    def grant(self) -> Message:
        """Return the message of the user."""
        if "S" not in self.made:
            do = {
                "action": "inventory.count", "typ": "application/json", "text": '{"item_id":"7"}',
                "partition": None, "grants": [], "life": None, **self.do,
            }  # fmt: skip
            body = {
                "v": 1, "name": named("u-1"), "state": "on", "do": {k: v for k, v in do.items() if v is not ...},
                "when": {"every": 60, "from": self.start}, "overlap": "skip", "catchup": 60, "until": self.start + 30 * DAY,
                **self.body,
            }  # fmt: skip
            scopes = {"scp": ["inventory", "sealbus:schedule", "sealbus:approve"]}
            user = self._context(**{**scopes, **self.user})
            self.made["S"] = self._control(body, user, **self.said_fields)
        return self.made["S"]

    def end(self) -> Message:
        """Return the message by which the user ends it."""
        body = {"v": 1, "name": named("u-1"), "state": "removed", **self.ends}
        return self._control(body, self._context())

    def tick(self) -> Message:
        """Return the task of a tick."""
        if "T" not in self.made:
            self.world.time += self.wait
            now, grant = self.world.time, self.grant().digest()
            away = {"sid": "standing-" + grant[:16].hex(), "scp": ["inventory"], **self.away}
            own: dict[str, object] = {
                "aud": INVENTORY, "to": "task.inventory.count", "id": self.world.ident(), "iat": now, "grt": [], "re": grant,
                "exp": now + HOUR, "end": now + HOUR, "ext": {"_tick": now},
            }  # fmt: skip
            self.made["T"] = Message(
                sender=self.world.who(EDGE),
                fields={**own, **self.task_fields},
                body=self.task_body,
                context=self._context(**away),
            )
        return self.made["T"]

    def follower(self) -> tuple[Message, Message]:
        """Return a task that followed from that of the tick, and that."""
        above, now = self.tick(), self.world.time
        fields: dict[str, object] = {
            "aud": INVENTORY, "id": self.world.ident(), "iat": now, "exp": now + HOUR // 2, "end": now + HOUR // 2,
        }  # fmt: skip
        sender = self.world.who(INVENTORY)
        return Message(sender=sender, fields=fields, context=above.context, ancestors=(above.ancestor(),)), above

    def put(self, order: str = "S T C") -> None:
        """Record it in this order, each in a message of its own."""
        for name in order.split():
            now = self.world.time
            if name in ("S", "E"):
                message = self.grant() if name == "S" else self.end()
                own: dict[str, Any] = {"sto": now, "act": f"{self.token}._schedule", "bdy": message.body, "obl": None}
                record = decision(message, **{**own, **(self.said if name == "S" else self.ended)})
                self.world.put(self.world.audit(self.recorder, evidence(message), [record]))
            elif name == "T":
                task = self.tick()
                record = decision(task, **{"sto": self.world.time, "act": "inventory.count", "obl": None, **self.done})
                self.world.put(self.world.audit(INVENTORY, evidence(task), [record]))
            else:
                task, above = self.follower()
                record = decision(task, sto=self.world.time, obl=None)
                self.world.put(self.world.audit(INVENTORY, evidence(task, above), [record]))
