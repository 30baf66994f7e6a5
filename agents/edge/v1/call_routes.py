"""`POST /v1/calls/{agent}/{verb}`: call an agent, with its answer in the same response."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager

from starlette.requests import Request
from starlette.responses import Response

from sealbus.agents.edge.event_streams import EVENT_STREAM, OpenStreams, event, part_document
from sealbus.agents.edge.front import Front
from sealbus.agents.edge.http.problem import EdgeError, problem_of
from sealbus.agents.edge.oauth.tokens.access_token import AccessToken
from sealbus.agents.edge.v1.task_routes import answer_of
from sealbus.agents.sdk.messages import Origin, call_message
from sealbus.agents.sdk.options import CallOptions
from sealbus.bus.sending.answer import ChunkedAnswer
from sealbus.bus.sending.message import Content, OutgoingMessage
from sealbus.envelopes.errors import Code, SealbusError


class Calls:
    """The resource of calls. Denials, failures and timeouts come back as errors (`problem.py`)."""

    def __init__(self, front: Front, streams: OpenStreams) -> None:
        self._front = front
        self._streams = streams

    async def call(self, request: Request) -> Response:
        """Return the agent's answer. The agent gets the body as it came, not decoded on the way.

        Without `Accept: text/event-stream` the response has one answer, and the call says so: an agent that answers in chunks
        does not run it (406). An agent that does not know this mark runs it anyway (502). With it, the chunks are events, as
        they come. A client that leaves before the answer, or before its last chunk, cancels the call.
        """
        front = self._front
        token = await front.admitted(request)
        action = front.exposed.action(request.path_params["agent"], request.path_params["verb"])
        body = await front.body(request, token)
        if _takes_events(request):
            return await self._streamed(request, token, self.chunks(request, token, action, body))
        try:
            async with connected(request):
                answer = await self.answer(request, token, action, body)
        except ChunkedAnswer as error:
            raise EdgeError(
                error.code, 502, f"{action} answers in chunks, which a call over HTTP does not carry"
            ) from error
        return answer_of(answer)

    async def answer(self, request: Request, token: AccessToken, action: str, body: Content) -> Content:
        """Return the answer to the user of `token`; cancelling this cancels the call. Raises as `Requests.call`."""
        within = self._front.limits.call_seconds
        return await self._front.node.requests.call(
            self._message(request, token, action, body), action=action, within=within
        )

    def chunks(self, request: Request, token: AccessToken, action: str, body: Content) -> AsyncGenerator[Content, None]:
        """Yield the chunks of the agent's answer; closing it early cancels the call. Raises as `answer`."""
        within = self._front.limits.call_seconds
        return self._front.node.requests.stream(
            self._message(request, token, action, body), action=action, within=within
        )

    def _message(self, request: Request, token: AccessToken, action: str, body: Content) -> OutgoingMessage:
        front = self._front
        return call_message(
            action,
            body,
            names=front.node.deployment.names,
            origin=Origin.user(front.context(token, request)),
            reply_to=front.node.requests.address(),
            options=CallOptions(timeout=front.limits.call_seconds),
            own=front.node.deployment.own_subjects,
        )

    async def _streamed(self, request: Request, token: AccessToken, chunks: AsyncGenerator[Content, None]) -> Response:
        """Answer once the first chunk is there, so that a denial or failure before it is one in HTTP, too."""
        self._streams.enter(token)
        try:
            async with connected(request):
                first = await anext(chunks, None)
        except BaseException:
            self._streams.leave(token)
            await chunks.aclose()
            raise
        return self._streams.entered(token, self._events(token, first, chunks))

    async def _events(
        self, token: AccessToken, first: Content | None, chunks: AsyncGenerator[Content, None]
    ) -> AsyncGenerator[bytes, None]:
        number = 0
        async with aclosing(chunks):
            try:
                chunk = first
                while chunk is not None:
                    # The answer was decided at its first chunk; whose session ends meanwhile is told no more of it.
                    self._front.unrevoked(token)
                    yield event("part", part_document(number, chunk))
                    number += 1
                    chunk = await anext(chunks, None)
                yield event("end", {"parts": number})
            except SealbusError as error:
                yield event("problem", json.loads(bytes(problem_of(error).body)))


@asynccontextmanager
async def connected(request: Request) -> AsyncGenerator[None, None]:
    """End the block once the client has gone away; the answer, which nobody reads, is 408."""
    try:
        async with asyncio.timeout(None) as leaving:
            watching = asyncio.create_task(_watch(request, leaving))
            try:
                yield
            finally:
                watching.cancel()
    except TimeoutError as error:
        raise EdgeError(Code.EXPIRED, 408, "the client has left") from error


async def _watch(request: Request, leaving: asyncio.Timeout) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
    leaving.reschedule(asyncio.get_running_loop().time())


def _takes_events(request: Request) -> bool:
    accepted = ",".join(request.headers.getlist("accept")).lower()
    return any(media_range.partition(";")[0].strip() == EVENT_STREAM for media_range in accepted.split(","))
