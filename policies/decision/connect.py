"""Decisions on connections to NATS: whether a workload may connect, and what it may do there.

The policy is asked at `data.sealbus.connect.decision`. The answer names subjects as NATS does, with one addition: a SPIFFE
ID in braces stands for its subject token, `status.{spiffe://example.org/agent/shop}.*`, and `{self}` for the token of the
connecting workload. So policies name workloads as the settings do, and need not know their tokens.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, TypeAlias

from sealbus.envelopes.errors import PolicyFailed, PolicyUnavailable
from sealbus.envelopes.limits import DEFAULT_LIMITS, SECOND
from sealbus.policies.decision.decision import parse_texts
from sealbus.policies.decision.documents import InputDocument, bounded_document, encoded_json
from sealbus.policies.decision.placement import Placement
from sealbus.policies.decision.request import rfc3339

CONNECT: Final = "data.sealbus.connect.decision"
"""The rule that decides one connection. Its input is the connection."""

SUBJECTS: Final = 4_096
"""Most subjects in one list. A user JWT with this many is still far below NATS' largest message."""

_TOKEN: Final = r"(?:[^\s.*>{}]|\{self\}|\{spiffe://[^\s{}]+\})+"
_SUBJECT: Final = re.compile(rf"(?:(?:{_TOKEN}|\*)\.)*(?:{_TOKEN}|\*|>)")
_QUEUED: Final = re.compile(rf"(?:(?:{_TOKEN}|\*)\.)*(?:{_TOKEN}|\*|>)(?: {_TOKEN})?")
_SUBJECT_LENGTH: Final = 4_096
_ALLOWED: Final = frozenset({"allow", "reasons", "policy", "account", "publish", "subscribe", "limits"})
_DENIED: Final = frozenset({"allow", "reasons", "policy"})
_ACCOUNT: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnSubjectFacts:
    """One own subject of the settings as a policy sees it; `durable` is the consumer's name, for tasks only."""

    subject: str
    kind: str
    owner: str
    action: str
    durable: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectRequest:
    """One question: whether this workload may connect to this server now, in which account, and with which subjects.

    `token` is the workload's subject token in the settings. `not_after` is the end of its X.509-SVID; it and `time` are in
    microseconds since the Unix epoch. `server` is the nkey with which the server signed the request.
    """

    subject: str
    trust_domain: str
    token: str
    server: str
    server_name: str
    time: int
    not_after: int
    own: Sequence[OwnSubjectFacts] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SubjectRules:
    """NATS subject filters of a policy. Subjects in `allow` and not in `deny` are permitted."""

    allow: tuple[str, ...]
    deny: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectLimits:
    """Bounds of one connection, -1 for none: subscriptions, bytes of a payload, bytes in all."""

    subscriptions: int
    payload: int
    data: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectDecision:
    """One decision on one connection. If `allow` is false, it has reasons, and no account, subjects or limits.

    `revision` is the revision of the policy bundle that decided; `micros` is the engine's time in microseconds.
    """

    allow: bool
    reasons: tuple[str, ...] = ()
    policy: str
    account: str = ""
    publish: SubjectRules = SubjectRules(allow=(), deny=())
    subscribe: SubjectRules = SubjectRules(allow=(), deny=())
    limits: ConnectLimits = ConnectLimits(subscriptions=0, payload=0, data=0)
    revision: str
    engine: str
    micros: int = 0
    cells: Mapping[str, Placement] | None = None
    """The placement of each subject token by the bundle that decided; `None` from an OPA, whose bundle is not known here."""


ConnectAnswer: TypeAlias = ConnectDecision | PolicyUnavailable | PolicyFailed
"""An engine's answer. Errors are values, as in `Answer`."""


