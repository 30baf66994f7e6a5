"""Revocations that apply before any policy decides: of a workload's older credentials, and of users, sessions and clients.

The operator's revocations are part of the policy's data: `data.sealbus.registry.issued_before` has microseconds since the
Unix epoch by SPIFFE ID. Credentials that were issued before this time are refused (SPEC.md section 5).

The revocations that identity providers report are a part of their own, `revocations`. It has no Rego, and its own signers,
which the platform's bundle names::

    data.sealbus.platform.revokers          {key id: "-----BEGIN PUBLIC KEY-----..."}          in the platform's bundle
    data.sealbus.revocations                {"users": {issuer: {id: time}}, "sessions": ..., "clients": ...}

A time is that of the event, in microseconds since the Unix epoch. A user is denied if the login is not later. A session or a
client is denied for good. The cost of a push depends only on the number of revocations, not on the policy's size.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from sealbus.envelopes.encoding.strict_json import Json
from sealbus.envelopes.errors import ConfigurationError, EnvelopeError
from sealbus.envelopes.trust.keys import PublicKey, key_id, read_public_key
from sealbus.envelopes.trust.spiffe_id import SpiffeId
from sealbus.policies.bundle.format import Bundle
from sealbus.policies.decision.documents import DataDocument
from sealbus.policies.lint.module import PolicyRefused, Problem

REVOCATIONS: Final = "revocations"
"""The name of the part, and the scope of its signature."""
REVOCATIONS_ROOT: Final = "sealbus/revocations"
MOST_REVOKERS: Final = 16
_PLACE: Final = ("sealbus", "revocations")
_REVOKERS: Final = ("sealbus", "platform", "revokers")
_KINDS: Final = ("users", "sessions", "clients")

ISSUED_BEFORE: Final = ("sealbus", "registry", "issued_before")
"""The path of the document in the data."""


def issued_before(data: DataDocument) -> Mapping[SpiffeId, int]:
    """Return the revocations in a policy's `data`, none if there is no such document.

    Raises `ValueError` for anything but times by SPIFFE ID, because a misread revocation would revoke nothing.
    """
    value: Json = data
    for name in ISSUED_BEFORE:
        if isinstance(value, dict) and name not in value:
            return MappingProxyType({})
        value = value[name] if isinstance(value, dict) else None
    if not isinstance(value, dict):
        raise _refused("is not an object, or is not in an object")
    times: dict[SpiffeId, int] = {}
    for text, time in value.items():
        if type(time) is not int or time < 0:
            raise _refused("has a time that is not microseconds since the Unix epoch")
        try:
            times[SpiffeId.parse(text)] = time
        except EnvelopeError as error:
            raise _refused(f"has {text[:255]!r}, which is not a SPIFFE ID") from error
    return MappingProxyType(times)


@dataclass(frozen=True, slots=True, kw_only=True)
class Revocations:
    """The revoked users, sessions and clients by issuer and id. A user has the time of the last login that does not count."""

    serial: int = 0
    revision: str = ""
    users: Mapping[tuple[str, str], int] = field(default_factory=lambda: MappingProxyType({}))
    sessions: AbstractSet[tuple[str, str]] = frozenset()
    clients: AbstractSet[tuple[str, str]] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.users or self.sessions or self.clients)

    def reason(self, *, issuer: str, user: str, session: str, client: str, login: int) -> str | None:
        """Return why a user is denied, or None: `revoked_session`, `revoked_user` or `revoked_client`.

        `login` is the time of the user's login in microseconds since the Unix epoch, 0 if it is unknown.
        """
        if (issuer, session) in self.sessions:
            return "revoked_session"
        if login <= self.users.get((issuer, user), -1):
            return "revoked_user"
        if (issuer, client) in self.clients:
            return "revoked_client"
        return None


NONE_REVOKED: Final = Revocations()


def keys_by_id(document: Mapping[str, Json], *, name: str) -> Mapping[str, PublicKey]:
    """Return the public keys, PEM, that `document` has by key id; raise `ValueError` for a malformed key or a wrong id.

    `name` is the document's name in the error.
    """
    keys: dict[str, PublicKey] = {}
    for identity, pem in document.items():
        try:
            key = read_public_key(pem.encode() if isinstance(pem, str) else b"", name=name)
        except ConfigurationError as error:
            raise ValueError(error.detail) from error
        if key_id(key) != identity:
            raise ValueError(f"{name}: the key {key_id(key)} stands under another id")
        keys[identity] = key
    return MappingProxyType(keys)


def revokers_of(platform: Bundle) -> Mapping[str, PublicKey]:
    """Return the keys by key id that the platform's bundle names as signers of revocations; empty if it names none.

    Raises `PolicyRefused` for a malformed document, or a key under another key's id.
    """
    value: Json = platform.data
    for name in _REVOKERS:
        if not isinstance(value, dict) or name not in value:
            return MappingProxyType({})
        value = value[name]
    if not isinstance(value, dict) or len(value) > MOST_REVOKERS:
        raise _unfit(_REVOKERS, f"not an object of at most {MOST_REVOKERS} public keys by key id")
    try:
        return keys_by_id(value, name="revokers")
    except ValueError as error:
        raise _unfit(_REVOKERS, str(error)) from error


def check_revocations(bundle: Bundle) -> None:
    """Raise `PolicyRefused` unless `bundle` may be the part `revocations`: one root, no Rego, and valid data."""
    if bundle.roots != (REVOCATIONS_ROOT,) or bundle.modules:
        raise _unfit(_PLACE, f"the part must have the one root {REVOCATIONS_ROOT} and no Rego")
    revocations_of(bundle)


def revocations_of(bundle: Bundle) -> Revocations:
    """Return the revocations in the part `bundle`; raise `PolicyRefused` for data that a reader could misread."""
    value: Json = bundle.data
    for name in _PLACE:
        value = value.get(name) if isinstance(value, dict) and value.keys() == {name} else None
    if not isinstance(value, dict) or not value.keys() <= set(_KINDS):
        raise _unfit(_PLACE, "not an object of users, sessions and clients")
    revoked: dict[str, dict[tuple[str, str], int]] = {kind: {} for kind in _KINDS}
    for kind, issuers in value.items():
        if not isinstance(issuers, dict):
            raise _unfit(_PLACE, f"{kind} is not an object by issuer")
        for issuer, times in issuers.items():
            if not isinstance(times, dict) or not all(type(time) is int and time >= 0 for time in times.values()):
                raise _unfit(_PLACE, f"{kind} of an issuer is not an object of times in microseconds by id")
            revoked[kind] |= {(issuer, identity): time for identity, time in times.items() if type(time) is int}
    return Revocations(
        serial=bundle.serial,
        revision=f"{REVOCATIONS}-{bundle.serial}",
        users=MappingProxyType(revoked["users"]),
        sessions=frozenset(revoked["sessions"]),
        clients=frozenset(revoked["clients"]),
    )


def _unfit(place: tuple[str, ...], text: str) -> PolicyRefused:
    problem = Problem.of_whole("data.json", "revocations", f"data.{'.'.join(place)}: {text}")
    return PolicyRefused([problem])


def _refused(text: str) -> ValueError:
    return ValueError(f"data.{'.'.join(ISSUED_BEFORE)} {text}")
