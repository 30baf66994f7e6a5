"""The policy's answer as the contents of a user JWT: subjects with tokens for SPIFFE IDs, in an account that is allowed.

The policy speaks of workloads, NATS of subjects: `status.{spiffe://example.org/agent/shop}.*` becomes `status.shop.*` by the
settings' names, and `{self}` becomes the connecting workload's token. An answer with a workload that cannot exist is rejected
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
            subject=one.subject,
            kind=one.kind.value,
            owner=str(one.owner),
            action=one.action,
            durable=own_durable(one.subject) if one.kind is Kind.TASK else "",
        )
        for one in own
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
    def token(found: re.Match[str]) -> str:
        try:
            return names.token(SpiffeId.parse(found[1]))
        except EnvelopeError as error:
            raise PolicyFailed("the policy names something in braces that is not a SPIFFE ID") from error

    def named(subjects: tuple[str, ...]) -> tuple[str, ...]:
        # Most subjects are those of the connecting workload; few have anything else in braces.
        mine = [one.replace(_SELF, own) for one in subjects]
        return tuple(_WORKLOAD.sub(token, one) if "{" in one else one for one in mine)

    return SubjectRules(allow=named(rules.allow), deny=named(rules.deny))
