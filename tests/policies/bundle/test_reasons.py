"""Title and remedy of reasons, as data of the policy."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from support.policies import SCRIPTED, folder

from sealbus.envelopes.encoding.strict_json import Json
from sealbus.policies.bundle.files import STARTER, build_bundle
from sealbus.policies.bundle.library import library_modules
from sealbus.policies.bundle.reasons import MOST_LETTERS, ReasonWords, reason_words
from sealbus.policies.lint.module import PolicyRefused

WORDS: Json = {"title": "this is too much", "remedy": "take less"}


def test_the_library_has_words_for_each_reason_that_it_denies_for() -> None:
    words = reason_words(build_bundle(STARTER))
    for module in library_modules():
        conditions = re.findall(r'^\t\t"([a-z_]+)": [a-z_]+\(.*\),$', module.text, re.MULTILINE)
        assert conditions
        assert {*conditions, "incomplete"} <= words.keys()
    assert all(one.title and one.remedy for one in words.values())


def test_a_projects_own_words_come_before_the_librarys(tmp_path: Path) -> None:
    own: dict[str, Json] = {"too_much_at_once": WORDS, "not_owner": {"title": "not yours", "remedy": ""}}
    bundle = build_bundle(folder(tmp_path, {"authz.rego": SCRIPTED, "sealbus/reasons/data.json": own}))
    words = reason_words(bundle)
    assert words["too_much_at_once"] == ReasonWords(title="this is too much", remedy="take less")
    assert words["not_owner"] == ReasonWords(title="not yours", remedy="")
    assert words["over_limit"].title
    assert reason_words(bundle.data) == words


def test_a_policy_without_any_has_none() -> None:
    assert reason_words({}) == {}
    assert reason_words({"sealbus": {"registry": {}}}) == {}


@pytest.mark.parametrize(
    ("document", "why"),
    [
        ({"sealbus": 1}, "data.sealbus.lib.reasons is not an object"),
        ({"sealbus": {"reasons": []}}, "data.sealbus.reasons is not an object"),
        ({"sealbus": {"reasons": {"x": "words"}}}, "'x' of data.sealbus.reasons is not"),
        ({"sealbus": {"reasons": {"x": {"title": "a"}}}}, "'x' of data.sealbus.reasons is not"),
        ({"sealbus": {"reasons": {"x": {"title": "a", "remedy": "b", "more": ""}}}}, "is not"),
        ({"sealbus": {"reasons": {"x": {"title": "", "remedy": "b"}}}}, "is not"),
        ({"sealbus": {"reasons": {"x": {"title": "a\nb", "remedy": "b"}}}}, "lines of text"),
        ({"sealbus": {"reasons": {"x": {"title": "a", "remedy": 1}}}}, "lines of text"),
        ({"sealbus": {"reasons": {"x": {"title": "a" * (MOST_LETTERS + 1), "remedy": ""}}}}, "at most 256 letters"),
    ],
)
def test_a_malformed_document(document: dict[str, Json], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        reason_words(document)


def test_a_malformed_document_is_refused_with_the_bundle(tmp_path: Path) -> None:
    files: dict[str, str | dict[str, Json]] = {"authz.rego": SCRIPTED, "sealbus/reasons/data.json": {"x": 1}}
    with pytest.raises(PolicyRefused, match=r"data\.json: 'x' of data\.sealbus\.reasons is not .*\[reasons\]"):
        build_bundle(folder(tmp_path, files))
