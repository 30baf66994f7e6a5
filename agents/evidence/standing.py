"""Checks the grants behind actions for absent users (SPEC.md section 14, "Grants of the past").

An edge can mint a context of any user. For a context whose user is absent it must show the user's own message, decided and
recorded before, about this action with this body.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Final, NamedTuple

from sealbus.envelopes.encoding.strict_json import Json, parse_object
from sealbus.envelopes.export.finding import Finding, FindingCode
from sealbus.envelopes.export.standing import GrantFact, GrantStatement, GrantUsed
from sealbus.envelopes.limits import DEFAULT_LIMITS, SECOND
from sealbus.envelopes.message.user_context import standing_session

_TYPE: Final = "application/vnd.sealbus.schedule.v1+json"
_BYTES: Final = 65_536
_LASTS: Final = 90 * 86_400 * SECOND
_SHORTEST: Final = 60
_LATE: Final = 2 * 86_400 * SECOND
"""Microseconds after `until` in which an earlier tick may still be sent: it was caught up, or waited for the tick before
it."""
_ENDING: Final = 120 * SECOND
"""Microseconds after the recorded end of a grant in which a tick that was under way may still be sent."""
_SCOPE: Final = "sealbus:schedule"
_OURS: Final = "sealbus:"
_PREFIX: Final = 24


class _Planned(NamedTuple):
    action: str
    typ: str
    digest: bytes
    grants: tuple[str, ...]
    until: int


@dataclass(slots=True)
class _Standing:
    """A grant, and when its end was recorded (microseconds)."""

    message: GrantStatement
    planned: _Planned
    ended: int | None = None


class StandingChains:
    """Checks the facts of standing grants, in the order of the log. Memory grows only with the grants in it.

    The grants `beside` are those of other logs, in their order. They count as if they came before.
    """

    def __init__(self, beside: Sequence[GrantFact] = ()) -> None:
        self._grants: dict[tuple[str, bytes], _Standing] = {}
        self._newest: dict[tuple[str, str], GrantStatement] = {}
        """The newest message, by edge and name."""
        if any(self.take_facts(beside)):
            raise TypeError("a grant is no finding")

    def take_facts(self, facts: Iterable[GrantFact]) -> Iterator[Finding]:
        """Take the next facts; yield a finding (`bad_grant`) for each decision without the grant that it claims."""
        for fact in facts:
            match fact:
                case GrantStatement():
                    self._add_message(fact)
                case GrantUsed():
                    if fault := fact.fault or self._fault_of(fact):
                        yield Finding("", fact.sequence, FindingCode.BAD_GRANT, fault)

    def _add_message(self, message: GrantStatement) -> None:
        key = message.edge, message.message
        if key in self._grants:
            return
        try:
            name, planned = _parsed(message)
        except ValueError:
            return
        before = self._newest.get((message.edge, name))
        later = before is not None and before.stored > message.stored
        if planned is not None:
            # A later message in the stream may have been recorded before this one.
            self._grants[key] = _Standing(message, planned, before.logged if before is not None and later else None)
        if later:
            return
        self._newest[message.edge, name] = message
        ending = self._grants.get((message.edge, before.message)) if before is not None else None
        if ending is not None and ending.ended is None:
            ending.ended = message.logged

    def _fault_of(self, used: GrantUsed) -> str:
        """Return why a decision does not rest on a grant, or an empty text."""
        standing = self._grants.get((used.edge, used.grant))
        if used.session != standing_session(used.grant) or standing is None:
            return "a grant that is not in the log before the decision"
        message, planned = standing.message, standing.planned
        if used.user != message.user or used.scope != tuple(
            [scope for scope in message.scope if not scope.startswith(_OURS)]
        ):
            return "a grant of another user, or by another login"
        if used.to != f"task.{planned.action}" or (used.typ, used.body_digest) != (planned.typ, planned.digest):
            return "a grant of another action, or with another body"
        if used.grants != planned.grants:
            return "other actions may follow from it"
        if not used.tick < planned.until or not used.made < planned.until + _LATE:
            return "the grant was over"
        if used.made + DEFAULT_LIMITS.clock_skew < max(used.tick, message.made):
            return "it was before its time"
        if standing.ended is not None and used.made > standing.ended + _ENDING:
            return "the grant had ended"
        return ""


def _parsed(message: GrantStatement) -> tuple[str, _Planned | None]:
    """Return the name in a message and its grant, `None` for a message that ends it; raise `ValueError`."""
    if message.typ != _TYPE or len(message.body) > _BYTES:
        raise ValueError("no schedule")
    body = parse_object(message.body, depth=3)
    name, version = body.get("name"), body.get("v")
    prefix = sha256(f"{message.user.idp}\0{message.user.user}".encode()).hexdigest()[:_PREFIX]
    if type(version) is not int or version != 1 or not isinstance(name, str) or not name.startswith(f"{prefix}-"):
        raise ValueError("v or name")
    if body == {"v": 1, "name": name, "state": "removed"}:
        return name, None
    if body.get("state") != "on" or _SCOPE not in message.scope or message.user.authenticated is None:
        raise ValueError("no grant")
    until, when, do = body.get("until"), body.get("when"), body.get("do")
    if type(until) is not int or not isinstance(when, dict) or not isinstance(do, dict):
        raise ValueError("until, when or do")
    if until > message.made + _LASTS + DEFAULT_LIMITS.clock_skew:
        raise ValueError("until")
    every = when.get("every", _SHORTEST)
    if type(every) is not int or every < _SHORTEST:
        raise ValueError("every")
    return name, _parsed_action(do, until)


def _parsed_action(do: dict[str, Json], until: int) -> _Planned:
    action, typ, grants = do.get("action"), do.get("typ"), do.get("grants")
    listed = grants if isinstance(grants, list) else [None]
    texts = tuple([grant for grant in listed if isinstance(grant, str)])
    if len(texts) != len(listed) or not isinstance(action, str) or not isinstance(typ, str):
        raise ValueError("action, typ or grants")
    if do.get("partition") is not None:
        raise ValueError("partition")
    text, base64 = do.get("text"), do.get("base64")
    if isinstance(text, str) == isinstance(base64, str):
        raise ValueError("text or base64")
    body = text.encode() if isinstance(text, str) else b64decode(str(base64), validate=True)
    if isinstance(base64, str) and b64encode(body).decode() != base64:
        raise ValueError("base64 that is not canonical")
    return _Planned(action, typ, sha256(body).digest(), texts, until)
