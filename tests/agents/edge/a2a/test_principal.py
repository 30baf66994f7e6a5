from __future__ import annotations

import pytest
from a2a.utils.errors import (
    InternalError,
    InvalidAgentResponseError,
    InvalidParamsError,
    TaskNotCancelableError,
    TaskNotFoundError,
)
from starlette.requests import Request

from sealbus.agents.edge.a2a.principal import VERSION_FIELD, Principal, principal_of
from sealbus.agents.edge.http.application import REQUEST_ID
from sealbus.agents.edge.http.problem import EdgeError
from sealbus.bus.sending.answer import RemoteError
from sealbus.envelopes.errors import BusUnavailable, Code, Denied, SealbusError


def asking(*fields: tuple[str, str], watched: bool = True) -> Principal:
    headers = [(name.encode(), value.encode()) for name, value in fields]
    return Principal(Request({"type": "http", "headers": headers, REQUEST_ID: bytes(16)}), None, watched)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("error", "found", "kept"),
    [
        (EdgeError(Code.NOT_FOUND, 404), TaskNotFoundError, False),
        (EdgeError(Code.TASK_ENDED, 409), TaskNotCancelableError, False),
        (RemoteError(Code.BAD_BODY, "a secret"), InvalidParamsError, False),
        (RemoteError(Code.HANDLER_FAILED, "a secret"), InvalidAgentResponseError, False),
        (RemoteError(Code.RESOURCE_NOT_FOUND, "a secret"), InternalError, False),
        (Denied("a secret"), InternalError, True),
        (BusUnavailable("a secret"), InternalError, True),
        (EdgeError(Code.RATE_LIMITED, 429), InternalError, True),
        (EdgeError(Code.EXPIRED, 408), InternalError, True),
    ],
)
def test_each_error_has_its_word_and_its_transport_one_where_that_says_more(
    error: SealbusError, found: type[Exception], kept: bool
) -> None:
    who = asking()
    told = who.refusal(error)
    assert type(told) is found
    assert who.refused is (error if kept else None)
    assert "secret" not in repr(told)


async def test_who_asks_shows_neither_token_nor_name() -> None:
    who = asking(("authorization", "Bearer a-secret"), (VERSION_FIELD, "1.0"), watched=False)
    context = who.context()
    assert principal_of(context) is who
    assert (who.is_authenticated, who.user_name, who.request_id) == (True, "", "0" * 32)
    assert context.state == {"headers": {VERSION_FIELD: "1.0"}}
    assert "secret" not in repr(who)
    async with who.connected():
        pass


def test_a_request_that_was_not_admitted_has_nobody_who_asks() -> None:
    context = asking().context()
    context.user = None  # type: ignore[assignment]
    with pytest.raises(TypeError, match="not a request of ours"):
        principal_of(context)