def connect_document(request: ConnectRequest) -> InputDocument:
    """Return the exact JSON bytes that a policy decides on: compact UTF-8, every key present, in a fixed order.

    Raises `PolicyFailed` for a document of over 65,536 bytes and for text that is not Unicode.
    """
    document = {
        "v": 1,
        "subject": {
            "type": "workload",
            "id": request.subject,
            "properties": {"trust_domain": request.trust_domain, "token": request.token},
        },
        "action": {"name": "nats.connect", "properties": {}},
        "resource": {"type": "nats_server", "id": request.server, "properties": {"name": request.server_name}},
        "context": {
            "time": rfc3339(request.time // SECOND),
            "not_after": rfc3339(request.not_after // SECOND),
            "own_subjects": [
                {name: getattr(own, name) for name in ("subject", "kind", "owner", "action", "durable")}
                for own in request.own
            ],
        },
    }
    return bounded_document(encoded_json(document))


def parse_connect(answer: object, *, revision: str, engine: str, micros: int) -> ConnectDecision:
    """Parse a decision on a connection from decoded JSON; raise `PolicyFailed` for anything else.

    ::

        {"allow": false, "reasons": ["unknown_workload"], "policy": "starter"}
        {"allow": true, "reasons": [], "policy": "starter", "account": "APP",
         "publish": {"allow": [...], "deny": []}, "subscribe": {"allow": [...], "deny": []},
         "limits": {"subscriptions": 8192, "payload": -1, "data": -1}}

    Each list has at most 4,096 subjects, with NATS wildcards. A subject in `subscribe` may be followed by a space and the
    only permitted queue group.
    """
    if type(answer) is not dict:
        raise PolicyFailed("the answer is not an object")
    allow = answer.get("allow")
    if answer.keys() != (_ALLOWED if allow is True else _DENIED):
        raise PolicyFailed("the answer does not have exactly the keys of a connection's decision")
    if allow is not True and allow is not False:
        raise PolicyFailed("allow is not a boolean")
    policy, reasons = parse_texts(answer["policy"], answer["reasons"])
    if allow is False:
        return ConnectDecision(
            allow=False, reasons=reasons, policy=policy, revision=revision, engine=engine, micros=micros
        )
    account = answer["account"]
    if type(account) is not str or _ACCOUNT.fullmatch(account) is None:
        raise PolicyFailed("account is not the name of an account")
    return ConnectDecision(
        allow=True,
        reasons=reasons,
        policy=policy,
        account=account,
        publish=_rules("publish", answer["publish"], _SUBJECT),
        subscribe=_rules("subscribe", answer["subscribe"], _QUEUED),
        limits=_limits(answer["limits"]),
        revision=revision,
        engine=engine,
        micros=micros,
    )


def _rules(where: str, value: object, form: re.Pattern[str]) -> SubjectRules:
    if type(value) is not dict or value.keys() != {"allow", "deny"}:
        raise PolicyFailed(f"{where} is not an object of allow and deny")
    # With an empty allow NATS permits everything. A workload that may use no subject need not connect.
    if not value["allow"]:
        raise PolicyFailed(f"{where} allows nothing, which NATS reads as everything")
    return SubjectRules(
        allow=_subjects(f"{where}.allow", value["allow"], form), deny=_subjects(f"{where}.deny", value["deny"], form)
    )


def _subjects(where: str, value: object, form: re.Pattern[str]) -> tuple[str, ...]:
    if type(value) is not list or len(value) > SUBJECTS:
        raise PolicyFailed(f"{where} is not an array of at most {SUBJECTS}")
    for subject in value:
        if type(subject) is not str or not _is_subject(subject, form):
            raise PolicyFailed(f"{where} has an item that is not a subject")
    return tuple(sorted(set(value)))


@lru_cache(maxsize=16_384)  # most subjects are granted to many workloads, and at every connection
def _is_subject(text: str, form: re.Pattern[str]) -> bool:
    return len(text) <= _SUBJECT_LENGTH and form.fullmatch(text) is not None


def _limits(value: object) -> ConnectLimits:
    if type(value) is not dict or value.keys() != {"subscriptions", "payload", "data"}:
        raise PolicyFailed("limits are not an object of subscriptions, payload and data")
    numbers: Mapping[str, object] = value
    if any(type(number) is not int or not -1 <= number <= DEFAULT_LIMITS.max_integer for number in numbers.values()):
        raise PolicyFailed("a limit is not a whole number from -1")
    return ConnectLimits(**value)
