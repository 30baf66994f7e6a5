"""What a policy is asked: one input document, AuthZEN-shaped, complete and typed before any engine sees it.

No key is ever missing and no value null: engines differ on malformed input, and a deny rule that silently does not fire
is how policies fail open (DESIGN: policies). Absent things have an empty value of their type.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass, field

from pydantic_core import PydanticSerializationError, to_json

from sealbus.envelopes.errors import PolicyFailed, SealError
from sealbus.envelopes.limits import DEFAULT_LIMITS, SECOND

__all__ = ["NO_USER", "Request", "Resource", "User", "input_document"]

MAX_INTEGER = DEFAULT_LIMITS.max_integer
_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Resource:
    """What the action is done to. `properties` hold text, integers, booleans and arrays of text."""

    type: str
    id: str
    properties: Mapping[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check(self.properties)


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """The user behind the message, as the edge signed it. `auth_time` is seconds since the Unix epoch, 0 if not known."""

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


NO_USER = User(present=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One question: may `subject` do `action` to `resource`, now, for this user, through this chain?

    `time` is microseconds since the Unix epoch; `chain` SPIFFE IDs, the root first; `grant` the actions that the chain's
    narrowest grant allows, absent for no limit.
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
        _check(self.properties)


def input_document(request: Request) -> bytes:
    """Return the exact JSON bytes that are decided on and recorded: compact UTF-8, keys in a fixed order.

    Raises `PolicyFailed` for a document over 65,536 bytes or one that cannot be JSON.
    """
    user, resource = request.user, request.resource
    document = {
        "v": 1,
        "subject": {
            "type": "workload",
            "id": request.subject,
            "properties": {"trust_domain": request.trust_domain},
        },
        "action": {"name": request.action, "properties": request.properties},
        "resource": {"type": resource.type, "id": resource.id, "properties": resource.properties},
        "context": {
            "time": rfc3339(request.time),
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
                "claims": user.claims,
                "acr": user.acr,
                "auth_time": user.auth_time,
            },
            "chain": request.chain,
            "grant": {
                "limited": request.grant is not None,
                "actions": request.grant if request.grant is not None else (),
            },
        },
    }
    try:
        encoded = to_json(document)
    except (PydanticSerializationError, ValueError) as error:
        raise PolicyFailed("the input document cannot be JSON") from error
    if len(encoded) > DEFAULT_LIMITS.input_document_bytes:
        raise PolicyFailed(f"the input document has {len(encoded)} bytes")
    return encoded


def rfc3339(time: int) -> str:
    """Return microseconds since the Unix epoch as RFC 3339 in UTC, whole seconds: what both engines parse alike."""
    return (_EPOCH + datetime.timedelta(seconds=time // SECOND)).strftime("%Y-%m-%dT%H:%M:%SZ")


def _check(properties: Mapping[str, object]) -> None:
    for name, value in properties.items():
        if not _allowed(value):
            raise SealError(f"property {name}: text, an integer, a boolean or an array of text")


def _allowed(value: object) -> bool:
    """Tell whether both engines read `value` alike; floats are not, and nothing is nested."""
    if isinstance(value, bool | str):
        return True
    if isinstance(value, int):
        return -MAX_INTEGER <= value <= MAX_INTEGER
    return isinstance(value, list | tuple) and all(isinstance(one, str) for one in value)
