"""What a policy engine answered: a decision, exactly shaped, or an error. Only `allow is True` allows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from sealbus.envelopes.errors import PolicyFailed

__all__ = ["MAX_OBLIGATIONS", "MAX_REASONS", "Decision", "parse_decision"]

MAX_REASONS = 32
"""Reasons of one decision; what a record can hold (SPEC.md section 8)."""
MAX_OBLIGATIONS = 32
MAX_TEXT = 256
"""Bytes of one reason or of the policy's name; the limit of text in a record (SPEC.md section 1)."""

_KEYS = frozenset({"allow", "reasons", "obligations", "policy"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """One decision about one input document. `revision` is the policy bundle's; `micros` what the engine took."""

    allow: bool
    reasons: tuple[str, ...] = ()
    obligations: tuple[Mapping[str, object], ...] = ()
    policy: str = ""
    revision: str
    engine: str
    micros: int = 0


def parse_decision(answer: object, *, revision: str, engine: str, micros: int) -> Decision:
    """Return the decision that `answer` is; raise `PolicyFailed` for anything that is not exactly one.

    `answer` is decoded JSON: an object with the keys allow (boolean), reasons (array of text), obligations (array of
    objects) and policy (text), no more and no fewer. Undefined, a bare boolean or a truthy text are errors, never allow.
    """
    if not isinstance(answer, dict) or answer.keys() != _KEYS:
        raise PolicyFailed("the policy's answer is not a decision object")
    allow, reasons, obligations, policy = (answer[key] for key in ("allow", "reasons", "obligations", "policy"))
    if allow is not True and allow is not False:
        raise PolicyFailed("allow is not a boolean")
    if not isinstance(reasons, list) or len(reasons) > MAX_REASONS or not all(map(_is_text, reasons)):
        raise PolicyFailed("reasons are not an array of short texts")
    if (
        not isinstance(obligations, list)
        or len(obligations) > MAX_OBLIGATIONS
        or not all(isinstance(one, dict) for one in obligations)
    ):
        raise PolicyFailed("obligations are not an array of objects")
    if not _is_text(policy):
        raise PolicyFailed("policy is not a short text")
    return Decision(
        allow=allow,
        reasons=tuple(reasons),
        obligations=tuple(MappingProxyType(one) for one in obligations),
        policy=policy,
        revision=revision,
        engine=engine,
        micros=micros,
    )


def _is_text(value: object) -> bool:
    """Tell whether `value` is text that a record can hold: at most 256 bytes, no control characters."""
    return isinstance(value, str) and len(value.encode("utf-8", "replace")) <= MAX_TEXT and value.isprintable()
