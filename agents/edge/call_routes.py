"""`POST /v1/calls/{agent}/{verb}`: call an agent, with its answer in the same response."""

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
    """The resource of calls. Denials, failures and timeouts come back as errors (`problem.py`)."""

    def __init__(self, front: Front) -> None:
        self._front = front

    async def call(self, request: Request) -> Response:
        """Return the agent's answer. The agent gets the body as it came, not decoded on the way.

        HTTP carries one answer here, and the call says so: an agent that answers in chunks does not run it (406). An agent
        that does not know this mark runs it anyway (502).
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
