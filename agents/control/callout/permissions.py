"""The policy's answer as the contents of a user JWT: subjects with tokens for SPIFFE IDs, in a permitted account.

The policy names workloads, NATS subjects: `status.{spiffe://example.org/agent/shop}.*` becomes `status.shop.*` by the
settings' names, and `{self}` becomes the connecting workload's token. An answer that names an invalid SPIFFE ID is rejected
as a whole.

Where there are cells, the policy grants what is said to others twice: `task.works.work` and `cell.*.task.works.work`. Of the
two only the one in the cell of `works` is granted, by the rule that senders follow (`Cells.cells_of`). So a sender that does
not know where `works` is gets a refusal, and stores nothing where nobody takes it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from sealbus.bus.cells import DEFAULT, Cells, cell_prefix, is_of_any
from sealbus.bus.stream_names import CONTROL, SUBJECTS
from sealbus.bus.streams.declared import own_durable
from sealbus.envelopes.errors import EnvelopeError, PolicyFailed
from sealbus.envelopes.message.kinds import Kind
from sealbus.envelopes.message.subjects import OwnSubject
from sealbus.envelopes.trust.names import Names
from sealbus.envelopes.trust.spiffe_id import SpiffeId
from sealbus.policies.decision.connect import ConnectDecision, ConnectLimits, OwnSubjectFacts, SubjectRules
from sealbus.policies.decision.placement import Placement

_SELF: Final = "{self}"
_WORKLOAD: Final = re.compile(r"\{([^{}]*)\}")
_IN_A_CELL: Final = re.compile(r"cell\.([^.]+)\.(.+)")
_OWNED: Final = frozenset({*(stored.partition(".")[0] for stored in (*SUBJECTS.values(), CONTROL)), "call", "_INBOX"})
"""First tokens of the subjects whose second token is that of their owner."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Grants:
    """The permissions of one connection, in NATS' terms."""

    account: str
    publish: tuple[str, ...]
    publish_deny: tuple[str, ...]
    subscribe: tuple[str, ...]
    subscribe_deny: tuple[str, ...]
    limits: ConnectLimits


def own_facts(own: Collection[OwnSubject]) -> tuple[OwnSubjectFacts, ...]:
    """Return the settings' own subjects in the form given to the policy."""
    return tuple(
        OwnSubjectFacts(
            subject=subject.subject,
            kind=subject.kind.value,
            owner=str(subject.owner),
            action=subject.action,
            durable=own_durable(subject.subject) if subject.kind is Kind.TASK else "",
        )
        for subject in own
    )


def grants_of(
    decision: ConnectDecision,
    *,
    own: SpiffeId,
    names: Names,
    accounts: Collection[str],
    own_subjects: Iterable[OwnSubjectFacts] = (),
) -> Grants:
    """Return the grants of `decision`, which allows `own`; raise `PolicyFailed` for an account that is not in `accounts`.

    A policy may place workloads in accounts of tenants, but never in the server's own. `own_subjects` are those that it was
    told. Raises `PolicyFailed` also if it grants subjects of other cells and the decision does not say which cells there are.
    """
    if decision.account not in accounts:
        raise PolicyFailed(f"the policy names account {decision.account}, which control.callout.accounts does not have")
    token = names.token(own)
    owners = {subject.subject: names.token(SpiffeId.parse(subject.owner)) for subject in own_subjects}
    publish = _placed(_named(decision.publish, token, names), token, decision.cells, owners)
    subscribe = _named(decision.subscribe, token, names)
    return Grants(
        account=decision.account,
        publish=publish.allow,
        publish_deny=publish.deny,
        subscribe=subscribe.allow,
        subscribe_deny=subscribe.deny,
        limits=decision.limits,
    )


def _named(rules: SubjectRules, own: str, names: Names) -> SubjectRules:
    def token(braced: re.Match[str]) -> str:
        try:
            return names.token(SpiffeId.parse(braced[1]))
        except EnvelopeError as error:
            raise PolicyFailed("the policy names something in braces that is not a SPIFFE ID") from error

    def named(subjects: tuple[str, ...]) -> tuple[str, ...]:
        # Most subjects name the connecting workload; few have another workload in braces.
        mine = [subject.replace(_SELF, own) for subject in subjects]
        return tuple(_WORKLOAD.sub(token, subject) if "{" in subject else subject for subject in mine)

    return SubjectRules(allow=named(rules.allow), deny=named(rules.deny))


def _placed(
    rules: SubjectRules, token: str, cells: Mapping[str, Placement] | None, owners: Mapping[str, str]
) -> SubjectRules:
    """Return the rules with each subject of an owner only where the owner's cell is, and with denials in every cell."""
    if cells is None:
        if any(_IN_A_CELL.fullmatch(subject) for subject in rules.allow):
            raise PolicyFailed("where there are cells, the callout needs policy.engine embedded or native, not an OPA")
        return rules
    if not cells:
        return rules
    seen = Cells(own=cells[token].cell if token in cells else DEFAULT, of=cells)
    denied = [f"cell.*.{subject}" for subject in rules.deny if _IN_A_CELL.fullmatch(subject) is None]
    allowed = dict.fromkeys(granted for subject in rules.allow for granted in _where(subject, seen, owners))
    return SubjectRules(allow=tuple(allowed), deny=(*rules.deny, *denied))


def _where(subject: str, cells: Cells, owners: Mapping[str, str]) -> Iterator[str]:
    """Yield `subject` as it is granted: in the cells of its owner, or as it is if it names none, or any."""
    match = _IN_A_CELL.fullmatch(subject)
    prefix, rest = (match[1], match[2]) if match is not None else (cells.own, subject)
    if rest not in owners and (is_of_any(rest) or rest.partition(".")[0] not in _OWNED):
        yield subject
        return
    for cell in cells.cells_of(rest, owners):
        if prefix == cell:
            yield subject
        elif prefix == "*" and cell != cells.own:
            yield cell_prefix(cell) + rest
