"""The route of a subject: one, and none for what nobody handles."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping

import pytest

from sealbus.bus.routing.retry import RetryPolicy
from sealbus.bus.routing.routes import HandlerOptions, Permitted, Route, RouteTable
from sealbus.bus.sending.message import Content
from sealbus.envelopes.errors import Code, ConfigurationError, EnvelopeError
from sealbus.envelopes.message.kinds import Kind
from sealbus.policies.decision.request import Resource


class Nothing:
    """An endpoint that is never reached here."""

    def decode(self, body: bytes, typ: str) -> object:
        raise NotImplementedError

    def properties(self, value: object) -> Mapping[str, object]:
        raise NotImplementedError

    async def resource(self, value: object) -> Resource:
        raise NotImplementedError

    async def handle(self, permitted: Permitted) -> Content | None:
        raise NotImplementedError

    def stream(self, permitted: Permitted) -> AsyncGenerator[Content, None] | None:
        raise NotImplementedError


def route(subject: str, kind: Kind = Kind.TASK) -> Route:
    return Route(
        kind=kind, subject=subject, action="a.run", endpoint=Nothing(), options=HandlerOptions(retry=RetryPolicy())
    )


TABLE = RouteTable([route("task.a.run"), route("task.a.run.*"), route("call.a.ask", Kind.CALL)])


@pytest.mark.parametrize(
    ("subject", "found"),
    [("task.a.run", "task.a.run"), ("task.a.run.p1", "task.a.run.*"), ("call.a.ask", "call.a.ask")],
)
def test_a_subject_finds_its_route(subject: str, found: str) -> None:
    assert TABLE.of(subject).subject == found


@pytest.mark.parametrize("subject", ["", "task.a", "task.a.runs", "task.a.run.p1.x", "call.a.run", "TASK.a.run"])
def test_a_subject_that_nobody_handles_is_refused_at_step_3(subject: str) -> None:
    with pytest.raises(EnvelopeError) as refused:
        TABLE.of(subject)
    assert (refused.value.code, refused.value.step) == (Code.WRONG_SUBJECT, 3)


def test_two_routes_never_share_a_subject() -> None:
    with pytest.raises(ConfigurationError, match="two handlers"):
        RouteTable([route("task.a.run"), route("task.a.run")])


def test_subjects_of_a_kind_are_in_order() -> None:
    assert TABLE.subjects(Kind.TASK) == ("task.a.run", "task.a.run.*")
    assert TABLE.subjects(Kind.CALL) == ("call.a.ask",)
    assert TABLE.subjects(Kind.EVENT) == ()
