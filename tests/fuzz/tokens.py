"""Targets: access tokens, proofs of possession, reports of identity providers, assertions, and documents of issuers."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cache
from typing import Any, cast

from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from fuzz.loop import run
from fuzz.messages import SPLIT
from fuzz.targets import Target, check_refusal
from joserfc.jwk import ECKey
from starlette.datastructures import Headers
from support.envelopes import private_key
from support.issuer import AUDIENCE, compact, public_jwk, signed

from sealbus.agents.edge.http.forwarded import client_address
from sealbus.agents.edge.http.limits import DEFAULT_EDGE_LIMITS
from sealbus.agents.edge.http.problem import EdgeError, TokenRefused
from sealbus.agents.edge.oauth.bearer import presented_token
from sealbus.agents.edge.oauth.bound.dpop import Nonces, public_urls, verify_proof
from sealbus.agents.edge.oauth.issuers import Issuer
from sealbus.agents.edge.oauth.keys.discovery import FetchFailed, parsed_document
from sealbus.agents.edge.oauth.keys.jwks import KeySource
from sealbus.agents.edge.oauth.keys.key_set import KeySet, embedded_key
from sealbus.agents.edge.oauth.tokens.access_token import AccessTokenVerifier
from sealbus.agents.edge.oauth.tokens.assertion import Assertions
from sealbus.agents.edge.oauth.tokens.security_events import SecurityEventVerifier
from sealbus.bus.telemetry.spans import parse_traceparent
from sealbus.bus.work.idempotency.replay_guard import ReplayGuard
from sealbus.envelopes.encoding.strict_json import parse_object
from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.trust.spiffe_id import SpiffeId, TrustDomain

NOW = 1_764_000_000 * SECOND
ISSUER = "https://idp.example"
URL = "https://edge.example/api/v1/tasks"
TOKEN = "a.b.c"


@cache
def key() -> ECKey:
    """Return the key that signs everything."""
    return ECKey.import_key(_pem())


def _pem() -> bytes:
    return private_key("idp").private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


class _Keys:
    """In place of a `KeySource`: the keys of the issuer, which nobody fetches."""

    def __init__(self) -> None:
        document = json.dumps({"keys": [public_jwk(key(), "key-1")]}).encode()
        self._keys = KeySet.parse(document, DEFAULT_EDGE_LIMITS)

    async def key(self, issuer: Issuer, kid: str | None, algorithm: str, *, now: int) -> Any:
        del issuer, now
        found = self._keys.find_key(kid, algorithm)
        if found is None:
            raise TokenRefused("no such key of the issuer")
        return found


@cache
def _row() -> Issuer:
    return Issuer(
        issuer=ISSUER,
        audiences=frozenset({AUDIENCE}),
        algorithms=frozenset({"ES256", "PS256"}),
        claims={"region": "region", "level": "level"},
        event_audiences=frozenset({"https://edge.example/events"}),
        logout_audiences=frozenset({"shop-web"}),
    )


@cache
def _partner() -> Issuer:
    return Issuer(
        issuer=ISSUER, audiences=frozenset({AUDIENCE}), algorithms=frozenset({"ES256"}),
        domain=TrustDomain("partner.example"), assertion_audience="https://edge.example/token",
    )  # fmt: skip


@cache
def _keys() -> KeySource:
    return cast("KeySource", _Keys())


def jws(data: bytes) -> str:
    """Return a JWS of the header and claims in `data`."""
    header, _, claims = data.partition(SPLIT)
    return compact(header, claims, signed("ES256", key()))


def _token(verify: Callable[[str], Any]) -> tuple[Target, Target]:
    """Return two targets: any text as a token, and the header and claims of a signed one."""

    def check(token: str) -> None:
        try:
            run(verify(token))
        except EdgeError as error:
            assert error.status < 500, error
            check_refusal(error)

    return lambda data: check(data.decode("utf-8", "surrogateescape")), lambda data: check(jws(data))


def _access(token: str) -> Any:
    return AccessTokenVerifier([_row()], _keys()).verify(token, now=NOW)


def _events() -> SecurityEventVerifier:
    return SecurityEventVerifier([_row()], _keys(), cast("ReplayGuard", None))


def _assertion(token: str) -> Any:
    presenter = SpiffeId("spiffe://example.org/agent/partner")
    return Assertions([_partner()], _keys(), cast("ReplayGuard", None)).verify(token, presenter=presenter, now=NOW)


async def _proof(token: str) -> None:
    for nonces in (None, Nonces(bytes(32), 300)):
        verify_proof(
            token, method="POST", urls=public_urls(AUDIENCE, "/v1/tasks"), token=TOKEN, now=NOW,
            limits=DEFAULT_EDGE_LIMITS, nonces=nonces,
        )  # fmt: skip


_access_raw, _access_signed = _token(_access)
_event_raw, _event_signed = _token(lambda token: _events().event(token, now=NOW))
_logout_raw, _logout_signed = _token(lambda token: _events().logout(token, now=NOW))
_assertion_raw, _assertion_signed = _token(_assertion)
_proof_raw, _proof_signed = _token(_proof)


def key_set(data: bytes) -> None:
    """The key set of an issuer, and one key as a proof carries it."""
    with suppress(ValueError):
        keys = KeySet.parse(data, DEFAULT_EDGE_LIMITS)
        assert all(entry.algorithms for entry in keys.entries)
    with suppress(ValueError):
        jwk = parse_object(data, depth=8)
        for algorithm in ("ES256", "PS256", "Ed25519"):
            with suppress(ValueError):
                embedded_key(jwk, algorithm, DEFAULT_EDGE_LIMITS)


def metadata(data: bytes) -> None:
    """The metadata of an issuer."""
    try:
        parsed_document(data, DEFAULT_EDGE_LIMITS, "metadata")
    except FetchFailed as error:
        check_refusal(error)


def fields(data: bytes) -> None:
    """Fields of a request: its credentials, the addresses of proxies, and its span."""
    text = data.decode("latin-1")
    for read in (
        lambda: presented_token(Headers({"authorization": text})),
        lambda: client_address(Headers({"x-forwarded-for": text}), 2),
    ):
        try:
            read()
        except EdgeError as error:
            assert error.status in (400, 401)
            check_refusal(error)
    parse_traceparent(text)


TARGETS: Mapping[str, Target] = {
    "access": _access_raw,
    "signed_access": _access_signed,
    "event": _event_raw,
    "signed_event": _event_signed,
    "logout": _logout_raw,
    "signed_logout": _logout_signed,
    "assertion": _assertion_raw,
    "signed_assertion": _assertion_signed,
    "proof": _proof_raw,
    "signed_proof": _proof_signed,
    "key_set": key_set,
    "metadata": metadata,
    "fields": fields,
}
