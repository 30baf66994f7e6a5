"""What a denial asks for, and the question whether somebody may give it."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any, cast

import pytest
from support.policies import document

from sealbus.envelopes.errors import PolicyFailed
from sealbus.policies.decision.approval import ApprovalObligation, approval_of, approval_question
from sealbus.policies.decision.decision import parse_decision, unknown_obligation
from sealbus.policies.decision.documents import InputDocument

LEAST: dict[str, Any] = {"type": "approval", "queue": "managers", "text": "Pay 1200 EUR to ACME", "until": 604_800}
MOST: dict[str, Any] = {
    **LEAST, "count": 1, "acr": ["urn:example:silver", "mfa"], "max_age": 300, "follows": ["ledger.post", "mail.*"],
    "body": False,
}  # fmt: skip


def read(*obligations: dict[str, Any]) -> ApprovalObligation | None:
    """Return what a denial with `obligations` asks for, as an engine's answer is read."""
    answer = {"allow": False, "reasons": ["over_limit"], "obligations": list(obligations), "policy": "p"}
    return approval_of(parse_decision(answer, revision="r", engine="e", micros=0).obligations)


def test_what_must_be_said_is_enough() -> None:
    assert read(LEAST) == ApprovalObligation(
        queue="managers", text="Pay 1200 EUR to ACME", until=604_800, count=1, acr=(), max_age=None, follows=(),
        body=True, json=b"",
    )  # fmt: skip


def test_everything_that_may_be_said() -> None:
    found = read({"type": "show_reasons"}, MOST, {"type": "remedy", "kind": "login"})
    assert found == ApprovalObligation(
        queue="managers", text="Pay 1200 EUR to ACME", until=604_800, count=1, acr=("urn:example:silver", "mfa"),
        max_age=300, follows=("ledger.post", "mail.*"), body=False, json=b"",
    )  # fmt: skip
    assert found.json == json.dumps(MOST, sort_keys=True, separators=(",", ":")).encode()


@pytest.mark.parametrize(
    "said",
    [
        *({"queue": one} for one in ("", "a.b", "*", ">", "a b", "ä", "x" * 65, 1, None)),
        *({"text": one} for one in ("", "a\nb", "a\x1bb", "a\u0085b", 1, None, ["a"])),
        *({"until": one} for one in (0, -1, 2_592_001, True, "1", None)),
        *({"count": one} for one in (0, 2, True, "1", None)),
        *(
            {"acr": one}
            for one in cast(
                "list[object]", ["mfa", [""], ["a b"], ['a"'], ["a\\"], ["ä"], [1], None, {}, ["x" * 200, "y" * 56]]
            )
        ),
        *({"max_age": one} for one in (-1, 31_536_001, True, "1", None)),
        *({"follows": one} for one in cast("list[object]", ["a.b", ["*"], ["a..b"], [""], ["a.b c"], [1], None, {}])),
        *({"body": one} for one in (0, "no", None)),
        {"quorum": 2},
    ],
)
def test_one_that_is_malformed_is_none(said: dict[str, Any]) -> None:
    assert read(MOST) is not None
    assert read({**MOST, **said}) is None


@pytest.mark.parametrize("name", ["queue", "text", "until"])
def test_what_must_be_said(name: str) -> None:
    assert read({key: value for key, value in MOST.items() if key != name}) is None


@pytest.mark.parametrize(
    "said",
    [
        {"queue": "x" * 64}, {"queue": "a_B-1"}, {"text": "x" * 256}, {"text": "ü" * 128}, {"until": 1},
        {"until": 2_592_000}, {"acr": []}, {"acr": ["x" * 200, "y" * 55]}, {"max_age": 0}, {"max_age": 31_536_000},
        {"follows": []}, {"body": True},
    ],
)  # fmt: skip
def test_the_bounds_are_inside(said: dict[str, Any]) -> None:
    assert read({**MOST, **said}) is not None


