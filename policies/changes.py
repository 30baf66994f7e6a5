"""What changed between a recorded decision and the one made now."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from sealbus.envelopes.errors import Code
from sealbus.envelopes.strict_json import parse_object
from sealbus.policies.decision import OBLIGATION_NESTING, Decision, obligations_json, unknown_obligation
from sealbus.policies.documents import canonical
from sealbus.policies.engine import Answer
from sealbus.policies.recorded import RecordedDecision, Verdict

__all__ = ["RISKS", "Change", "changes_of", "verdict_of"]


class Change(StrEnum):
    """One way in which a decision differs from the recorded one, the riskiest first."""

    DENY_TO_ALLOW = "deny-to-allow"
    ERROR_TO_ALLOW = "error-to-allow"
    """The recorded policy failed on it, so that nothing was handled; now it is allowed."""
    ALLOW_TO_DENY = "allow-to-deny"
    ALLOW_TO_ERROR = "allow-to-error"
    DENY_TO_ERROR = "deny-to-error"
    ERROR_TO_DENY = "error-to-deny"
    REASONS = "reasons"
    """The same verdict for other reasons."""
    OBLIGATIONS = "obligations"
    """The same verdict with other obligations."""


RISKS: Final = frozenset({Change.DENY_TO_ALLOW, Change.ERROR_TO_ALLOW})
"""What was not handled then and would be now."""

_VERDICTS: Final = {(then, now): f"{then}-to-{now}" for then in Verdict for now in Verdict if then is not now}
_TURNED: Final = {pair: Change(name) for pair, name in _VERDICTS.items()}


def verdict_of(answer: Answer) -> Verdict:
    """Return the verdict that an engine's answer is."""
    if not isinstance(answer, Decision):
        return Verdict.ERROR
    return Verdict.ALLOW if answer.allow is True else Verdict.DENY


def changes_of(recorded: RecordedDecision, answer: Answer) -> tuple[Change, ...]:
    """Return how `answer` differs from what was recorded about the same document; empty where it does not.

    A turned verdict is one change, whatever else changed with it. Reasons are compared in their order, obligations as
    JSON values. Two errors are the same: an error's text is not recorded.
    """
    then, now = recorded.verdict, verdict_of(answer)
    if then is not now:
        return (_TURNED[then, now],)
    if not isinstance(answer, Decision):
        return ()
    if recorded.code is Code.OBLIGATION_UNKNOWN and (
        unknown_obligation(answer.obligations, frozenset()) is None or not _obliges(recorded, answer)
    ):
        # It was allowed, and not handled for what it obliged to: without that it would be.
        return (Change.DENY_TO_ALLOW,)
    reasons = (Change.REASONS,) if answer.reasons != recorded.reasons else ()
    return reasons if _obliges(recorded, answer) else (*reasons, Change.OBLIGATIONS)


def _obliges(recorded: RecordedDecision, answer: Decision) -> bool:
    now = obligations_json(answer)
    return now == recorded.obligations or now == _again(recorded.obligations)


def _again(recorded: bytes) -> bytes | None:
    """Return recorded obligations as `obligations_json` writes them; None for what no policy can have answered."""
    try:
        # Strict parsing is for objects: more than the one name means that the bytes were no JSON value.
        document = parse_object(b'{"all":' + recorded + b"}", depth=OBLIGATION_NESTING + 3)
        if document.keys() != {"all"}:
            return None
        return canonical(document["all"]) if document["all"] != [] else b""
    except ValueError:
        return None
