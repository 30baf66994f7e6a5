"""`Context`: what a handler knows of its message, and its way to send while handling it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar, Unpack, overload

from sealbus.agents.sdk.bodies import JSON, TypedAction
from sealbus.agents.sdk.messages import Origin
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
    from sealbus.agents.sdk.sender import ChildCallOptions, ChildSubmitOptions, Receipt, Sender
    from sealbus.agents.sdk.task_handle import TaskHandle

__all__ = ["Context"]

Req = TypeVar("Req")
Res = TypeVar("Res")


class Context:
    """One handling of one permitted message. Messages sent through it carry the message's user and chain.

    Every fact here was verified and decided on; nothing is taken from NATS headers.
    """

    def __init__(self, permitted: Permitted, sending: Sender) -> None:
        self._permitted = permitted
        self._sending = sending

    @property
    def _message(self) -> VerifiedMessage | VerifiedDecided:
        """The message being handled."""
        return self._permitted.message

    @property
    def _sent(self) -> list[bytes] | None:
        """The list that collects the hashes of messages sent here, for the outcome record."""
        return self._permitted.sent

    @property
    def _origin(self) -> Origin:
        """The origin of messages sent here, made when needed; most handlers send none.

        Raises `HandlingError` `canceled` once this work was canceled.
        """
        self._cancellation.check()
        return Origin.message(self._permitted.origin)

    @property
    def replay(self) -> bool:
        """Whether this is a recorded message that is replayed for debugging: nothing is sent, nothing is recorded.

        Effects that a handler has outside of this context do happen: check this before them.
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
        """The workloads that sealed the messages of the chain, the root first, the caller last. Provenance, not a right."""
        return tuple(header.iss for header in self._message.chain)

    @property
    def user(self) -> UserContext | None:
        """The user behind the message, as the edge signed it; absent if there is none."""
        return self._message.context

    @property
    def delivery(self) -> int:
        """Which delivery this is, from 1: over 1, an earlier one was not finished."""
        return getattr(self._permitted.message.arrival, "delivery", 1)

    @property
    def tick(self) -> datetime | None:
        """The instant that a schedule meant with this task, which may be earlier than now; `None` if none sent it."""
        time = tick_of(self._message.header.ext)
        return datetime.fromtimestamp(time / SECOND, UTC) if time is not None else None

    @property
    def obligations(self) -> tuple[Mapping[str, object], ...]:
        """The obligations that the policy gives the handler."""
        return self._permitted.obligations

    @property
    def approvals(self) -> tuple[GivenApproval, ...]:
        """The verdicts of people that let this task go on; empty unless it was parked.

        What is sent through this context then follows from the last of them: it carries that person's context, and is
        limited to the actions that the policy let follow.
        """
        resumed = self._permitted.resumed
        return resumed.approvals if resumed is not None else ()

    @property
    def cancelled(self) -> bool:
        """Whether somebody canceled this work; may be asked from other threads, too.

        The handler is cancelled at once as by `asyncio`, and again when its `timeout` is over. From then on nothing is sent
        through this context, except in a `shield`.
        """
        return self._cancellation.canceled is not None

    @property
    def _cancellation(self) -> Cancellation:
        return self._permitted.cancellation

    @asynccontextmanager
    async def shield(self, note: str = "") -> AsyncGenerator[None, None]:
        """Hold cancellation back while the block runs, for a last step that must not be left half done, or to undo one.

        What is sent in it is detached: it is not canceled with this work. `note` is reported to a task's requester, as by
        `progress`. The handler's `timeout` holds nevertheless. A cancel that came meanwhile ends the handler at its next wait
        after the block; one that returns first is done.
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

        Returns once the note is stored, or could not be stored within 10 s: a lost note ends no work. Raises `ValueError` for
        an invalid note and `SealError` if the message is not a task.
        """
        await self._tell(State.WORKING, note)

    async def input_required(self, note: str) -> None:
        """Tell the requester that the task waits for what `note` says; otherwise like `progress`.

        An answer to it is a separate message, and this handler must wait for it.
        """
        await self._tell(State.INPUT_REQUIRED, note)

    async def _tell(self, state: State, note: str) -> None:
        reporter = self._permitted.reporter
        if reporter is None:
            raise SealError("only a task has statuses")
        await reporter.tell(state, note=note)

    @overload
    async def call(
        self, action: TypedAction[Req, Awaitable[Res]], body: Req, **options: Unpack[ChildCallOptions]
    ) -> Res: ...
    @overload
    async def call(
        self, action: str, body: object, *, returns: type[Res], **options: Unpack[ChildCallOptions]
    ) -> Res: ...
    async def call(
        self,
        action: TypedAction[Any, Awaitable[Res]] | str,
        body: object,
        *,
        returns: type[Res] | None = None,
        timeout: float = 30.0,
        grants: Sequence[str] | None = None,
        media_type: str = JSON,
        detached: bool = False,
    ) -> Res:
        """Call an action and return its typed answer; see `Sender.call`."""
        return await self._sending.call(
            action,
            body,
            returns=returns,
            origin=self._origin,
            timeout=timeout,
            grants=grants,
            media_type=media_type,
            detached=detached or self._cancellation.shielded,
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
        """Call an action that answers in chunks; see `Sender.stream`."""
        return self._sending.stream(
            action,
            body,
            returns=returns,
            origin=self._origin,
            timeout=timeout,
            detached=self._cancellation.shielded,
            sent=self._sent,
            stopped=lambda: self.cancelled,
        )

    @overload
    async def submit(
        self, action: TypedAction[Req, Awaitable[Res]], body: Req, **options: Unpack[ChildSubmitOptions]
    ) -> TaskHandle[Res]: ...
    @overload
    async def submit(
        self, action: TypedAction[Req, AsyncIterator[Res]], body: Req, **options: Unpack[ChildSubmitOptions]
    ) -> TaskHandle[list[Res]]: ...
    @overload
    async def submit(self, action: str, body: object, **options: Unpack[ChildSubmitOptions]) -> TaskHandle: ...
    async def submit(
        self,
        action: TypedAction[Any, Awaitable[Res] | AsyncIterator[Res]] | str,
        body: object,
        *,
        life: float | None = None,
        partition: str | None = None,
        grants: Sequence[str] | None = None,
        media_type: str = JSON,
        detached: bool = False,
        wait: float | None = None,
    ) -> TaskHandle[Any]:
        """Submit a task; see `Sender.submit`."""
        return await self._sending.submit(
            action,
            body,
            origin=self._origin,
            life=life,
            partition=partition,
            grants=grants,
            media_type=media_type,
            detached=detached or self._cancellation.shielded,
            wait=wait,
            sent=self._sent,
        )

    def http(self, api: str, *, timeout: float = 30.0, task: bool = False) -> httpx2.AsyncClient:
        """Return an httpx2 client for the API that the exit calls `api`: `await ctx.http("crm").get("/customers/acme")`.

        Each request is a call of `exit.<api>` (`<agent>.<api>` if `api` names another exit), or with `task` a task, which may
        take longer than a minute; `timeout` is seconds for one request. The message's user and chain go along, the exit's
        policy decides, and the exit alone has the API's tokens. Requests raise what `call` raises: `Denied`, or `RemoteError`
        with the exit's code (docs/legacy.md). Whatever the API itself answers is an answer.
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
        """Return an MCP client for the server that the exit calls `api`: `async with ctx.mcp("github") as server`.

        What it yields is the client of the package `mcp` (extra `mcp`), with `list_tools` and `call_tool`. Each of its
        requests goes out as those of `http` do, and the exit's policy decides with the tool's name and a hash of what the
        server says of it. Names, descriptions and answers are what a stranger wrote. Raises what `http` raises.
        """
        from sealbus.agents.sdk.mcp import mcp_client

        return mcp_client(self.http(api, timeout=timeout), path)

    def a2a(
        self, api: str, path: str = "/", *, card: str = "/.well-known/agent-card.json", timeout: float = 30.0
    ) -> AbstractAsyncContextManager[A2aClient]:
        """Return an A2A client for the agent that the exit calls `api`: `async with ctx.a2a("partner") as agent`.

        What it yields is the client of the package `a2a-sdk` (extra `a2a`), which speaks JSON-RPC with `path` and does not
        stream: `send_message` yields the task or message of the answer, `get_task` what became of it. Each of its requests
        goes out as those of `http` do, and the exit's policy decides with the method and a hash of the agent's `card`. What
        the card and the answers say is what a stranger wrote. Raises what `http` raises.
        """
        from sealbus.agents.sdk.a2a import a2a_client

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
