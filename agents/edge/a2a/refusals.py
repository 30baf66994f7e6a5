"""Why something was not done, as an error of A2A, or where that is about the request itself, as one of HTTP or gRPC."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Any, Final

from a2a.utils.errors import (
    A2AError,
    InternalError,
    InvalidAgentResponseError,
    InvalidParamsError,
    TaskNotCancelableError,
    TaskNotFoundError,
)

from sealbus.agents.edge.a2a.principal import Principal
from sealbus.agents.edge.http.problem import problem_of
from sealbus.envelopes.errors import Code, SealbusError

__all__ = ["refusal"]

_ABOUT_THE_REQUEST: Final = frozenset(
    {
        HTTPStatus.UNAUTHORIZED,
        HTTPStatus.FORBIDDEN,
        HTTPStatus.REQUEST_TIMEOUT,
        HTTPStatus.TOO_MANY_REQUESTS,
        HTTPStatus.SERVICE_UNAVAILABLE,
    }
)
"""What clients, and what stands between, act on: another token, or another try."""


def refusal(principal: Principal, error: SealbusError) -> A2AError:
    """Return `error` as one of A2A, and keep it as what the request was refused where its transport says it better."""
    answer = problem_of(error)
    problem: dict[str, Any] = json.loads(bytes(answer.body))
    if answer.status_code in _ABOUT_THE_REQUEST:
        principal.refused = error
    said = f"{problem['detail']} ({problem['code']})"
    match answer.status_code:
        case HTTPStatus.NOT_FOUND if error.code == Code.NOT_FOUND:
            return TaskNotFoundError()
        case HTTPStatus.CONFLICT if error.code == Code.TASK_ENDED:
            return TaskNotCancelableError()
        case HTTPStatus.UNPROCESSABLE_ENTITY if error.code == Code.BAD_BODY:
            return InvalidParamsError(said)
        case HTTPStatus.BAD_GATEWAY:
            return InvalidAgentResponseError(said, {"problem": json.dumps(problem)})
    return InternalError(said, {"problem": json.dumps(problem)})
