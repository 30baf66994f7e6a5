"""Sealing and opening 1 KiB bodies, alone and in batches of 32, against 1.3 times the prototype's figures.

Each is also given in bare ES256 operations of the same run: signatures for sealing, verifications for opening. The
prototype's figures are from another machine, and its ratios are not known.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from support.envelopes import NAMES, NOW, Issuer, agent, call_draft, private_key

from bench.report import Figure
from sealbus.envelopes.accept.live import CoreArrival, LiveProfile, accept_live
from sealbus.envelopes.message.kinds import Kind
from sealbus.envelopes.message.seal import Sealed, seal
from sealbus.envelopes.trust.bundles import JwtBundle, Trust, TrustBundles
from sealbus.envelopes.trust.caches import Caches, ReplayMemory

__all__ = ["figures"]

COUNT = 512
PASSES = 24
RAW_COUNT = 64
BODY = b"x" * 1024
LIMITS = {("seal", 1): 38.0, ("seal", 32): 8.2, ("open", 1): 87.0, ("open", 32): 11.2}
"""Microseconds a message: 1.3 times 29, 6.3, 67 and 8.6 (DESIGN.md section 9)."""


def figures() -> Iterator[Figure]:
    """Measure each in turn; the best of many short passes, because other load only slows one down.

    Bare ES256 comes first: a batch of one needs one operation, and no code around it makes that faster.
    """
    bare = list(_es256())
    yield from bare
    signature, verification = [figure.value for figure in bare]
    issuer = Issuer()
    sealer = issuer.sealer(agent("planner"))
    trust = Trust(bundles=TrustBundles([JwtBundle.parse(issuer.trust_domain, issuer.jwks())]))
    profile = LiveProfile(own=agent("pricing"), names=NAMES, kinds=frozenset({Kind.CALL}))
    for size in (1, 32):
        drafts = [call_draft(number)._replace(body=BODY) for number in range(COUNT)]
        sealing, opening = [], []
        for _ in range(PASSES):
            started = time.perf_counter()
            sealed: list[Sealed] = []
            for place in range(0, COUNT, size):
                sealed += seal(drafts[place : place + size], sealer)
            sealing.append((time.perf_counter() - started) / COUNT * 1e6)
            caches, replay = Caches(), ReplayMemory(COUNT + 1)
            arrival = CoreArrival(subject=sealed[0].header.to, started=0, audit_created=0)
            started = time.perf_counter()
            for one in sealed:
                accept_live(
                    one.wire,
                    arrival,
                    profile,
                    action="pricing.quote",
                    trust=trust,
                    caches=caches,
                    replay=replay,
                    now=NOW,
                )
            opening.append((time.perf_counter() - started) / COUNT * 1e6)
        label = "alone" if size == 1 else f"in batches of {size}"
        yield Figure(
            name=f"sealing 1 KiB {label}",
            value=min(sealing),
            unit="us",
            limit=LIMITS["seal", size],
            beside=f"{min(sealing) / signature:.2f} signatures",
        )
        yield Figure(
            name=f"opening 1 KiB {label}",
            value=min(opening),
            unit="us",
            limit=LIMITS["open", size],
            beside=f"{min(opening) / verification:.2f} verifications",
        )


def _es256() -> Iterator[Figure]:
    private, algorithm, message = private_key("raw"), ec.ECDSA(SHA256()), bytes(80)
    public, signature = private.public_key(), private.sign(message, algorithm)
    signing, verifying = [], []
    for _ in range(PASSES):
        started = time.perf_counter()
        for _ in range(RAW_COUNT):
            private.sign(message, algorithm)
        signing.append((time.perf_counter() - started) / RAW_COUNT * 1e6)
        started = time.perf_counter()
        for _ in range(RAW_COUNT):
            public.verify(signature, message, algorithm)
        verifying.append((time.perf_counter() - started) / RAW_COUNT * 1e6)
    yield Figure(name="ES256 signature, bare", value=min(signing), unit="us")
    yield Figure(name="ES256 verification, bare", value=min(verifying), unit="us")
