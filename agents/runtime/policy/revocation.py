"""A revocation by word of an identity provider, as the edge hands it to the revoker, and the list that takes it up.

The list is the data of the part `revocations` (`sealbus.policies.bundle.revocations`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from sealbus.envelopes.limits import DEFAULT_LIMITS, SECOND
from sealbus.policies.decision.documents import DataDocument

__all__ = ["AHEAD", "KEPT", "REVOKE", "REVOKER", "Revocation", "listed_with"]

REVOKER: Final = "revoker"
"""Name of the agent, and of its workload, that publishes revocations."""
REVOKE: Final = f"{REVOKER}.revoke"
"""Its action, a call that is answered once the revocation is published."""

KEPT: Final = 30 * 86_400 * SECOND
"""How long users and sessions stay listed. Contexts live a day at most, access tokens minutes or hours; a provider that ended
a session gives out no further tokens of it."""

AHEAD: Final = 3 * DEFAULT_LIMITS.clock_skew
"""How far ahead of the revoker's clock a time may be: the provider's is ahead of the edge's, which is ahead of the broker's,
and that of ours. A login is dated by the provider's: cut to ours, an event would miss a login just before it."""

_FOREVER: Final = "clients"
"""The kind that is never dropped: a client gets tokens as long as its provider gives it some."""

Text = Annotated[str, Field(min_length=1, max_length=DEFAULT_LIMITS.text_bytes)]


class Revocation(BaseModel):
    """One session, or one user until `at`, microseconds since the Unix epoch: the time of the event.

    With pseudonyms `id` of a user is the pseudonym. Its text shows no id.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["user", "session"]
    issuer: Text
    id: Annotated[Text, Field(repr=False)]
    at: Annotated[int, Field(ge=0, le=DEFAULT_LIMITS.max_integer)]


def listed_with(listed: DataDocument, more: Iterable[Revocation], *, now: int) -> DataDocument:
    """Return the list `listed` with `more`, without users and sessions whose time is `KEPT` or longer before `now`.

    Of two times of one id the later counts: what is said again changes nothing. A time to come counts as `AHEAD` of `now` at
    most, so that nobody is denied for good. `listed` is as `revocations_of` demands.
    """
    found: dict[str, dict[str, dict[str, int]]] = {
        kind: {issuer: dict(times) for issuer, times in issuers.items()} for kind, issuers in _kinds(listed)
    }
    for one in more:
        times = found.setdefault(f"{one.kind}s", {}).setdefault(one.issuer, {})
        times[one.id] = max(min(one.at, now + AHEAD), times.get(one.id, 0))
    left: DataDocument = {}
    for kind, issuers in found.items():
        kept: DataDocument = {}
        for issuer, times in issuers.items():
            some: DataDocument = {one: time for one, time in times.items() if kind == _FOREVER or time > now - KEPT}
            if some:
                kept[issuer] = some
        if kept:
            left[kind] = kept
    return left


def _kinds(listed: DataDocument) -> Iterable[tuple[str, Mapping[str, Mapping[str, int]]]]:
    return listed.items()  # type: ignore[return-value]  # `revocations_of` has checked it
