"""Tests as texts: names, files, and values that Rego reads back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealbus.envelopes.encoding.strict_json import Json
from sealbus.policies.lint.module import Module
from sealbus.policies.lint.regorus import Interpreter
from sealbus.policies.past import rego_text
from sealbus.policies.past.rego_text import PastTest, rego_files
from sealbus.policies.past.writing import is_writable

RULE = Module(path="rule.rego", text="package sealbus.authz\n\ndecision := input\n")
PLAIN = PastTest(
    rule="data.sealbus.authz.decision",
    leaf=b"\x01",
    document={"allow": False, "reasons": ["not owner", "X"]},
    answer={"allow": False, "reasons": ["not owner", "X"]},
)

TEXT = """# Written by `sealbus policy backtest --emit-tests`, from recorded decisions.
package sealbus.authz.past_test

# As in the record 01
test_deny_not_owner_x_NAME if {
	found := data.sealbus.authz.decision with input as {"allow": false, "reasons": ["not owner", "X"]}
	found == {"allow": false, "reasons": ["not owner", "X"]}
}
"""


def files(*tests: PastTest) -> Sequence[Module]:
    return list(rego_files(tests))


def test_a_file_with_a_test() -> None:
    [file] = files(PLAIN)
    assert file.path == "authz_past_test.rego"
    assert file.text == TEXT.replace("NAME", PLAIN.name.rpartition("_")[2])


def test_a_name_says_the_decision_and_is_of_its_own() -> None:
    assert replace(PLAIN, answer={"allow": True, "reasons": []}).name.startswith("test_allow_")
    other = replace(PLAIN, document={})
    elsewhere = replace(PLAIN, rule="data.sealbus.approval.decision")
    assert len({PLAIN.name, other.name, elsewhere.name}) == 3
    assert len(replace(PLAIN, answer={"allow": False, "reasons": ["r" * 200]}).name) < 90
    assert replace(PLAIN, answer={"allow": False, "reasons": None}).name.startswith("test_deny_")


def test_files_are_by_package_and_not_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rego_text, "FILE_BYTES", 2 * len(PLAIN.text.encode()))
    inside = [replace(PLAIN, document={"allow": number}) for number in range(5)]
    approval = replace(PLAIN, rule="data.sealbus.approval.decision")
    found = files(*inside, approval)
    assert [one.path for one in found] == [
        "approval_past_test.rego",
        "authz_past_test.rego",
        "authz_past_2_test.rego",
        "authz_past_3_test.rego",
    ]
    assert sum(one.text.count("test_deny") for one in found) == 6
    assert files(approval, *reversed(inside)) == found
    assert files() == []


def test_what_no_file_holds_is_told() -> None:
    assert is_writable(PLAIN)
    deep: Json = 1
    for _ in range(20):
        deep = {"a": deep}
    assert not is_writable(replace(PLAIN, document={"a": deep}))
    assert not is_writable(replace(PLAIN, document={"a": "x" * 2_000}))


VALUES: st.SearchStrategy[Json] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=40), inner, max_size=4),
    max_leaves=20,
)


@given(st.dictionaries(st.text(max_size=5), VALUES, max_size=5))
def test_any_writable_document_is_asked_about_as_it_is(document: dict[str, Json]) -> None:
    answer = {**document, "allow": True, "reasons": []}
    test = PastTest(rule=PLAIN.rule, leaf=b"", document=answer, answer=answer)
    if is_writable(test):
        interpreter = Interpreter([RULE, *files(test)], b"{}")
        assert interpreter.evaluate(f"data.{test.package}.{test.name}", b"{}") is True
