"""From the policy's answer to what a user JWT holds: subjects with tokens for SPIFFE IDs, in an account that may be given.

The policy speaks of workloads, NATS of subjects: `status.{spiffe://example.org/agent/shop}.*` becomes `status.shop.*` by
the settings' names. Where no such workload can be, the answer is not used at all.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from sealbus.bus.streams import own_durable
from sealbus.envelopes.errors import EnvelopeError, PolicyFailed
from sealbus.envelopes.kinds import Kind
from sealbus.envelopes.names import Names
from sealbus.envelopes.spiffe_id import SpiffeId
from sealbus.envelopes.subjects import OwnSubject
from sealbus.policies.connect import ConnectDecision, ConnectLimits, OwnSubjectFacts, SubjectRules

__all__ = ["Grants", "grants_of", "own_facts"]

_WORKLOAD: Final = re.compile(r"\{([^{}]*)\}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Grants:
    """What one connection may do, in NATS' words."""

    account: str
    publish: tuple[str, ...]
    publish_deny: tuple[str, ...]
    subscribe: tuple[str, ...]
    subscribe_deny: tuple[str, ...]
    limits: ConnectLimits


def own_facts(own: Collection[OwnSubject]) -> tuple[OwnSubjectFacts, ...]:
    """Return the settings' own subjects as the policy is told of them."""
    return tuple(
        OwnSubjectFacts(
            subject=one.subject,
            kind=one.kind.value,
            owner=str(one.owner),
            action=one.action,
            durable=own_durable(one.subject) if one.kind is Kind.TASK else "",
        )
        for one in own
    )


def grants_of(decision: ConnectDecision, *, names: Names, accounts: Collection[str]) -> Grants:
    """Return what `decision`, which allows, grants; raise `PolicyFailed` for an account that is none of `accounts`.

    A policy must be able to place workloads in accounts of tenants, and never in the server's own.
    """
    if decision.account not in accounts:
        raise PolicyFailed(f"the policy names account {decision.account}, which control.callout.accounts does not have")
    return Grants(
        account=decision.account,
        publish=_named(decision.publish, names).allow,
        publish_deny=_named(decision.publish, names).deny,
        subscribe=_named(decision.subscribe, names).allow,
        subscribe_deny=_named(decision.subscribe, names).deny,
        limits=decision.limits,
    )


def _named(rules: SubjectRules, names: Names) -> SubjectRules:
    def token(found: re.Match[str]) -> str:
        try:
            return names.token(SpiffeId.parse(found[1]))
        except EnvelopeError as error:
            raise PolicyFailed("the policy names something in braces that is not a SPIFFE ID") from error

    return SubjectRules(
        allow=tuple(_WORKLOAD.sub(token, one) for one in rules.allow),
        deny=tuple(_WORKLOAD.sub(token, one) for one in rules.deny),
    )
