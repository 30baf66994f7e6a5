"""A revocation reported by an identity provider, which the edge hands to the revoker, and the list that it is added to.

The list is the data of the part `revocations` (`sealbus.policies.bundle.revocations`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from sealbus.envelopes.limits import DEFAULT_LIMITS, SECOND
from sealbus.policies.decision.documents import DataDocument

REVOKER: Final = "revoker"
"""Name of the agent, and of its workload, that publishes revocations."""
REVOKE: Final = f"{REVOKER}.revoke"
"""The revoker's action, a call that is answered once the revocation is published."""

KEPT: Final = 30 * 86_400 * SECOND
"""How long users and sessions stay listed. Contexts live a day at most, access tokens minutes or hours; a provider issues no
further tokens of a session that it ended."""

AHEAD: Final = 3 * DEFAULT_LIMITS.clock_skew
"""How far ahead of the revoker's clock a time may be. The provider's clock, the edge's and the broker's may each be ahead of
the next by the skew. The provider dates logins: if times were cut to our clock, an event would miss a login just before
it."""

_FOREVER: Final = "clients"
"""The kind that is never dropped: a client can get tokens as long as its provider issues them."""

Text = Annotated[str, Field(min_length=1, max_length=DEFAULT_LIMITS.text_bytes)]


class Revocation(BaseModel):
    """One session, or one user until `at`, microseconds since the Unix epoch: the time of the event.

    With pseudonyms the `id` of a user is the pseudonym. The `repr` shows no id.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["user", "session"]
    issuer: Text
    id: Annotated[Text, Field(repr=False)]
    at: Annotated[int, Field(ge=0, le=DEFAULT_LIMITS.max_integer)]


def listed_with(listed: DataDocument, more: Iterable[Revocation], *, now: int) -> DataDocument:
    """Return the list `listed` with `more`, without users and sessions whose time is `KEPT` or longer before `now`.

    Of two times of one id the later counts, so that a repeated report changes nothing. A future time counts as at most
    `AHEAD` of `now`, so that no report denies for good. `listed` has the form that `revocations_of` demands.
    """
    revoked: dict[str, dict[str, dict[str, int]]] = {
        kind: {issuer: dict(times) for issuer, times in issuers.items()} for kind, issuers in _kinds(listed)
    }
    for revocation in more:
        times = revoked.setdefault(f"{revocation.kind}s", {}).setdefault(revocation.issuer, {})
        times[revocation.id] = max(min(revocation.at, now + AHEAD), times.get(revocation.id, 0))
    document: DataDocument = {}
    for kind, issuers in revoked.items():
        by_issuer: DataDocument = {}
        for issuer, times in issuers.items():
            current: DataDocument = {id_: time for id_, time in times.items() if kind == _FOREVER or time > now - KEPT}
            if current:
                by_issuer[issuer] = current
        if by_issuer:
            document[kind] = by_issuer
    return document


def _kinds(listed: DataDocument) -> Iterable[tuple[str, Mapping[str, Mapping[str, int]]]]:
    return listed.items()  # type: ignore[return-value]  # `revocations_of` has checked it
