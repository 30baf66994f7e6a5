"""The policy request: one input document in the form of AuthZEN, complete and typed before any engine sees it.

Every key is present, and no value is null: engines differ on malformed input, and a deny rule that is silently undefined
makes a policy fail open. Absent values are empty values of their type.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import lru_cache
from typing import Final

from sealbus.envelopes.errors import PolicyFailed
from sealbus.envelopes.limits import DEFAULT_LIMITS, SECOND
from sealbus.envelopes.message.declaration import NOTHING_DECLARED, Declaration
from sealbus.policies.decision.documents import InputDocument, bounded_document, encoded_json

_MAX_INTEGER: Final = DEFAULT_LIMITS.max_integer
_UNTYPED: Final = re.compile(rb'"auth_time":\d+(?=\},"chain":\[)')
"""The end of a user without `type`. No text can match, because its quotes are escaped."""
_UNAPPROVED: Final = re.compile(rb'"grant":\{"limited":(?:true|false),"actions":\[[^\[\]]*\]\}(?=\}\}\Z)')
"""The end of a context without `approvals`. No text can match here either."""
_DIGEST: Final = 32
_EPOCH: Final = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)


def _check_texts(*texts: object) -> None:
    try:
        # Joining checks in C that each value is a text. This runs for every message.
        "".join(texts)  # type: ignore[arg-type]  # join raises for anything else
    except TypeError:
        raise PolicyFailed("the input document lacks a text") from None


def _check_numbers(*numbers: object) -> None:
    for number in numbers:
        if type(number) is not int or not 0 <= number <= _MAX_INTEGER:
            raise PolicyFailed("time, delivery and auth_time are whole numbers, not below zero")


def check_properties(where: str, properties: Mapping[str, object]) -> None:
    """Raise `PolicyFailed` for the first property that the engines might read differently (`Request`), with its name."""
    for name, value in properties.items():
        if not isinstance(name, str):
            raise PolicyFailed(f"{where} has a name that is no text")
        # Most properties are texts.
        if isinstance(value, str):
            continue
        for item in value if isinstance(value, list | tuple) else (value,):
            if not _is_scalar(item):
                raise PolicyFailed(f"{where}.{name} is or holds {_description(item)}")


def _is_scalar(value: object) -> bool:
    if type(value) is int:
        return -_MAX_INTEGER <= value <= _MAX_INTEGER
    return isinstance(value, str | bool)


def _description(value: object) -> str:
    if isinstance(value, int):
        return "an integer beyond 9007199254740991"
    kind = "null" if value is None else f"a {type(value).__name__}"
    return f"{kind}: declare text, whole numbers, booleans or lists of them"


@dataclass(frozen=True, slots=True, kw_only=True)
class Resource:
    """The resource of the action, as the agent that owns it knows it."""

    type: str
    id: str
    properties: Mapping[str, object] = field(default_factory=dict)


NO_RESOURCE: Final = Resource(type="none", id="none")
"""The resource of an action that loads none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """The user behind the message, as the edge signed it; `auth_time` in seconds since the Unix epoch, 0 if unknown.

    `type` is `user`, `client` (an OAuth client that acts for itself) or `workload` (an external workload). `domain` is the
    domain of a partner's user, empty for our own users. The id of a partner's user ends with `@` and that domain.
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

    def __post_init__(self) -> None:
        _check_texts(
            self.id, self.idp, self.session, self.txn, self.client, self.acr, self.type, self.domain, *self.scope
        )
        _check_numbers(self.auth_time)
        if self.present is not True and self.present is not False:
            raise PolicyFailed("present is not a boolean")
        check_properties("context.user.claims", self.claims)


NO_USER: Final = User(present=False, type="")

APPROVALS: Final = 16
"""Most approvals of one message."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenApproval:
    """A person's verdict on the message, which the agent has counted. Construction raises `PolicyFailed` if it is invalid.

    `verdict` is `approve` or `deny`. `user`, `idp`, `session`, `client`, `acr` and `auth_time` come from the person's
    context, as in `User`. `time` is the time of the verdict in microseconds, `message` the hash of its header, and `record`
    the leaf of the decision by which the verdict counts.
    """

    verdict: str
    user: str
    idp: str
    session: str = ""
    client: str = ""
    acr: str = ""
    auth_time: int = 0
    time: int
    message: bytes
    record: bytes

    def __post_init__(self) -> None:
        if self.verdict not in ("approve", "deny"):
            raise PolicyFailed("the verdict of an approval is approve or deny")
        if any(type(text) is not str for text in (self.user, self.idp, self.session, self.client, self.acr)):
            raise PolicyFailed("an approval lacks a text")
        for number in (self.auth_time, self.time):
            if type(number) is not int or not 0 <= number <= _MAX_INTEGER:
                raise PolicyFailed("time and auth_time of an approval are whole numbers, not below zero")
        if any(type(digest) is not bytes or len(digest) != _DIGEST for digest in (self.message, self.record)):
            raise PolicyFailed(f"message and record of an approval are {_DIGEST} bytes")


