"""What an analysis knows of the requests: the types of `input`, and of the arguments that the engines call functions with."""

from __future__ import annotations

import pytest
from support.rule_types import decides, refused

from sealbus.policies.lint.rules import RuleTable
from sealbus.policies.types.data import DataTypes
from sealbus.policies.types.questions import APPROVAL_REQUEST, CONNECT_REQUEST, REQUEST, batch_of
from sealbus.policies.types.rules import RuleTypes
from sealbus.policies.types.value import Type

NO_RULES = RuleTypes(table=RuleTable(()), data=DataTypes({}, []), problems=set())


@pytest.mark.parametrize(
    "body",
    [
        "startswith(request.action.name, request.subject.id)",
        "count(request.context.chain) > 1",
        'concat(",", request.context.chain) != ""',
        "request.context.delivery + 1 > 2",
        "time.clock(time.parse_rfc3339_ns(request.context.time)) == [1, 2, 3]",
        "t := request.context.time\ntime.weekday(time.parse_rfc3339_ns(t) + 60 * 1000000000) == \"Monday\"",
    ],
)  # fmt: skip
def test_a_request_has_the_types_of_its_document(body: str) -> None:
    assert refused(decides(body)) == []


@pytest.mark.parametrize(
    ("head", "text", "forms"),
    [
        ("package sealbus.connect\n\n", "decision := decide(input)\n\ndecide(r) := count(r.context.own_subjects)", []),
        ("package sealbus.connect\n\n", "decide(request) := trim_space(request.subject.properties.token)", []),
        ("package sealbus.approval\n\n", "decide(request) := trim_space(request.of.context.user.id)", []),
        ("package sealbus.approval\n\n", "decide(request) := trim_space(request.context.approvals[0].user)", []),
        ("package sealbus.approval\n\n", "decide(request) := trim_space(request.obligation.queue)", ["type"]),
        ("package sealbus.approval\n\n", "decision := decide(input)\n\ndecide(r) := trim_space(input.of.resource.id)", []),
        ("package sealbus.approval\n\n", "other(r) := trim_space(input.obligation.queue)", ["type"]),
        ("package sealbus.approvals\n\n", "decide(request) := trim_space(request.of.resource.id)", ["type"]),
        ("package sealbus.platform\n\n", "denials(request) := trim_space(request.context.user.id)", []),
        ("package sealbus.teams.stock\n\n", "decide(request) := trim_space(request.action.name)", []),
        ("package sealbus.teams.stock\n\n", "decides(request) := trim_space(request.action.name)", ["type"]),
        ("package sealbus.teams.stock\n\n", "decide(request, x) := trim_space(request.action.name)", ["type"]),
    ],
)  # fmt: skip
def test_what_is_asked_of_each_part(head: str, text: str, forms: list[str]) -> None:
    assert refused(text, head=head) == forms


@pytest.mark.parametrize(
    ("package", "document"),
    [
        ("sealbus.authz", REQUEST),
        ("sealbus.connect", CONNECT_REQUEST),
        ("sealbus.approval", APPROVAL_REQUEST),
        ("sealbus.teams.stock", REQUEST),
        ("other", REQUEST),
    ],
)
def test_input_is_a_document_and_a_batch_of_documents_of_its_package(package: str, document: Type) -> None:
    assert NO_RULES.input_type(tuple(package.split("."))) == batch_of(document)


@pytest.mark.parametrize(
    ("function", "arity", "types"),
    [
        ("sealbus.authz.decide", 1, [REQUEST]),
        ("sealbus.connect.decide", 1, [CONNECT_REQUEST]),
        ("sealbus.approval.decide", 1, [APPROVAL_REQUEST]),
        ("sealbus.platform.denials", 1, [REQUEST]),
        ("sealbus.teams.stock.decide", 1, [REQUEST]),
        ("sealbus.authz.decide", 2, None),
        ("sealbus.teams.stock.more.decide", 1, None),
        ("sealbus.team.stock.decide", 1, None),
    ],
)
def test_only_the_functions_that_the_engines_call_have_known_arguments(
    function: str, arity: int, types: list[Type] | None
) -> None:
    assert NO_RULES.question_types(tuple(function.split(".")), arity) == types


def test_an_evaluation_accepts_no_value_of_another_type() -> None:
    assert not NO_RULES.accepts(frozenset({"text"}), frozenset({"number"}))
    assert not NO_RULES.accepts(frozenset(), frozenset())
