"""The facts about standing grants in a log, message by message (SPEC.md section 14, "Grants of the past").

A context with the session of a grant rests on an earlier message of the user to the edge, which was decided and recorded.
The two are in different messages, and tiles are read in any order. So each message yields facts, which are combined in the
order of the log.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from sealbus.envelopes.message.header import Header
from sealbus.envelopes.message.kinds import Kind
from sealbus.envelopes.message.user_context import STANDING, UserContext
from sealbus.envelopes.records.archive import VerifiedDecided
from sealbus.envelopes.records.decision import DecisionRecord, StreamPlace
from sealbus.envelopes.trust.names import Names
from sealbus.envelopes.trust.spiffe_id import SpiffeId

_SCHEDULE: Final = "._schedule"
_TICK: Final = "_tick"


class StandingUser(NamedTuple):
    """The user of a context and the parts of their login that a grant keeps. Claims are spelled out with their types."""

    idp: str
    user: str
    client: str
    tenant: str | None
    domain: str | None
    acr: str | None
    methods: tuple[str, ...] | None
    authenticated: int | None
    claims: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, context: UserContext) -> StandingUser:
        """Return the user of `context`."""
        return cls(
            context.idp,
            context.sub,
            context.cid,
            context.ten,
            context.dom.name if context.dom is not None else None,
            context.acr,
            context.amr,
            context.aut,
            tuple(sorted((name, repr(value)) for name, value in context.clm.items())),
        )


class GrantStatement(NamedTuple):
    """An allowed message of a present user to an edge, about a schedule. Times are microseconds."""

    edge: str
    message: bytes
    """H(header) of the message."""
    user: StandingUser
    scope: tuple[str, ...]
    typ: str
    body: bytes
    made: int
    stored: int
    logged: int
    """Time of the log entry."""


class GrantUsed(NamedTuple):
    """A decision about a message for an absent user. The other fields come from its context and the root of its chain.

    If `fault` is not empty, it names the reason why the message rests on no grant, and no other field counts.
    """

    sequence: int
    fault: str = ""
    edge: str = ""
    grant: bytes = b""
    session: str = ""
    user: StandingUser | None = None
    scope: tuple[str, ...] = ()
    to: str = ""
    typ: str = ""
    body_digest: bytes = b""
    grants: tuple[str, ...] | None = None
    tick: int = 0
    made: int = 0


GrantFact = GrantStatement | GrantUsed


def standing_facts_of(
    record: DecisionRecord,
    decided: VerifiedDecided,
    *,
    recorder: SpiffeId,
    names: Names,
    sequence: int,
    stored: int,
) -> Iterator[GrantFact]:
    """Yield the facts about standing grants in a decision; most decisions have none.

    `decided` is its message, verified again. `sequence` and `stored` are those of its log entry.
    """
    header, context = decided.header, decided.context
    if context is None:
        return
    if context.sid.startswith(STANDING):
        yield _use(decided.chain[0], context, sequence)
    elif record.allow:
        grant = _statement(record, header, context, recorder=recorder, names=names, stored=stored)
        if grant is not None:
            yield grant


def _statement(
    record: DecisionRecord,
    header: Header,
    context: UserContext,
    *,
    recorder: SpiffeId,
    names: Names,
    stored: int,
) -> GrantStatement | None:
    token, place = names.token(recorder), record.place
    if (record.action, header.to, header.kind) != (f"{token}{_SCHEDULE}", f"control.{token}.schedule", Kind.TASK):
        return None
    # The edge that minted the context sent a root without `wkl`: step 11 was done again.
    if header.iss != recorder or header.par is not None or context.wkl is not None or context.typ is not None:
        return None
    if not isinstance(place, StreamPlace) or record.body is None:
        return None
    return GrantStatement(
        edge=recorder.value,
        message=header.digest,
        user=StandingUser.of(context),
        scope=context.scp,
        typ=header.typ,
        body=record.body,
        made=header.iat,
        stored=place.time,
        logged=stored,
    )


def _use(root: Header, context: UserContext, sequence: int) -> GrantUsed:
    tick = (root.ext or {}).get(_TICK)
    if root.kind is not Kind.TASK or root.re is None or type(tick) is not int:
        return GrantUsed(sequence, "it began with no tick")
    if context.wkl is not None or context.typ is not None or context.req is not None:
        return GrantUsed(sequence, "its context is not of an absent user")
    return GrantUsed(
        sequence,
        edge=context.iss.value,
        grant=root.re,
        session=context.sid,
        user=StandingUser.of(context),
        scope=context.scp,
        to=root.to,
        typ=root.typ,
        body_digest=root.dig,
        grants=root.grt,
        tick=tick,
        made=root.iat,
    )
