r"""The sealed envelope: it proves a message's sender, user and chain of hops, and that no byte changed (SPEC.md).

Pure: functions take bytes, values, times, trust bundles and bounded caches. They return values or raise an error of
`errors`. There is no clock, no randomness, no I/O. This package exports no names: import each from its module.

    >>> import json
    >>> from base64 import urlsafe_b64encode
    >>> from cryptography.hazmat.primitives.asymmetric import ec
    >>> from sealbus.envelopes.accept.live import LiveProfile, Replays, accept_live
    >>> from sealbus.envelopes.message.freshness import StreamArrival
    >>> from sealbus.envelopes.message.kinds import Kind
    >>> from sealbus.envelopes.message.seal import Draft, Sealer, seal
    >>> from sealbus.envelopes.trust.bundles import JwtBundle, Trust, TrustBundles
    >>> from sealbus.envelopes.trust.caches import Caches, ReplayMemory
    >>> from sealbus.envelopes.trust.keys import SigningKey
    >>> from sealbus.envelopes.trust.names import Names
    >>> from sealbus.envelopes.trust.proof import Credential
    >>> from sealbus.envelopes.trust.spiffe_id import SpiffeId, TrustDomain

A stand-in for SPIRE vouches for the planner's new key, and publishes its bundle:

    >>> issuer, key = (SigningKey(ec.generate_private_key(ec.SECP256R1())) for _ in range(2))
    >>> domain, now = TrustDomain("example.org"), 1_764_000_000_000_000
    >>> b64 = lambda data: urlsafe_b64encode(data).rstrip(b"=").decode()
    >>> claims = {"sub": "spiffe://example.org/agent/planner", "aud": key.public.thumbprint,
    ...           "iat": now // 1_000_000, "exp": now // 1_000_000 + 300}
    >>> signed = ".".join(b64(json.dumps(part).encode()) for part in ({"alg": "ES256", "kid": "1"}, claims))
    >>> token = f"{signed}.{b64(issuer.sign(signed.encode()))}".encode()
    >>> x, y = b64(issuer.public.raw[:32]), b64(issuer.public.raw[32:])
    >>> jwks = json.dumps({"keys": [{"kty": "EC", "crv": "P-256", "kid": "1", "x": x, "y": y}]}).encode()

The planner seals an event. The inventory opens the message that it received from the stream:

    >>> planner = Sealer(iss=SpiffeId("spiffe://example.org/agent/planner"), key=key,
    ...                  credential=Credential(1, token), expires=now + 300_000_000)
    >>> draft = Draft(kind=Kind.EVENT, id=bytes.fromhex("019ab5e3d80070008000000000000001"), to="event.planner.done",
    ...               iat=now, exp=now + 60_000_000, body=b"{}", typ="application/json")
    >>> [sealed] = seal([draft], planner)
    >>> message = accept_live(
    ...     sealed.wire,
    ...     StreamArrival(subject="event.planner.done", stream="EVENTS", sequence=1, stored=now, created=0, delivery=1,
    ...                   header_block=b"NATS/1.0\r\nNats-Msg-Id: 019ab5e3d80070008000000000000001\r\n\r\n"),
    ...     LiveProfile(own=SpiffeId("spiffe://example.org/agent/inventory"), names=Names(domain),
    ...                 kinds=frozenset({Kind.EVENT})),
    ...     action="planner.done", trust=Trust(bundles=TrustBundles([JwtBundle.parse(domain, jwks)])),
    ...     caches=Caches(), replays=Replays(ReplayMemory(1)), now=now)
    >>> str(message.header.iss), message.body
    ('spiffe://example.org/agent/planner', b'{}')
"""
