"""A request of A2A as its handlers know it: the HTTP request, its verified token, and why it was refused, if it was."""

from __future__ import annotations

import json
from collections.abc import Generator
from contextlib import AbstractAsyncContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final

from a2a.auth.user import User
from a2a.server.context import ServerCallContext
from a2a.utils.errors import (
    A2AError,
    InternalError,
    InvalidAgentResponseError,
    InvalidParamsError,
    TaskNotCancelableError,
    TaskNotFoundError,
)
from starlette.requests import Request

from sealbus.agents.edge.http.application import REQUEST_ID
from sealbus.agents.edge.http.problem import problem_of
from sealbus.agents.edge.oauth.tokens.access_token import AccessToken
from sealbus.agents.edge.v1.call_routes import connected
from sealbus.envelopes.errors import Code, SealbusError

DOOR_NAME: Final = "a2a"
VERSION_FIELD: Final = "a2a-version"

_ABOUT_THE_REQUEST: Final = frozenset(
    {
        HTTPStatus.UNAUTHORIZED,
        HTTPStatus.FORBIDDEN,
        HTTPStatus.REQUEST_TIMEOUT,
        HTTPStatus.TOO_MANY_REQUESTS,
        HTTPStatus.SERVICE_UNAVAILABLE,
    }
)
"""Statuses on which clients and intermediaries act: they get another token, or try again."""


@dataclass(eq=False)
class Principal(User):
    """One request. `refused` is its error, where HTTP or gRPC can say more about it than an error of A2A can.

    `watched` says whether to watch for a client that disconnects; gRPC cancels its requests itself.
    """

    request: Request
    token: AccessToken = field(repr=False)
    watched: bool = True
    refused: SealbusError | None = None

    @property
    def is_authenticated(self) -> bool:
        """Whether the token was verified: it always was."""
        return True

    @property
    def user_name(self) -> str:
        """The user is known by issuer and subject, and by nothing that could be shown to others."""
        return ""

    @property
    def request_id(self) -> str:
        """The id of the request, as its answer shows it."""
        number: bytes = self.request.scope[REQUEST_ID]
        return number.hex()

    def connected(self) -> AbstractAsyncContextManager[None]:
        """Return a block that ends once the client has disconnected."""
        return connected(self.request) if self.watched else nullcontext()

    def context(self) -> ServerCallContext:
        """Return what the package `a2a` gets of the request: the version that its client speaks, and no token."""
        version = self.request.headers.get(VERSION_FIELD, "")
        return ServerCallContext(user=self, state={"headers": {VERSION_FIELD: version}})

    @contextmanager
    def refusing(self) -> Generator[None, None, None]:
        """Turn a `SealbusError` of the block into an error of A2A (`refusal`)."""
        try:
            yield
        except SealbusError as error:
            raise self.refusal(error) from error

    def refusal(self, error: SealbusError) -> A2AError:
        """Return `error` as an error of A2A, and keep it in `refused` if it is about the request itself."""
        answer = problem_of(error)
        problem: dict[str, Any] = json.loads(bytes(answer.body))
        if answer.status_code in _ABOUT_THE_REQUEST:
            self.refused = error
        text = f"{problem['detail']} ({problem['code']})"
        match answer.status_code:
            case HTTPStatus.NOT_FOUND if error.code == Code.NOT_FOUND:
                return TaskNotFoundError()
            case HTTPStatus.CONFLICT if error.code == Code.TASK_ENDED:
                return TaskNotCancelableError()
            case HTTPStatus.UNPROCESSABLE_ENTITY if error.code == Code.BAD_BODY:
                return InvalidParamsError(text)
            case HTTPStatus.BAD_GATEWAY:
                return InvalidAgentResponseError(text, {"problem": json.dumps(problem)})
        return InternalError(text, {"problem": json.dumps(problem)})


def principal_of(context: ServerCallContext) -> Principal:
    """Return the principal of a call; raise `TypeError` for a request that did not come through our endpoint."""
    if not isinstance(context.user, Principal):
        raise TypeError("not a request of ours")
    return context.user
