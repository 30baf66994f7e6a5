"""The policy's answer as the contents of a user JWT: subjects with tokens for SPIFFE IDs, in a permitted account.

The policy names workloads, NATS subjects: `status.{spiffe://example.org/agent/shop}.*` becomes `status.shop.*` by the
settings' names, and `{self}` becomes the connecting workload's token. An answer that names an invalid SPIFFE ID is rejected
as a whole.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from sealbus.bus.streams.declared import own_durable
from sealbus.envelopes.errors import EnvelopeError, PolicyFailed
from sealbus.envelopes.message.kinds import Kind
from sealbus.envelopes.message.subjects import OwnSubject
from sealbus.envelopes.trust.names import Names
from sealbus.envelopes.trust.spiffe_id import SpiffeId
from sealbus.policies.decision.connect import ConnectDecision, ConnectLimits, OwnSubjectFacts, SubjectRules

_SELF: Final = "{self}"
_WORKLOAD: Final = re.compile(r"\{([^{}]*)\}")


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


def grants_of(decision: ConnectDecision, *, own: SpiffeId, names: Names, accounts: Collection[str]) -> Grants:
    """Return the grants of `decision`, which allows `own`; raise `PolicyFailed` for an account that is not in `accounts`.

    A policy may place workloads in accounts of tenants, but never in the server's own.
    """
    if decision.account not in accounts:
        raise PolicyFailed(f"the policy names account {decision.account}, which control.callout.accounts does not have")
    token = names.token(own)
    publish, subscribe = _named(decision.publish, token, names), _named(decision.subscribe, token, names)
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
