"""A policy that is only tried: what is changed in it, what is refused, and what it answers."""

from __future__ import annotations

import io
import json
import resource
import sys
from base64 import b64encode
from pathlib import Path
from typing import Any

import pytest

from sealbus.policies.backtest import candidate
from sealbus.policies.backtest.candidate import answer_order, changed_bundle
from sealbus.policies.bundle.files import build_bundle
from sealbus.policies.bundle.format import Bundle
from sealbus.policies.lint.module import PolicyRefused

ALLOWING = """package sealbus.authz

decision := decide(input)

batch := [decide(request) | some request in input.batch]

decide(request) := {"allow": true, "reasons": [], "obligations": [], "policy": "all"} if request.v == 1
"""
RULE = "data.sealbus.authz.decision"


def starter() -> Bundle:
    return build_bundle(Path("policies/rego"))


def asked(files: dict[str, str], *questions: object) -> Any:
    return {"bundle": b64encode(starter().raw).decode(), "files": files, "questions": list(questions)}


def question(text: str) -> dict[str, str]:
    return {"rule": RULE, "input": text}


def test_a_file_and_a_document_take_the_place_of_those_in_force() -> None:
    users = "sealbus/registry/users/data.json"
    made = changed_bundle(starter(), {"sealbus/authz/decision.rego": ALLOWING, users: '{"zoe": {"customers": {}}}'})
    assert {one.path: one.text for one in made.modules}["sealbus/authz/decision.rego"] == ALLOWING
    data: Any = made.data
    registry = data["sealbus"]["registry"]
    assert registry["users"] == {"zoe": {"customers": {}}}
    assert registry["actions"]
    # A document where there was none before, and one for everything.
    assert changed_bundle(starter(), {"sealbus/shop/limits/data.json": "{}"}).roots == starter().roots
    assert changed_bundle(starter(), {"data.json": "{}"}).data == {}


def test_the_library_stays_as_it_is_installed() -> None:
    made = changed_bundle(starter(), {"sealbus/lib/rules.rego": "package x"})
    assert {one.path: one.text for one in made.modules} == {one.path: one.text for one in starter().modules}


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("sealbus/authz/decision.rego", "package x\n\nsurely {"),
        ("sealbus/authz/decision.rego", "package sealbus.authz\n\nallow := true\n"),
        ("sealbus/authz/decision.rego", ALLOWING.replace("request.v == 1", "http.send({}) == 1")),
        ("sealbus/registry/users/data.json", "{"),
    ],
)
def test_what_is_no_policy_is_refused(path: str, text: str) -> None:
    with pytest.raises(PolicyRefused):
        changed_bundle(starter(), {path: text})
    assert answer_order(asked({path: text}))["refused"]


@pytest.mark.parametrize("path", ["../x.rego", "/x.rego", "a/../x.rego", "x.txt"])
def test_a_path_that_leads_outside_is_refused(path: str) -> None:
    assert answer_order(asked({path: "package x"}))["refused"]


def test_each_question_has_its_answer() -> None:
    answered: Any = answer_order(
        asked({"sealbus/authz/decision.rego": ALLOWING}, question('{"v": 1}'), question("no json"))
    )
    [yes, none] = answered["answers"]
    assert yes["allow"] is True
    assert none is None


@pytest.mark.parametrize("wrong", [{"bundle": 1}, {"files": []}, {"questions": {}}, {"questions": [1]}])
def test_what_is_not_asked_by_us_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(TypeError):
        answer_order(asked({}) | wrong)


def test_the_process_limits_itself_before_it_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    limits: dict[int, tuple[int, int]] = {}
    monkeypatch.setattr(resource, "setrlimit", lambda what, most: limits.update({what: most}))
    out = io.StringIO()
    monkeypatch.setattr(sys, "stdin", io.StringIO(json.dumps(asked({}))))
    monkeypatch.setattr(sys, "stdout", out)
    candidate.main()
    assert json.loads(out.getvalue()) == {"answers": []}
    assert limits[resource.RLIMIT_CPU] == (candidate.PROCESSOR_SECONDS, candidate.PROCESSOR_SECONDS)
    assert limits[resource.RLIMIT_AS] == (candidate.MEMORY, candidate.MEMORY)
    assert limits[resource.RLIMIT_CORE] == (0, 0)
