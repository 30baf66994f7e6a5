"""`POST /v1/calls/{agent}/{verb}`: ask, and get the answer in the same response."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from sealbus.agents.edge.front import Front
from sealbus.agents.edge.http.problem import EdgeError
from sealbus.agents.edge.task_routes import answer_of
from sealbus.agents.sdk.messages import Origin, call_message
from sealbus.bus.sending.answer import ChunkedAnswer
from sealbus.envelopes.limits import SECOND

__all__ = ["Calls"]


class Calls:
    """The resource of calls. Denials, failures and silence come back as errors (`problem.py`)."""

    def __init__(self, front: Front) -> None:
        self._front = front

    async def call(self, request: Request) -> Response:
        """Return the agent's answer. What goes to the agent is the body as it came, decoded by nobody on the way.

        One answer is what HTTP carries here, and the call says so: an agent that answers in chunks does not run it, which
        is a 406. One that does not know of that mark runs it, and is a 502.
        """
        front = self._front
        token = await front.admitted(request)
        action = front.exposed.action(request.path_params["agent"], request.path_params["verb"])
        body = await front.body(request, token)
        requests, within = front.node.requests, front.limits.call_seconds
        message = call_message(
            action,
            body,
            names=front.node.deployment.names,
            origin=Origin.user(front.context(token)),
            reply_to=requests.address(),
            life=int(within * SECOND),
            own=front.node.deployment.own_subjects,
        )
        try:
            answer = await requests.call(message, action=action, within=within)
        except ChunkedAnswer as error:
            raise EdgeError(
                error.code, 502, f"{action} answers in chunks, which a call over HTTP does not carry"
            ) from error
        return answer_of(answer)
