"""`Context`: the facts of the message that a handler handles, and the methods to send meanwhile."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar, Unpack, overload

from sealbus.agents.sdk.bodies import JSON, TypedAction
from sealbus.agents.sdk.messages import Origin
from sealbus.agents.sdk.options import (
    CallOptions,
    ChildCallKeywords,
    ChildSubmitKeywords,
    SubmitOptions,
    check_keywords,
)
from sealbus.bus.routing.cancellation import Cancellation
from sealbus.bus.routing.routes import Permitted
from sealbus.bus.sending.status import State
from sealbus.bus.work.schedules.tick import tick_of
from sealbus.envelopes.accept.live import VerifiedMessage
from sealbus.envelopes.errors import SealError
from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.message.user_context import UserContext
from sealbus.envelopes.records.archive import VerifiedDecided
from sealbus.envelopes.trust.spiffe_id import SpiffeId
from sealbus.policies.decision.request import GivenApproval

if TYPE_CHECKING:
    import httpx2
    from a2a.client import Client as A2aClient
    from mcp.client.client import Client as McpClient

    from sealbus.agents.sdk.http import SendRequest
    from sealbus.agents.sdk.sender import Receipt, Sender
    from sealbus.agents.sdk.task_handle import TaskHandle

Req = TypeVar("Req")
Res = TypeVar("Res")
Options = TypeVar("Options", CallOptions, SubmitOptions)


class Context:
    """One handling of one permitted message. Messages sent through it carry the message's user and chain.

    Every fact here was verified and decided on; NATS headers are ignored.
    """

    def __init__(self, permitted: Permitted, sending: Sender) -> None:
        self._permitted = permitted
        self._sending = sending

    @property
    def _message(self) -> VerifiedMessage | VerifiedDecided:
        return self._permitted.message

    @property
    def _sent(self) -> list[bytes] | None:
        """The list that collects the hashes of the messages sent here, for the outcome record."""
        return self._permitted.sent

    @property
    def _origin(self) -> Origin:
        """The origin of messages sent here. Raises `HandlingError` `canceled` once this work was canceled."""
        self._cancellation.check()
        return Origin.message(self._permitted.origin)

    @property
    def replay(self) -> bool:
        """Whether this is a recorded message that is replayed for debugging: nothing is sent, nothing is recorded.

        Effects that a handler has outside of this context do happen: check this property before them.
        """
        return False

    @property
    def message_id(self) -> str:
        """The message's id, 32 hex digits."""
        return self._message.header.id.hex()

    @property
    def action(self) -> str:
        """The action that the policy allowed."""
        return self._permitted.route.action

    @property
    def caller(self) -> SpiffeId:
        """The workload that sealed the message."""
        return self._message.header.iss

    @property
    def chain(self) -> tuple[SpiffeId, ...]:
        """The workloads that sealed the messages of the chain, the root first, the caller last; no proof of a right."""
        return tuple(header.iss for header in self._message.chain)

    @property
    def user(self) -> UserContext | None:
        """The user behind the message, as the edge signed it; absent if there is none."""
        return self._message.context

    @property
    def delivery(self) -> int:
        """The number of this delivery, from 1; over 1, an earlier delivery was not finished."""
        return getattr(self._permitted.message.arrival, "delivery", 1)

    @property
    def tick(self) -> datetime | None:
        """The time for which a schedule sent this task, maybe earlier than now; `None` if no schedule sent it."""
        time = tick_of(self._message.header.ext)
        return datetime.fromtimestamp(time / SECOND, UTC) if time is not None else None

    @property
    def obligations(self) -> tuple[Mapping[str, object], ...]:
        """The obligations that the policy gives the handler."""
        return self._permitted.obligations

    @property
    def approvals(self) -> tuple[GivenApproval, ...]:
        """The verdicts of people that let this task go on; empty unless it was parked.

        After approvals, messages sent through this context follow from the last of them: they carry that person's user
        context, and only the actions that the policy let follow are possible.
        """
        resumed = self._permitted.resumed
        return resumed.approvals if resumed is not None else ()

    @property
    def cancelled(self) -> bool:
        """Whether this work was canceled; other threads may read this, too.

        The handler is cancelled at once as by `asyncio`, and again when its `timeout` is over. From then on nothing can be
        sent through this context, except in a `shield`.
        """
        return self._cancellation.canceled is not None

    @property
    def _cancellation(self) -> Cancellation:
        return self._permitted.cancellation

    @asynccontextmanager
    async def shield(self, note: str = "") -> AsyncGenerator[None, None]:
        """Hold cancellation back while the block runs, for a last step that must be completed or undone.

        Messages sent in it are detached: they are not canceled with this work. `note` is reported to a task's requester, as
        by `progress`. The handler's `timeout` holds nevertheless. A cancel that came meanwhile ends the handler at its next
        wait after the block; a handler that returns before such a wait is done.
        """
        if note:
            with suppress(SealError):  # not a task
                await self.progress(note)
        cancellation = self._cancellation
        entered = cancellation.enter_shield()
        try:
            yield
        finally:
            cancellation.leave_shield(entered)

    async def progress(self, note: str) -> None:
        """Report progress to the requester of this task: `note` is a line of at most 256 bytes of UTF-8.

        Returns once the note is stored, or after 10 s without that: a lost note ends no work. Raises `ValueError` for an
        invalid note and `SealError` if the message is not a task.
        """
        await self._tell(State.WORKING, note)

    async def input_required(self, note: str) -> None:
        """Tell the requester that the task waits for the input that `note` names; otherwise like `progress`.

        The requester answers with a separate message, for which this handler must wait.
        """
        await self._tell(State.INPUT_REQUIRED, note)

    async def _tell(self, state: State, note: str) -> None:
        reporter = self._permitted.reporter
        if reporter is None:
            raise SealError("only a task has statuses")
        await reporter.tell(state, note=note)

    @overload
    async def call(
        self, action: TypedAction[Req, Awaitable[Res]], body: Req, **options: Unpack[ChildCallKeywords]
    ) -> Res: ...
    @overload
    async def call(
        self, action: str, body: object, *, returns: type[Res], **options: Unpack[ChildCallKeywords]
    ) -> Res: ...
    async def call(
        self,
        action: TypedAction[Any, Awaitable[Res]] | str,
        body: object,
        *,
        returns: type[Res] | None = None,
        **options: Unpack[ChildCallKeywords],
    ) -> Res:
        """Call an action and return its typed answer.

        Raises `Denied` if the other side's policy or ours denies, `RemoteError` with the other side's code for any other
        failure there, `CallExpired` if no answer came in `timeout` seconds.
        """
        check_keywords(options, ChildCallKeywords)
        return await self._sending.call(
            action,
            body,
            returns=returns,
            origin=self._origin,
            options=self._detached_in_shield(CallOptions(**options)),
            sent=self._sent,
            stopped=lambda: self.cancelled,
        )

    @overload
    def stream(
        self, action: TypedAction[Req, AsyncIterator[Res]], body: Req, *, timeout: float = ...
    ) -> AsyncGenerator[Res, None]: ...
    @overload
    def stream(
        self, action: str, body: object, *, returns: type[Res], timeout: float = ...
    ) -> AsyncGenerator[Res, None]: ...
    def stream(
        self,
        action: TypedAction[Any, AsyncIterator[Res]] | str,
        body: object,
        *,
        returns: type[Res] | None = None,
        timeout: float = 30.0,
    ) -> AsyncGenerator[Res, None]:
        """Call an action that answers in chunks, and yield each as it comes; raises as `call` does."""
        return self._sending.stream(
            action,
            body,
            returns=returns,
            origin=self._origin,
            options=self._detached_in_shield(CallOptions(timeout=timeout)),
            sent=self._sent,
            stopped=lambda: self.cancelled,
        )

    @overload
    async def submit(
        self, action: TypedAction[Req, Awaitable[Res]], body: Req, **options: Unpack[ChildSubmitKeywords]
    ) -> TaskHandle[Res]: ...
    @overload
    async def submit(
        self, action: TypedAction[Req, AsyncIterator[Res]], body: Req, **options: Unpack[ChildSubmitKeywords]
    ) -> TaskHandle[list[Res]]: ...
    @overload
    async def submit(self, action: str, body: object, **options: Unpack[ChildSubmitKeywords]) -> TaskHandle: ...
    async def submit(
        self,
        action: TypedAction[Any, Awaitable[Res] | AsyncIterator[Res]] | str,
        body: object,
        **options: Unpack[ChildSubmitKeywords],
    ) -> TaskHandle[Any]:
        """Submit a task and return its handle once it is stored; see `Client.submit`."""
        check_keywords(options, ChildSubmitKeywords)
        return await self._sending.submit(
            action,
            body,
            origin=self._origin,
            options=self._detached_in_shield(SubmitOptions(**options)),
            sent=self._sent,
        )

    def _detached_in_shield(self, options: Options) -> Options:
        return replace(options, detached=True) if self._cancellation.shielded else options

    def http(self, api: str, *, timeout: float = 30.0, task: bool = False) -> httpx2.AsyncClient:
        """Return an httpx2 client for the API of this name at the exit: `await ctx.http("crm").get("/customers/acme")`.

        Each request is a call of `exit.<api>` (`<agent>.<api>` if `api` names another exit), or with `task` a task, which may
        take longer than a minute; `timeout` is seconds for one request. The message's user and chain go along, the exit's
        policy decides, and the exit alone has the API's tokens. Requests raise as `call` does: `Denied`, or `RemoteError`
        with the exit's code (docs/legacy.md). An answer of the API raises nothing, whatever its status.
        """
        from sealbus.agents.sdk.http import api_client

        return api_client(self._requests(api, timeout=timeout, task=task))

    def _requests(self, api: str, *, timeout: float, task: bool = False) -> SendRequest:
        from sealbus.agents.sdk.http import ApiAnswer, ApiRequest, api_action

        action = api_action(api)

        async def send(request: ApiRequest) -> ApiAnswer:
            if task:
                handle = await self.submit(action, request, life=timeout)
                return await handle.result(ApiAnswer, timeout=timeout)
            return await self.call(action, request, returns=ApiAnswer, timeout=timeout)

        return send

    def mcp(self, api: str, path: str = "/mcp", *, timeout: float = 30.0) -> AbstractAsyncContextManager[McpClient]:
        """Return an MCP client for the server of this name at the exit: `async with ctx.mcp("github") as server`.

        It yields the client of the package `mcp` (extra `mcp`), with `list_tools` and `call_tool`. Each request goes out as
        those of `http` do, and the exit's policy decides with the tool's name and a hash of the server's description of it.
        A stranger wrote the names, descriptions and answers: do not trust them. Raises as `http` does.
        """
        from sealbus.agents.sdk.http import mcp_client

        return mcp_client(self.http(api, timeout=timeout), path)

    def a2a(
        self, api: str, path: str = "/", *, card: str = "/.well-known/agent-card.json", timeout: float = 30.0
    ) -> AbstractAsyncContextManager[A2aClient]:
        """Return an A2A client for the agent of this name at the exit: `async with ctx.a2a("partner") as agent`.

        It yields the client of the package `a2a-sdk` (extra `a2a`), which speaks JSON-RPC with `path` and does not stream:
        `send_message` yields the task or message of the answer, `get_task` returns the task's state. Each request goes out
        as those of `http` do, and the exit's policy decides with the method and a hash of the agent's `card`. A stranger
        wrote the card and the answers: do not trust them. Raises as `http` does.
        """
        from sealbus.agents.sdk.http import a2a_client

        return a2a_client(self._requests(api, timeout=timeout), path, card)

    async def emit(self, name: str, body: object, *, media_type: str = JSON) -> Receipt:
        """Emit an event of this agent, marked as following from the handled message; it carries no user and no chain."""
        self._cancellation.check()
        return await self._sending.emit(
            name,
            body,
            origin=self._origin,
            re=self._message.header.digest,
            media_type=media_type,
            sent=self._sent,
        )
