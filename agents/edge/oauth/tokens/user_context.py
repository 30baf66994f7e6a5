"""Mint a signed user context from a verified access token; no other part of the token leaves this module.

Instead of the user's id a user context may hold a pseudonym, so that the id is in no message and no log. A pseudonym is an
HMAC-SHA-256 under a key of the deployment, and cannot be reversed: the holder of the key can only check whether it belongs to
a given user (`sealbus audit reveal`). A user keeps the same pseudonym while the key stays, so that policies, revocations and
resources can name it. Without the key nobody can compute pseudonyms from a list of ids.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from sealbus.agents.edge.http.limits import DEFAULT_EDGE_LIMITS, EdgeLimits
from sealbus.agents.edge.http.problem import TokenRefused
from sealbus.agents.edge.oauth.issuers import DOOR_CLAIM
from sealbus.agents.edge.oauth.private_file import KEY_BYTES, read_key
from sealbus.agents.edge.oauth.tokens.access_token import AccessToken
from sealbus.envelopes.errors import Code, ConfigurationError, IdentityUnavailable, SealError
from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.message.seal import Sealer
from sealbus.envelopes.message.user_context import STANDING, ContextDraft, mint_context
from sealbus.envelopes.message.wire import Statement
from sealbus.envelopes.trust.spiffe_id import SpiffeId, TrustDomain

PSEUDONYM_PREFIX: Final = "pseudonym:"
"""Prefix of every pseudonym, which distinguishes it from ids of the identity provider."""

_PSEUDONYM_CONTEXT: Final = b"sealbus.pseudonym.v1"


@dataclass(frozen=True, slots=True, kw_only=True)
class ContextMinter:
    """How one edge mints user contexts: for which trust domain, under which names of users, and for how long.

    With `pseudonyms` a context names its user by a pseudonym. A chain may start with the context while the token lives and
    within `limits.context_start_seconds`; it may continue until `limits.context_end_seconds` from the minting.
    """

    trust_domain: TrustDomain
    pseudonyms: Pseudonyms | None = None
    limits: EdgeLimits = DEFAULT_EDGE_LIMITS

    def mint(
        self,
        token: AccessToken,
        sealer: Sealer,
        *,
        transaction: bytes,
        now: int,
        workload: SpiffeId | None,
        door: str = "",
    ) -> Statement:
        """Return the user context of `token`, signed by `sealer` at `now`, for `workload` alone if it is given.

        `now` is microseconds since the Unix epoch. `transaction` is 16 random bytes, under which the records of all that
        follows are found. `door` names the protocol by which the user came, if it is not the edge's own; it becomes a claim
        of the context, so that policies and records show it.

        Raises `TokenRefused` for a token that has expired (`token_expired`) or holds more than a context can
        (`bad_token`), `IdentityUnavailable` if the sealer's credential has expired.
        """
        if now >= token.expires:
            raise TokenRefused("exp", code=Code.TOKEN_EXPIRED)
        if token.session.startswith(STANDING):
            # Sessions with this prefix are those of standing grants, which a log has to show.
            raise TokenRefused("the session has a name that is ours")
        if now >= sealer.expires:
            raise IdentityUnavailable("the edge's credential has expired")
        draft = ContextDraft(
            txn=transaction,
            aud=self.trust_domain,
            iat=now,
            exp=min(now + self.limits.context_start_seconds * SECOND, token.expires),
            end=now + self.limits.context_end_seconds * SECOND,
            sub=user_id(token.issuer, token.subject, token.domain, self.pseudonyms),
            idp=token.issuer,
            sid=token.session,
            cid=token.client,
            scp=token.scope,
            clm={**token.claims, DOOR_CLAIM: door} if door else token.claims,
            ten=token.tenant,
            wkl=workload,
            acr=token.acr,
            amr=token.amr,
            aut=token.auth_time,
            typ=token.type,
            dom=token.domain,
        )
        try:
            return mint_context(draft, sealer)
        except SealError as error:
            raise TokenRefused("more claims than a user context can hold") from error


def user_id(issuer: str, subject: str, domain: TrustDomain | None, pseudonyms: Pseudonyms | None) -> str:
    """Return the name of a subject of `issuer` in contexts; with the partner's `domain` it is `NAME@domain`."""
    name = subject if pseudonyms is None else pseudonyms.of(issuer, subject)
    return name if domain is None else f"{name}@{domain}"


class Pseudonyms:
    """The pseudonyms under one key of 32 bytes."""

    def __init__(self, key: bytes) -> None:
        if len(key) != KEY_BYTES:
            raise ConfigurationError(f"a pseudonym key has {KEY_BYTES} bytes")
        self._key = key

    def __repr__(self) -> str:
        return "Pseudonyms(...)"

    @classmethod
    def read(cls, file: Path) -> Self:
        """Return the pseudonyms under the key in `file`; raises as `read_key` does. Blocks."""
        return cls(read_key(file))

    def of(self, issuer: str, subject: str) -> str:
        """Return the pseudonym of the user whom `issuer` calls `subject`; users of two issuers never share one."""
        name = issuer.encode()
        message = _PSEUDONYM_CONTEXT + len(name).to_bytes(4, "big") + name + subject.encode()
        return PSEUDONYM_PREFIX + hmac.new(self._key, message, hashlib.sha256).hexdigest()
