"""A message before it has an id and a time: what the outbox seals, and seals anew where that is allowed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from sealbus.envelopes.header import ExtValue
from sealbus.envelopes.kinds import Kind
from sealbus.envelopes.seal import Draft
from sealbus.envelopes.spiffe_id import SpiffeId
from sealbus.envelopes.wire import Ancestor, Statement

__all__ = ["Letter"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Letter:
    """One message to be sealed. `life` is `exp - iat` in microseconds; `end_after`, where the kind has an end, `end - iat`.

    `end_at` bounds the end from above: a child may not outlive its parent, nor a chain its user context.
    `not_before` is the latest of the parent's and the context's `iat`: hosts may differ by a few seconds, and a child
    that were older than its parent would be refused (SPEC.md section 3).
    """

    kind: Kind
    to: str
    life: int
    body: bytes = field(repr=False)
    typ: str
    aud: SpiffeId | None = None
    end_after: int | None = None
    end_at: int | None = None
    not_before: int = 0
    sch: str | None = None
    statement: Statement | None = None
    ancestors: tuple[Ancestor, ...] = ()
    re: bytes | None = None
    rpl: str | None = None
    seq: int | None = None
    fin: bool = False
    grt: tuple[str, ...] | None = None
    idm: str | None = None
    tid: bytes | None = None
    ext: Mapping[str, ExtValue] | None = None
    dig: bytes | None = None
    id: bytes | None = None
    """Only a decision on a call brings its own id (the guard id of SPEC.md section 7); such a letter is never sealed anew."""

    def draft(self, *, now: int, new_id: bytes) -> Draft:
        """Return what is sealed at `now` under `new_id`."""
        iat = max(now, self.not_before)
        exp = iat + self.life
        end = None
        if self.end_after is not None:
            end = iat + self.end_after
            if self.end_at is not None:
                end = min(end, self.end_at)
            exp = min(exp, end)
        return Draft(
            kind=self.kind,
            id=self.id or new_id,
            to=self.to,
            aud=self.aud,
            iat=iat,
            exp=exp,
            end=end,
            body=self.body,
            typ=self.typ,
            sch=self.sch,
            context=self.statement,
            ancestors=self.ancestors,
            re=self.re,
            rpl=self.rpl,
            seq=self.seq,
            fin=self.fin,
            grt=self.grt,
            idm=self.idm,
            tid=self.tid,
            ext=self.ext,
            dig=self.dig,
        )