@dataclass(frozen=True, slots=True, kw_only=True)
class Parked:
    """The time since when the message has waited for approval, as `rfc3339` writes it, and the revision that parked it."""

    since: str = ""
    revision: str = ""

    def __post_init__(self) -> None:
        if type(self.since) is not str or type(self.revision) is not str:
            raise PolicyFailed("since and revision of a parked message are texts")


NOT_PARKED: Final = Parked()


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """The sender, its user, its chain and its grant, which many messages have in common.

    `chain` has SPIFFE IDs, the root first. `grant` has the actions that the chain's narrowest grant allows, None for no
    limit. `declared` is what the sender declares of itself. Construction raises `PolicyFailed` as for `Request`. The
    caller's part of the input document is made only once.
    """

    subject: str
    trust_domain: str
    tenant: str = ""
    user: User = NO_USER
    chain: tuple[str, ...] = ()
    grant: tuple[str, ...] | None = None
    declared: Declaration = NOTHING_DECLARED
    encoded: tuple[bytes, bytes] = field(init=False, repr=False, compare=False)
    """The bytes before the action's name, and the bytes between the number of the delivery and the approvals."""

    def __post_init__(self) -> None:
        user, grant = self.user, self.grant
        _check_texts(self.subject, self.trust_domain, self.tenant, *self.chain, *(grant or ()))
        properties = {"trust_domain": self.trust_domain, **_declared(self.declared)}
        subject = {"type": "workload", "id": self.subject, "properties": properties}
        rest = {
            "user": {**_members(user), "claims": _sorted(user.claims)},
            "chain": self.chain,
            "grant": {"limited": grant is not None, "actions": () if grant is None else grant},
        }
        encoded = b'{"v":1,"subject":%b,"action":{"name":' % encoded_json(subject), b",%b" % encoded_json(rest)[1:-1]
        object.__setattr__(self, "encoded", encoded)


