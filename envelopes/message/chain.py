"""The hop chain: the messages that led to this one, and the actions that each lets follow (steps 11 and 12).

A message that an agent sends while it handles another carries the signed headers of its ancestors. Step 11 verifies that
the issuer of each ancestor sent it, to the sender of the next message, within its time and for the same user. This is
provenance, not permission.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from typing import Final, cast

from sealbus.envelopes.errors import Code, EnvelopeError
from sealbus.envelopes.lifetimes import Lifetimes
from sealbus.envelopes.limits import DEFAULT_LIMITS
from sealbus.envelopes.message.header import Header, parse_header
from sealbus.envelopes.message.kinds import Kind
from sealbus.envelopes.message.user_context import UserContext
from sealbus.envelopes.message.wire import Ancestor
from sealbus.envelopes.trust.bundles import Trust
from sealbus.envelopes.trust.caches import Caches
from sealbus.envelopes.trust.credential import verify_credential
from sealbus.envelopes.trust.merkle import leaf_hash
from sealbus.envelopes.trust.proof import Proof
from sealbus.envelopes.trust.signature import MESSAGE_TYPE, verify_proof

_SKEW: Final = DEFAULT_LIMITS.clock_skew
_LINK_KINDS: Final = frozenset({Kind.TASK, Kind.CALL})


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _CachedLink:
    """An ancestor with a parsed header and a proof that holds under the header's own key. Nothing else is verified."""

    header: Header
    proof: Proof


def verify_chain(
    header: Header,
    ancestors: tuple[Ancestor, ...],
    context: UserContext | None,
    *,
    reference: int,
    lifetimes: Lifetimes,
    trust: Trust,
    caches: Caches,
    step: int = 11,
) -> tuple[Header, ...]:
    """Step 11: return the headers of `ancestors`, the parent first and the root last, or raise `EnvelopeError`.

    `header` is link 0, which has passed steps 2, 7 and 8. `context` is the context that step 10 returned for it.
    `lifetimes` bound how long the reader lets a chain go on. Codes, all counted at `step`: `bad_chain`, `chain_too_long`,
    and those of steps 2, 7 and 8, which are applied to each ancestor at its own `iat`.

    An ancestor's form and proof are cached by H(header). The fit of links, all times and all credentials are checked at
    every call. `check_grants` checks grants.
    """
    if len(ancestors) > DEFAULT_LIMITS.ancestors:
        raise EnvelopeError(Code.CHAIN_TOO_LONG, step)
    child, remembered, parents = header, [], []
    for ancestor in ancestors:
        cached = _find(ancestor, child.par, caches)
        parent = _parse(ancestor, child.par, caches, step) if cached is None else cached.header
        _check_pair(child, parent, step)
        remembered.append(cached)
        parents.append(parent)
        child = parent
    if child.par is not None:
        raise EnvelopeError(Code.BAD_CHAIN, step, "fewer ancestors than par says")
    # The `end` of other links needs no check: no child ends after its parent.
    if header.end is not None and header.end <= reference:
        raise EnvelopeError(Code.BAD_CHAIN, step, "ended")
    if context is not None:
        _check_root(child, context, step)
    elif child.end is not None and child.end - child.iat > lifetimes.chain_life:
        raise EnvelopeError(Code.BAD_CHAIN, step, "goes on for too long")
    if not parents:
        return ()
    for ancestor, parent, cached in zip(ancestors, parents, remembered, strict=True):
        expired = _prove(ancestor, parent, cached, trust, caches, step)
        if lifetimes.chain_after is not None and reference >= expired + lifetimes.chain_after:
            raise EnvelopeError(Code.BAD_CHAIN, step, "goes on for too long after an ancestor's credential")
    return tuple(parents)


def parsed_ancestor(raw: bytes, digest: bytes, caches: Caches) -> Header:
    """Parse the header `raw`, whose hash is `digest`; cheap for a known ancestor. Nothing is verified.

    Raises `EnvelopeError` (`malformed`, step 2).
    """
    cached = caches.links.get(digest)
    return cached.header if isinstance(cached, _CachedLink) and cached.header.raw == raw else parse_header(raw)