def test_a_text_that_no_record_could_hold() -> None:
    with pytest.raises(ValueError, match="256 bytes"):
        ApprovalObligation.parse({**LEAST, "text": "ü" * 129})


def test_of_several_none_counts() -> None:
    assert read(LEAST, LEAST) is None
    assert read(LEAST, {**LEAST, "queue": ""}) is None
    assert read({"type": "remedy", "kind": "approval", "action": "a.b"}) is None
    assert read() is None


def test_another_type_is_none() -> None:
    with pytest.raises(ValueError, match="another type"):
        ApprovalObligation.parse({**LEAST, "type": "remedy"})


def test_one_that_asks_for_the_same_is_the_same_however_it_is_written() -> None:
    one = read(LEAST)
    other = read(dict(reversed([*LEAST.items(), ("count", 1), ("acr", []), ("follows", []), ("body", True)])))
    assert one is not None
    assert other is not None
    assert one == other
    assert one.json != other.json


@pytest.mark.parametrize(
    "said",
    [
        {"queue": "owners"}, {"text": "Pay 1201 EUR to ACME"}, {"until": 604_801}, {"acr": ["mfa"]}, {"max_age": 301},
        {"follows": []}, {"body": True},
    ],
)  # fmt: skip
def test_one_that_asks_for_anything_else_is_another(said: dict[str, Any]) -> None:
    one, other = read(MOST), read({**MOST, **said})
    assert other is not None
    assert one != other


def test_in_an_allow_it_is_one_that_nobody_honours() -> None:
    assert unknown_obligation([LEAST], frozenset({"mask"})) == "approval"


# The question


OBLIGATION = b'{"queue":"managers","type":"approval"}'


def test_the_question_is_the_document_with_what_it_is_about() -> None:
    asked, of = document("payments._approve"), document("payments.pay")
    found = approval_question(asked, of=bytes(of), obligation=OBLIGATION)
    assert isinstance(found, InputDocument)
    assert found == asked[:-1] + b',"of":' + of + b',"obligation":' + OBLIGATION + b"}"
    assert json.loads(found) == {**json.loads(asked), "of": json.loads(of), "obligation": json.loads(OBLIGATION)}
    assert list(json.loads(found))[-2:] == ["of", "obligation"]


@pytest.mark.parametrize(
    ("of", "obligation"),
    [
        (b"{}", b'{},"subject":{}'),
        (b'{},"extra":{}', b"{}"),
        (b"[]", b"{}"),
        (b"{}", b"null"),
        (b'{"a":1.5}', b"{}"),
        (b"", b"{}"),
        (b"{}", b'{"until":1,"until":2}'),
        (b'{"a":' * 32 + b"1" + b"}" * 32, b"{}"),
    ],
)
def test_a_part_is_one_object_and_no_more(of: bytes, obligation: bytes) -> None:
    with pytest.raises(PolicyFailed):
        approval_question(document(), of=of, obligation=obligation)


def test_a_question_of_a_question_is_none() -> None:
    once = approval_question(document(), of=b"{}", obligation=b"{}")
    with pytest.raises(PolicyFailed, match="twice"):
        approval_question(once, of=b"{}", obligation=b"{}")


def test_the_question_is_no_longer_than_any_document() -> None:
    room = 65_536 - len(approval_question(document(), of=b'{"a":""}', obligation=b"{}"))
    for more, fits in ((0, True), (1, False)):
        of = b'{"a":"' + b"x" * (room + more) + b'"}'
        if fits:
            assert len(approval_question(document(), of=of, obligation=b"{}")) == 65_536
        else:
            with pytest.raises(PolicyFailed, match="65537 bytes"):
                approval_question(document(), of=of, obligation=b"{}")


def test_an_obligation_is_checked_however_it_is_made() -> None:
    found = read(MOST)
    assert found is not None
    with pytest.raises(ValueError, match="until"):
        replace(found, until=0)
