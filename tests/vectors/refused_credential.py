"""Refusals of the live profile by credential: step 7."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace

from vectors.cases import Case, call_given, live
from vectors.issuing import BROKER, EDGE, HOUR, MINUTE, NOW, PLANNER, SECOND, base64url, party, token
from vectors.refused_live import call, event, stream
from vectors.world import Message

from sealbus.envelopes.trust.proof import Credential

__all__ = ["cases"]


def _tokens() -> Iterator[tuple[str, str, Credential]]:
    """Yield name, code and credential of the planner's that no reader takes."""
    own = party(PLANNER).key.public
    bad = "bad_credential"
    good = token(PLANNER, own)
    header, claims, signature = good.split(b".")
    jose, body = b'{"alg":"ES256","kid":"es256","typ":"JWT"}', b'{"sub":"x","sub":"y"}'
    deep = b'{"a":' * 8 + b"{}" + b"}" * 8
    # 64 bytes leave four unused bits in the last character; these spell the same signature otherwise.
    unused = signature[:-1] + {b"A": b"B", b"Q": b"R", b"g": b"h", b"w": b"x"}[signature[-1:]]
    made: dict[str, bytes] = {
        "an empty token": b"",
        "a token of two parts": header + b"." + claims,
        "a token of four parts": good + b".",
        "a padded part": good + b"==",
        "unused bits set": header + b"." + claims + b"." + unused,
        "white space in a part": token(PLANNER, own, parts={10: header + b" "}),
        "the plain base64 alphabet": header + b"." + claims + b"." + b"+" + signature[1:],
        "a header that is no JSON": token(PLANNER, own, parts={0: b"{"}),
        "a header that is an array": token(PLANNER, own, parts={0: b"[]"}),
        "claims that are no JSON": token(PLANNER, own, parts={1: b"nothing"}),
        "a name twice": token(PLANNER, own, parts={1: body}),
        "a name twice in the header": token(PLANNER, own, parts={0: jose[:-1] + b',"kid":"es256"}'}),
        "JSON nine deep": token(PLANNER, own, claims={"x": json.loads(deep)}),
        "an algorithm of none": token(PLANNER, own, header={"alg": "none"}, parts={12: b""}),
        "a MAC": token(PLANNER, own, header={"alg": "HS256"}),
        "EdDSA": token(PLANNER, own, header={"alg": "EdDSA"}),
        "an algorithm for another curve": token(PLANNER, own, header={"alg": "ES384"}),
        "an algorithm for another kind of key": token(PLANNER, own, header={"alg": "RS256"}),
        "no algorithm": token(PLANNER, own, header={"alg": None}),
        "no kid": token(PLANNER, own, header={"kid": None}),
        "a kid that is a number": token(PLANNER, own, header={"kid": 1}),
        "another typ": token(PLANNER, own, header={"typ": "JOSE+JSON"}),
        "a header with jwk": token(PLANNER, own, header={"jwk": {}}),
        "a header with crit": token(PLANNER, own, header={"crit": ["exp"]}),
        "for another key": token(PLANNER, party(EDGE).key.public),
        "for two audiences": token(PLANNER, own, claims={"aud": [own.thumbprint, "else"]}),
        "for the same audience twice": token(PLANNER, own, claims={"aud": [own.thumbprint] * 2}),
        "for no audience": token(PLANNER, own, claims={"aud": []}),
        "without aud": token(PLANNER, own, claims={"aud": None}),
        "of another": token(EDGE, own),
        "without sub": token(PLANNER, own, claims={"sub": None}),
        "without iat": token(PLANNER, own, claims={"iat": None}),
        "without exp": token(PLANNER, own, claims={"exp": None}),
        "exp that is a float": token(PLANNER, own, claims={"exp": (NOW + HOUR) / SECOND}),
        "iat that is text": token(PLANNER, own, claims={"iat": str(NOW // SECOND)}),
        "iat that is true": token(PLANNER, own, claims={"iat": True}),
        "exp at iat": token(PLANNER, own, claims={"exp": (NOW - MINUTE) // SECOND}),
        "a life over 24 h": token(PLANNER, own, claims={"exp": (NOW - MINUTE + 24 * HOUR) // SECOND + 1}),
        "exp of 2^53": token(PLANNER, own, claims={"exp": 2**53}),
        "issued 6 s after it was stored": token(PLANNER, own, claims={"iat": (NOW + 7 * SECOND) // SECOND}),
        "another signature": header + b"." + claims + b"." + (b"B" if signature[:1] == b"A" else b"A") + signature[1:],
        "a signature of 63 bytes": header + b"." + claims + b"." + base64url(bytes(63)).encode(),
        "another's signature": token(PLANNER, own, kid="used", header={"kid": "es256"}),
        "PS256 with a shorter salt": token(PLANNER, own, kid="rsa", alg="PS256", salt=bytes(31)),
    }
    for name, one in made.items():
        yield name, bad, Credential(1, one)
    yield "kind 2", bad, Credential(2, good)
    yield "kind 0", bad, Credential(0, good)
    yield "a kid that is not in the bundle", "unknown_key", Credential(1, token(PLANNER, own, header={"kid": "es999"}))
    yield "a key for WIT-SVIDs", "unknown_key", Credential(1, token(PLANNER, own, kid="wit"))
    yield "a key of another trust domain", "unknown_key", Credential(1, token(PLANNER, own, kid="partner"))
    yield "expired when it was stored", "credential_expired", _expired()


def _expired() -> Credential:
    """Return a credential of the planner's that expires a second after its messages are made."""
    return Credential(1, token(PLANNER, party(PLANNER).key.public, claims={"exp": (NOW + SECOND) // SECOND}))


def cases() -> list[Case]:
    """Return the cases."""
    broker = event(party(BROKER), to="event.broker.done")
    from_broker = stream(subject="event.broker.done")
    plain = Message()
    return [
        *(live(f"a token: {name}", Message(credential=one), (code, 7)) for name, code, one in _tokens()),
        live(
            "a call whose token expired after its iat",
            replace(call(), credential=_expired()),
            ("credential_expired", 7),
            now=NOW + SECOND,
            **call_given(),
        ),
        live("another crd", Message(fields={"crd": bytes(32)}), ("bad_credential", 7)),
        live(
            "another token than was signed", replace(plain, elements={4: party(EDGE).credential}), ("bad_credential", 7)
        ),
        live(
            "no bundle of its trust domain",
            broker,
            ("unknown_trust_domain", 7),
            bundles="without partner",
            stream=from_broker,
        ),
        live("a bundle that was rotated", plain, ("unknown_key", 7), bundles="rotated"),
        live("revoked", plain, ("revoked", 7), revoked_before={PLANNER: NOW - MINUTE + 1}),
    ]