def _find(ancestor: Ancestor, par: bytes | None, caches: Caches) -> _CachedLink | None:
    cached = caches.links.get(par)
    # Equal bytes need no hashing: a header that is cached under `par` has this hash.
    return cached if isinstance(cached, _CachedLink) and cached.header.raw == ancestor.header else None


def _parse(ancestor: Ancestor, par: bytes | None, caches: Caches, step: int) -> Header:
    """Parse the header of an ancestor whose hash must be `par`; step 2, inside step 11.

    No hash equals None, so an ancestor beyond the root is refused like a wrong parent.
    """
    if sha256(ancestor.header).digest() != par:
        raise EnvelopeError(Code.BAD_CHAIN, step, "par")
    try:
        header = parse_header(ancestor.header)
    except EnvelopeError as error:
        raise error.at_step(step) from error
    if header.kind not in _LINK_KINDS:
        raise EnvelopeError(Code.BAD_CHAIN, step, "an ancestor is neither task nor call")
    return header


def _check_pair(child: Header, parent: Header, step: int) -> None:
    """Raise `bad_chain` unless `child` may have been sent while `parent` was handled."""
    # Parsed IDs are mostly the same objects.
    if child.iss is not parent.aud and child.iss != parent.aud:
        raise EnvelopeError(Code.BAD_CHAIN, step, "not sent by the parent's recipient")
    if child.iat < parent.iat - _SKEW:
        raise EnvelopeError(Code.BAD_CHAIN, step, "made before its parent")
    # `child iat < parent end` needs no check: by step 2 a child's `iat` is before its own `end`.
    if _end(child) > _end(parent):
        raise EnvelopeError(Code.BAD_CHAIN, step, "ends after its parent")
    if child.ctx != parent.ctx:
        raise EnvelopeError(Code.BAD_CHAIN, step, "not the ctx of its parent")


def _check_root(root: Header, context: UserContext, step: int) -> None:
    """Raise `bad_chain` unless a chain with this `context` may start with `root`."""
    if root.iss != (context.wkl if context.wkl is not None else context.iss):
        raise EnvelopeError(Code.BAD_CHAIN, step, "not started by the context's workload or issuer")
    if root.iat < context.iat - _SKEW:
        raise EnvelopeError(Code.BAD_CHAIN, step, "started before the context")
    if root.iat >= context.exp:
        raise EnvelopeError(Code.BAD_CHAIN, step, "started after the context's exp")
    if _end(root) > context.end:
        raise EnvelopeError(Code.BAD_CHAIN, step, "ends after the context")


def _prove(
    ancestor: Ancestor, header: Header, cached: _CachedLink | None, trust: Trust, caches: Caches, step: int
) -> int:
    """Apply steps 7 and 8, inside step 11, to an ancestor at its own `iat`; return the end of its credential."""
    verified = verify_credential(
        ancestor.credential, header, reference=header.iat, trust=trust, caches=caches, step=step
    )
    if cached is None or cached.proof != ancestor.proof:
        try:
            verify_proof(ancestor.proof, leaf_hash(ancestor.header), MESSAGE_TYPE, header.key, caches.roots)
        except EnvelopeError as error:
            raise error.at_step(step) from error
        caches.links.put(header.digest, _CachedLink(header=header, proof=ancestor.proof))
    return verified.exp


def _end(header: Header) -> int:
    # Step 2 demands `end` of tasks and calls. Only these have `par` or `ctx`, and only these are ancestors.
    return cast("int", header.end)


def check_grants(ancestors: Iterable[Header], action: str, *, step: int = 12) -> None:
    """Step 12: raise `EnvelopeError` (`grant_exceeded`) unless every ancestor lets `action` follow from it.

    `action` is the action that the consumer is about to do, never one that the message chose. The message's own `grt`
    limits only the messages that follow from it.
    """
    for ancestor in ancestors:
        if ancestor.grt is not None and not covers(ancestor.grt, action):
            raise EnvelopeError(Code.GRANT_EXCEEDED, step)


def covers(grants: Iterable[str], action: str) -> bool:
    """Return whether one of `grants` is `action`, or `p.*` where `action` starts with `p.` (SPEC.md section 3)."""
    return any(grant == action or (grant.endswith(".*") and action.startswith(grant[:-1])) for grant in grants)
