"""Sealing and opening 1 KiB bodies, alone and in batches of 32, in bare ES256 operations of the same round.

These are signatures for sealing, verifications for opening. The goals are 1.3 times what the prototype took, on another
machine.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from support.envelopes import NAMES, NOW, Issuer, agent, call_draft, private_key

from bench.report import Figure
from bench.rounds import Rounds
from sealbus.envelopes.accept.live import CoreArrival, LiveProfile, Replays, accept_live
from sealbus.envelopes.message.kinds import Kind
from sealbus.envelopes.message.seal import Sealed, seal
from sealbus.envelopes.trust.bundles import JwtBundle, Trust, TrustBundles
from sealbus.envelopes.trust.caches import Caches, ReplayMemory

__all__ = ["figures"]

COUNT = 512
ROUNDS = 24
RAW_COUNT = 256
BODY = b"x" * 1024
GUARDS = {("seal", 1): 2.5, ("seal", 32): 0.8, ("open", 1): 2.0, ("open", 32): 0.55}
"""In bare ES256 operations of the same round."""
GOALS = {("seal", 1): 38.0, ("seal", 32): 8.2, ("open", 1): 87.0, ("open", 32): 11.2}
"""Microseconds a message: 1.3 times 29, 6.3, 67 and 8.6 (DESIGN.md section 9)."""


async def figures() -> AsyncIterator[Figure]:
    """Measure each in turn."""
    issuer, rounds = Issuer(), Rounds(clock=time.process_time)
    sealer = issuer.sealer(agent("planner"))
    trust = Trust(bundles=TrustBundles([JwtBundle.parse(issuer.trust_domain, issuer.jwks())]))
    profile = LiveProfile(own=agent("pricing"), names=NAMES, kinds=frozenset({Kind.CALL}))
    drafts = [call_draft(number)._replace(body=BODY) for number in range(COUNT)]
    for _ in range(ROUNDS):
        _es256(rounds)
        for size in (1, 32):
            sealed: list[Sealed] = []
            with rounds.measured(f"seal {size}", COUNT):
                for place in range(0, COUNT, size):
                    sealed += seal(drafts[place : place + size], sealer)
            caches, replay = Caches(), ReplayMemory(COUNT + 1)
            arrival = CoreArrival(subject=sealed[0].header.to, started=0, audit_created=0)
            with rounds.measured(f"open {size}", COUNT):
                for one in sealed:
                    accept_live(
                        one.wire,
                        arrival,
                        profile,
                        action="pricing.quote",
                        trust=trust,
                        caches=caches,
                        replays=Replays(replay),
                        now=NOW,
                    )
    bare = {"seal": ("sign", "sealing", "signatures"), "open": ("verify", "opening", "verifications")}
    labels = {1: "alone", 32: "in batches of 32"}
    for (work, size), guard in GUARDS.items():
        operation, label, unit = bare[work]
        yield rounds.times(f"{label} 1 KiB {labels[size]} / {unit}", f"{work} {size}", operation, guard=guard)
    for (work, size), goal in GOALS.items():
        yield rounds.latency(f"{work} {size}", label=f"{bare[work][1]} 1 KiB {labels[size]}", unit="us", goal=goal)
    for operation, _, unit in bare.values():
        yield rounds.latency(operation, label=f"ES256 {unit}, bare", unit="us")


def _es256(rounds: Rounds) -> None:
    private, algorithm, message = private_key("raw"), ec.ECDSA(SHA256()), bytes(80)
    public, signature = private.public_key(), private.sign(message, algorithm)
    with rounds.measured("sign", RAW_COUNT):
        for _ in range(RAW_COUNT):
            private.sign(message, algorithm)
    with rounds.measured("verify", RAW_COUNT):
        for _ in range(RAW_COUNT):
            public.verify(signature, message, algorithm)
