"""The policy request: one input document, AuthZEN-shaped, complete and typed before any engine sees it.

No key is ever missing and no value null: engines differ on malformed input, and a deny rule that silently does not fire
makes a policy fail open. Absent things have an empty value of their type.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

from pydantic_core import PydanticSerializationError, to_json

from sealbus.envelopes.errors import PolicyFailed
from sealbus.envelopes.limits import DEFAULT_LIMITS, SECOND
from sealbus.policies.decision.documents import InputDocument

__all__ = [
    "NO_USER",
    "Request",
    "Resource",
    "User",
    "check_properties",
    "completed_document",
    "input_document",
    "rfc3339",
]

_MAX_INTEGER: Final = DEFAULT_LIMITS.max_integer
_UNTYPED: Final = re.compile(rb'"auth_time":\d+(?=\},"chain":\[)')
"""End of a user that has no `type`; never inside a text, whose quotes are escaped."""
_EPOCH: Final = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Resource:
    """The resource of the action, as the agent that owns it knows it."""

    type: str
    id: str
    properties: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """The user behind the message, as the edge signed it; `auth_time` in seconds since the Unix epoch, 0 if unknown.

    `type` is `user`, `client` (an OAuth client that acts for itself) or `workload` (an external one), `domain` that of the
    partner whose it is, empty for our own. The id of another domain ends with `@` and that domain.
    """

    present: bool = True
    id: str = ""
    idp: str = ""
    session: str = ""
    txn: str = ""
    client: str = ""
    scope: tuple[str, ...] = ()
    claims: Mapping[str, object] = field(default_factory=dict)
    acr: str = ""
    auth_time: int = 0
    type: str = "user"
    domain: str = ""


NO_USER: Final = User(present=False, type="")


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One question: may this workload do this to this resource, now, for this user, through this chain.

    `time` is in microseconds since the Unix epoch; `chain` holds SPIFFE IDs, the root first; `grant` the actions that the
    chain's narrowest grant allows, None for no limit. Construction raises `PolicyFailed` for values that the engines might
    read differently: properties and claims hold text, booleans, integers within 2^53-1 and lists of these, without null,
    fractions or nesting; every text field must be text.
    """

    subject: str
    trust_domain: str
    action: str
    properties: Mapping[str, object] = field(default_factory=dict)
    resource: Resource
    time: int
    nats_subject: str
    kind: str
    message_id: str
    tenant: str = ""
    delivery: int = 1
    user: User = NO_USER
    chain: tuple[str, ...] = ()
    grant: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        user, resource = self.user, self.resource
        try:
            # Joining checks in C that each is text: this is done for every message.
            "".join((
                self.subject, self.trust_domain, self.action, self.nats_subject, self.kind, self.message_id,
                self.tenant, resource.type, resource.id, user.id, user.idp, user.session, user.txn, user.client,
                user.acr, user.type, user.domain, *user.scope, *self.chain, *(self.grant or ()),
            ))  # fmt: skip
        except TypeError:
            raise PolicyFailed("the input document lacks a text") from None
        for number in (self.time, self.delivery, user.auth_time):
            if type(number) is not int or not 0 <= number <= _MAX_INTEGER:
                raise PolicyFailed("time, delivery and auth_time are whole numbers, not below zero")
        if user.present is not True and user.present is not False:
            raise PolicyFailed("present is not a boolean")
        if self.properties:
            check_properties("action.properties", self.properties)
        if resource.properties:
            check_properties("resource.properties", resource.properties)
        if user.claims:
            check_properties("context.user.claims", user.claims)


def input_document(request: Request) -> InputDocument:
    """Return the exact JSON bytes that are decided on and recorded: compact UTF-8, equal for equal requests.

    Keys are in a fixed order, those of properties and claims sorted. Raises `PolicyFailed` for a document of over 65,536
    bytes and for text that is not Unicode.
    """
    user, resource, grant = request.user, request.resource, request.grant
    document = {
        "v": 1,
        "subject": {
            "type": "workload",
            "id": request.subject,
            "properties": {"trust_domain": request.trust_domain},
        },
        "action": {"name": request.action, "properties": _sorted(request.properties)},
        "resource": {"type": resource.type, "id": resource.id, "properties": _sorted(resource.properties)},
        "context": {
            "time": rfc3339(request.time // SECOND),
            "subject": request.nats_subject,
            "kind": request.kind,
            "message_id": request.message_id,
            "tenant": request.tenant,
            "delivery": request.delivery,
            "user": {
                "present": user.present,
                "id": user.id,
                "idp": user.idp,
                "session": user.session,
                "txn": user.txn,
                "client": user.client,
                "scope": user.scope,
                "claims": _sorted(user.claims),
                "acr": user.acr,
                "auth_time": user.auth_time,
                "type": user.type,
                "domain": user.domain,
            },
            "chain": request.chain,
            "grant": {"limited": grant is not None, "actions": () if grant is None else grant},
        },
    }
    try:
        encoded = to_json(document)
    except PydanticSerializationError as error:
        raise PolicyFailed("a text of the input document is not Unicode") from error
    if len(encoded) > DEFAULT_LIMITS.input_document_bytes:
        raise PolicyFailed(f"the input document has {len(encoded)} bytes")
    return InputDocument(encoded)


def completed_document(document: InputDocument) -> InputDocument:
    """Return a recorded `document` with what documents had not when it was made, so that today's policies can be asked.

    A user from before there were `type` and `domain` gets what was assumed then: to be a user, and one of our own.
    """
    found = _UNTYPED.search(document)
    if found is None:
        return document
    kind = b"user" if document.find(b'"user":{"present":true,') >= 0 else b""
    added = b',"type":"%b","domain":""' % kind
    if len(document) + len(added) > DEFAULT_LIMITS.input_document_bytes:
        return document
    return InputDocument(document[: found.end()] + added + document[found.end() :])


@lru_cache(maxsize=64)  # messages of the same second have the same text
def rfc3339(seconds: int) -> str:
    """Return `seconds` since the Unix epoch as RFC 3339 in UTC with `Z`, to the second.

    All have one length, so that they compare as texts; a fraction would break that, and one engine's parser accepts forms
    that the other's refuses.
    """
    try:
        return (_EPOCH + datetime.timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")
    except OverflowError as error:
        raise PolicyFailed("time is beyond the year 9999") from error


def _sorted(properties: Mapping[str, object]) -> dict[str, object]:
    return dict(properties) if len(properties) < 2 else dict(sorted(properties.items()))


def check_properties(where: str, properties: Mapping[str, object]) -> None:
    """Raise `PolicyFailed`, naming it, for the first property that the engines might read differently (`Request`)."""
    for name, value in properties.items():
        if not isinstance(name, str):
            raise PolicyFailed(f"{where} has a name that is no text")
        # Most are text; the other checks are for the rest.
        if isinstance(value, str):
            continue
        for item in value if isinstance(value, list | tuple) else (value,):
            if not _is_scalar(item):
                raise PolicyFailed(f"{where}.{name} is or holds {_called(item)}")


def _is_scalar(value: object) -> bool:
    if type(value) is int:
        return -_MAX_INTEGER <= value <= _MAX_INTEGER
    return isinstance(value, str | bool)


def _called(value: object) -> str:
    if isinstance(value, int):
        return "an integer beyond 9007199254740991"
    kind = "null" if value is None else f"a {type(value).__name__}"
    return f"{kind}: declare text, whole numbers, booleans or lists of them"
