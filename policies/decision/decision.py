"""A policy engine's answer: a decision of an exact form, or an error. Only `allow is True` allows."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, cast

from sealbus.envelopes.denial import Remedy, remedies_of
from sealbus.envelopes.encoding.codec import is_text
from sealbus.envelopes.encoding.strict_json import Json
from sealbus.envelopes.errors import PolicyFailed
from sealbus.envelopes.limits import DEFAULT_LIMITS
from sealbus.policies.decision.documents import whole_numbers

OBLIGATIONS: Final = 16
"""Most obligations of one decision."""
OBLIGATION_NESTING: Final = 8
OBLIGATION_VALUES: Final = 256
"""Most values inside all obligations of one decision, each text at most 256 bytes. One record can hold these."""

SHOW_REASONS: Final = "show_reasons"
"""The obligation that sealbus itself honours everywhere: the requester may see the reasons."""

REMEDY: Final = "remedy"
"""The obligation of a denial that says how to get an allow. In an allow it has no special meaning."""

_KEYS: Final = frozenset({"allow", "reasons", "obligations", "policy"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """One decision on one input document, as an engine made it.

    `revision` is the revision of the policy bundle that decided. `micros` is the engine's time in microseconds, or the share
    of this document if many were decided together. Reasons and `policy`, the policy's own name, are texts that fit into a
    record.
    """

    allow: bool
    reasons: tuple[str, ...] = ()
    obligations: tuple[Mapping[str, object], ...] = ()
    policy: str = ""
    revision: str
    engine: str
    micros: int = 0


def parse_decision(answer: object, *, revision: str, engine: str, micros: int) -> Decision:
    """Parse a decision; raise `PolicyFailed` for anything else.

    `answer` is decoded JSON: an object with the keys allow (boolean), reasons (at most 32 texts of at most 256 bytes),
    obligations (at most 16 objects) and policy (text of 1 to 256 bytes), and no others. Undefined, a bare
    boolean and a truthy text are failures; they never allow.
    """
    if type(answer) is not dict or answer.keys() != _KEYS:
        raise PolicyFailed("the answer is not an object of allow, reasons, obligations and policy")
    allow = answer["allow"]
    if allow is not True and allow is not False:
        raise PolicyFailed("allow is not a boolean")
    policy, reasons = parse_texts(answer["policy"], answer["reasons"])
    return Decision(
        allow=allow,
        reasons=reasons,
        obligations=_obligations(answer["obligations"]),
        policy=policy,
        revision=revision,
        engine=engine,
        micros=micros,
    )


def obligations_json(decision: Decision | None) -> bytes:
    """Return a decision's obligations as they are recorded: a compact JSON array with sorted names, empty for none."""
    if decision is None or not decision.obligations:
        return b""
    return json.dumps(
        [dict(obligation) for obligation in decision.obligations],
        separators=(",", ":"),
        ensure_ascii=False,
        sort_keys=True,
    ).encode()


def shows_reasons(obligations: Sequence[Mapping[str, object]]) -> bool:
    """Return whether the requester may see the reasons of a decision with these obligations."""
    return any(obligation.get("type") == SHOW_REASONS for obligation in obligations)


def remedies(decision: Decision) -> tuple[Remedy, ...]:
    """Return the remedies in the obligations of a denial, without those that are not a valid `Remedy`."""
    if decision.allow is not False:
        return ()
    suggested = [dict(obligation) for obligation in decision.obligations if obligation.get("type") == REMEDY]
    for remedy in suggested:
        del remedy["type"]
    return remedies_of(suggested)


def unknown_obligation(obligations: Sequence[Mapping[str, object]], honours: AbstractSet[str]) -> str | None:
    """Return the type of an allow's first obligation that nobody honours, or `None` if all are honoured.

    The agent honours the types in `honours`, and sealbus honours `show_reasons`. In a denial sealbus honours `remedy` and
    `approval` (`approval_of`), and ignores all other obligations.

    An obligation without a type, or with a type that is not a text, is never honoured; its type is "". An obligation that is
    not honoured turns an allow into a denial, because a decision must not be enforced in part.
    """
    for obligation in obligations:
        named = obligation.get("type")
        if type(named) is not str or not named or not (named == SHOW_REASONS or named in honours):
            return named if type(named) is str else ""
    return None


def parse_texts(policy: object, reasons: object) -> tuple[str, tuple[str, ...]]:
    """Return the name that a policy gives itself in an answer, and its reasons.

    Raises `PolicyFailed` unless the name has 1 to 256 bytes, and the reasons are at most 32 texts of at most 256 bytes.
    """
    if type(policy) is not str or not policy or not is_text(policy):
        raise PolicyFailed("policy is not a short text")
    if type(reasons) is not list or len(reasons) > DEFAULT_LIMITS.text_items:
        raise PolicyFailed(f"reasons are not an array of at most {DEFAULT_LIMITS.text_items}")
    for reason in reasons:
        if type(reason) is not str or not is_text(reason):
            raise PolicyFailed("a reason is not a text of at most 256 bytes without control characters")
    return policy, tuple(reasons)


def _obligations(value: object) -> tuple[Mapping[str, object], ...]:
    if type(value) is not list or len(value) > OBLIGATIONS:
        raise PolicyFailed(f"obligations are not an array of at most {OBLIGATIONS}")
    if not value:
        return ()
    if any(type(item) is not dict for item in value):
        raise PolicyFailed("an obligation is not an object")
    if _count(value, OBLIGATION_NESTING, OBLIGATION_VALUES) < 0:
        raise PolicyFailed("obligations are nested too deep, or have too many values or too long texts")
    try:
        whole_numbers(cast("Json", value))
    except ValueError as error:
        raise PolicyFailed(f"obligations: {error}") from None
    return tuple(MappingProxyType(cast("dict[str, object]", item)) for item in value)


def _count(value: object, depth: int, left: int) -> int:
    """Return how many values may follow `value`; below zero if it is too large, nested too deep, or has too long a text."""
    if isinstance(value, str) and len(value) > DEFAULT_LIMITS.text_bytes:
        return -1
    left -= 1
    if not isinstance(value, list | dict):
        return left
    if not depth:
        return -1
    items: list[object] = value if isinstance(value, list) else [*value.keys(), *value.values()]
    for item in items:
        if left < 0:
            break
        left = _count(item, depth - 1, left)
    return left
