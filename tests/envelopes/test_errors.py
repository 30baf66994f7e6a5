"""The error tree: each error has its code, says whose fault it is, and tells nothing else."""

from __future__ import annotations

import pytest

from sealbus.envelopes import errors
from sealbus.envelopes.denial import Explanation
from sealbus.envelopes.errors import (
    RETRIED_CODES,
    BadBody,
    Code,
    ConnectRefused,
    Denied,
    EnvelopeError,
    HandlingError,
    LogError,
    SealbusError,
)


def test_an_error_is_its_code_and_its_detail() -> None:
    assert str(BadBody("does not fit at item_id")) == "bad_body: does not fit at item_id"
    assert str(BadBody()) == "bad_body"


def test_a_refusal_keeps_its_code_at_another_step() -> None:
    moved = EnvelopeError(Code.BAD_SIGNATURE, 8, "proof").at_step(11)
    assert (moved.code, moved.step, moved.detail) == (Code.BAD_SIGNATURE, 11, "proof")


def test_a_denial_has_its_reasons() -> None:
    denied = Denied("no", ["not_owner"])
    assert denied.reasons == ("not_owner",)
    assert denied.explanation == (("not_owner",), (), ())
    assert (str(denied), str(Denied("no"))) == ("denied: no (not_owner)", "denied: no")


def test_a_refused_connection_says_why() -> None:
    refused = ConnectRefused(Code.UNKNOWN_TRUST_DOMAIN, "of its certificate")
    assert (refused.code, str(refused)) == (Code.UNKNOWN_TRUST_DOMAIN, "unknown_trust_domain: of its certificate")


def test_a_handler_fails_with_a_handlers_code_only() -> None:
    assert HandlingError(Code.HANDLER_TIMEOUT, "over 30 s").code is Code.HANDLER_TIMEOUT
    with pytest.raises(ValueError, match="not a handler's code"):
        HandlingError(Code.EXPIRED)
    assert HandlingError(Code.DENIED, "", Explanation(("late",))).explanation.reasons == ("late",)


def test_a_log_is_refused_with_a_logs_code_only() -> None:
    assert str(LogError(Code.BAD_TILE, "length")) == "bad_tile: length"
    with pytest.raises(ValueError, match="not a log's code"):
        LogError(Code.MALFORMED)


def test_every_error_is_of_one_root_and_codes_are_not_repeated() -> None:
    assert issubclass(EnvelopeError, SealbusError)
    assert len({code.value for code in Code}) == len(Code)
    assert Code.POLICY_ERROR not in RETRIED_CODES


def drawn(error: type[SealbusError]) -> list[str]:
    """Return the tree of `error` and its subclasses in `errors`, a line each, with the code of those that have one."""
    own = [child for child in error.__subclasses__() if child.__module__ == errors.__name__]
    code = vars(error).get("code")
    lines = [f"{error.__name__}: {code}{', retried' if code in RETRIED_CODES else ''}" if code else error.__name__]
    for number, child in enumerate(own, start=1):
        first, *rest = drawn(child)
        bar = " " if number == len(own) else "|"
        lines += [f"+-- {first}", *(f"{bar}   {line}" for line in rest)]
    return lines


def test_the_tree_in_the_docstring_is_that_of_the_classes() -> None:
    shown = (errors.__doc__ or "").split("::\n\n")[1].split("\n\n")[0]
    assert shown == "\n".join(f"    {line}" for line in drawn(SealbusError))