def _declared(declaration: Declaration) -> dict[str, str]:
    """Return what is declared, by the names of the input document; hashes in hexadecimal."""
    told = {"model": declaration.model, "prompt": declaration.prompt.hex(), "tools": declaration.tools.hex()}
    return {name: value for name, value in told.items() if value}


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One question: whether this caller may do this action on this resource now.

    `time` is in microseconds since the Unix epoch. `approvals`, at most 16, and `parked` are empty except for a message that
    waited for approval and is decided again. Construction raises `PolicyFailed` for values that the engines might read
    differently. Properties and claims hold texts, booleans, integers within 2^53-1 and lists of these, without null,
    fractions or nesting. Every text field must be a text.
    """

    caller: Caller
    action: str
    properties: Mapping[str, object] = field(default_factory=dict)
    resource: Resource = NO_RESOURCE
    time: int
    nats_subject: str
    kind: str
    message_id: str
    delivery: int = 1
    approvals: tuple[GivenApproval, ...] = ()
    parked: Parked = NOT_PARKED

    def __post_init__(self) -> None:
        resource = self.resource
        _check_texts(self.action, self.nats_subject, self.kind, self.message_id, resource.type, resource.id)
        _check_numbers(self.time, self.delivery)
        if self.properties:
            check_properties("action.properties", self.properties)
        if resource.properties:
            check_properties("resource.properties", resource.properties)
        if self.parked is not NOT_PARKED and type(self.parked) is not Parked:
            raise PolicyFailed("parked is no Parked")
        if self.approvals and (
            len(self.approvals) > APPROVALS or any(type(approval) is not GivenApproval for approval in self.approvals)
        ):
            raise PolicyFailed(f"approvals are at most {APPROVALS}, each a GivenApproval")


def input_document(request: Request) -> InputDocument:
    """Return the exact JSON bytes that are decided and recorded: compact UTF-8, equal for equal requests.

    Keys have a fixed order; those of properties and claims are sorted. Raises `PolicyFailed` for a document of over 65,536
    bytes and for text that is not Unicode.
    """
    resource, parked = request.resource, request.parked
    before, rest = request.caller.encoded
    encoded = b"".join((
        before, _text(request.action),
        b',"properties":', encoded_json(_sorted(request.properties)) if request.properties else b"{}",
        b'},"resource":', _NO_RESOURCE if resource is NO_RESOURCE else _resource(resource),
        b',"context":{"time":', _text(rfc3339(request.time // SECOND)),
        b',"subject":', _text(request.nats_subject),
        b',"kind":', _text(request.kind),
        b',"message_id":', encoded_json(request.message_id),
        b',"tenant":', _text(request.caller.tenant),
        b',"delivery":%d' % request.delivery,
        rest,
        b',"approvals":', _approvals(request.approvals) if request.approvals else b"[]",
        b',"parked":', _NOT_PARKED if parked is NOT_PARKED else _parked(parked),
        b"}}",
    ))  # fmt: skip
    return bounded_document(encoded)


_text = lru_cache(maxsize=256)(encoded_json)
"""As `encoded_json`, for texts that are the same from message to message."""


def _resource(resource: Resource) -> bytes:
    return encoded_json({"type": resource.type, "id": resource.id, "properties": _sorted(resource.properties)})


def _approvals(approvals: Sequence[GivenApproval]) -> bytes:
    return encoded_json(
        [
            {
                **_members(approval),
                "time": rfc3339(approval.time // SECOND),
                "message": approval.message.hex(),
                "record": approval.record.hex(),
            }
            for approval in approvals
        ]
    )


def _parked(parked: Parked) -> bytes:
    return encoded_json({"since": parked.since, "revision": parked.revision})


def completed_document(document: InputDocument) -> InputDocument:
    """Return a recorded `document` with the members that were added to documents later, so that a policy can decide on it.

    A user without `type` and `domain` becomes a user of our own, as was assumed then. A message without `approvals` had
    none.
    """
    completed = bytes(document)
    if (untyped := _UNTYPED.search(completed)) is not None:
        kind = b"user" if completed.find(b'"user":{"present":true,') >= 0 else b""
        completed = _inserted(completed, untyped.end(), b',"type":"%b","domain":""' % kind)
    if (unapproved := _UNAPPROVED.search(completed)) is not None:
        completed = _inserted(completed, unapproved.end(), b',"approvals":[],"parked":{"since":"","revision":""}')
    return InputDocument(completed) if len(completed) <= DEFAULT_LIMITS.input_document_bytes else document


@lru_cache(maxsize=64)  # messages of the same second have the same text
def rfc3339(seconds: int) -> str:
    """Return `seconds` since the Unix epoch as RFC 3339 in UTC with `Z`, to the second.

    All results have the same length, so they compare as texts. A fraction would break that, and one engine parses forms of
    fractions that the other refuses.
    """
    try:
        return (_EPOCH + datetime.timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")
    except OverflowError as error:
        raise PolicyFailed("time is beyond the year 9999") from error


_MEMBERS: Final = {kind: tuple(member.name for member in fields(kind)) for kind in (User, GivenApproval)}


def _members(value: User | GivenApproval) -> dict[str, object]:
    """Return the fields of `value` by name, in the order of the input document."""
    return {name: getattr(value, name) for name in _MEMBERS[type(value)]}


def _inserted(document: bytes, place: int, added: bytes) -> bytes:
    return document[:place] + added + document[place:]


def _sorted(properties: Mapping[str, object]) -> dict[str, object]:
    return dict(properties) if len(properties) < 2 else dict(sorted(properties.items()))


_NO_RESOURCE: Final = _resource(NO_RESOURCE)
_NOT_PARKED: Final = _parked(NOT_PARKED)
