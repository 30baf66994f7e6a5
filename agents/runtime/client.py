"""`Client`: submits tasks, calls actions, emits events and reads results with its own identity, outside of handlers."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable
from contextlib import AsyncExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar, Unpack, overload

from sealbus.agents.runtime.node import Node
from sealbus.agents.sdk.bodies import JSON, TypedAction
from sealbus.agents.sdk.messages import Origin
from sealbus.agents.sdk.options import (
    DEFAULT_CALL,
    DEFAULT_SUBMIT,
    CallKeywords,
    CallOptions,
    SubmitKeywords,
    SubmitOptions,
    check_keywords,
)
from sealbus.agents.sdk.sender import Receipt
from sealbus.agents.sdk.task_handle import TaskHandle
from sealbus.envelopes.errors import ConfigurationError
from sealbus.envelopes.message.wire import Statement

if TYPE_CHECKING:
    from sealbus.agents.runtime.settings.settings import Settings
    from sealbus.agents.sdk.schedules import Schedules
    from sealbus.agents.sdk.token_exchange import TokenExchange

Req = TypeVar("Req")
Res = TypeVar("Res")


class Client:
    """A client: `async with Client("shop-web") as bus:` with identity, servers and policy from the settings.

    `user` is a signed user context, minted by the edge; the client sends it along unmodified and never makes one.
    """

    def __init__(self, name: str, *, settings: Settings | None = None) -> None:
        self.name = name
        self._settings = settings
        self._node: Node | None = None
        self._token_service: str | None = None
        self._exchange: TokenExchange | None = None
        self._stack = AsyncExitStack()

    @classmethod
    def on(cls, node: Node) -> Client:
        """Return a client on an entered node; the node outlives it."""
        client = cls(node.token)
        client._node = node
        return client

    async def __aenter__(self) -> Self:
        if self._node is None:
            from sealbus.agents.runtime.open import open_node
            from sealbus.agents.runtime.settings.settings import load_settings

            settings = self._settings or load_settings()
            self._node = await self._stack.enter_async_context(open_node(self.name, settings))
            self._token_service = settings.client.token_service
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._node = self._exchange = None
        await self._stack.__aexit__(kind, error, trace)

    @property
    def node(self) -> Node:
        """The node of this client. Raises `RuntimeError` outside `async with`."""
        if self._node is None:
            raise RuntimeError("use the client inside `async with`")
        return self._node

    @overload
    async def submit(
        self,
        action: TypedAction[Req, Awaitable[Res]],
        body: Req,
        *,
        user: Statement | None = ...,
        **options: Unpack[SubmitKeywords],
    ) -> TaskHandle[Res]: ...
    @overload
    async def submit(
        self,
        action: TypedAction[Req, AsyncIterator[Res]],
        body: Req,
        *,
        user: Statement | None = ...,
        **options: Unpack[SubmitKeywords],
    ) -> TaskHandle[list[Res]]: ...
    @overload
    async def submit(
        self, action: str, body: object, *, user: Statement | None = ..., **options: Unpack[SubmitKeywords]
    ) -> TaskHandle: ...
    async def submit(
        self,
        action: TypedAction[Any, Awaitable[Res] | AsyncIterator[Res]] | str,
        body: object,
        *,
        user: Statement | None = None,
        **options: Unpack[SubmitKeywords],
    ) -> TaskHandle[Any]:
        """Submit a task and return its handle once it is stored; `await handle.result()` waits for its result.

        `action` is a declared handler or a text: `<agent>.<verb>`, or an own subject or its action. The recipient decides
        about the task later: the handle shows a denial. Raises `Overloaded` if the stream is full, `BusUnavailable`,
        `SealError` for a message that no reader would accept, `IdentityUnavailable`.
        """
        chosen = DEFAULT_SUBMIT
        if options:
            check_keywords(options, SubmitKeywords)
            chosen = SubmitOptions(**options)
        return await self.node.sending.submit(action, body, origin=Origin.user(user), options=chosen)

    async def user_context(self, token: str, *, asserted: bool = False, within: float = 10.0) -> Statement:
        """Exchange a user's access token at the edge's token service for a user context; the token goes no further.

        With `asserted`, `token` is an assertion of a partner, which can be exchanged once. `within` is seconds.

        Raises `ConfigurationError` unless `client.token_service` is set, else as `TokenExchange.user_context`.
        """
        if self._exchange is None:
            from sealbus.agents.sdk.token_exchange import TokenExchange

            if self._token_service is None:
                raise ConfigurationError("client.token_service is not set: it is the URL of the edge's token service")
            exchange = TokenExchange(
                self._token_service, identity=self.node.identity, edges=self.node.deployment.minters
            )
            self._exchange = await self._stack.enter_async_context(exchange)
        return await self._exchange.user_context(token, asserted=asserted, within=within)

    @property
    def schedules(self) -> Schedules:
        """The tasks that this identity sends later or repeatedly. Raises `RuntimeError` outside `async with`."""
        from sealbus.agents.runtime.schedules import schedules_of

        return schedules_of(self.node)

    def handle(self, text: str) -> TaskHandle:
        """Return the handle of a task that any process of this identity submitted; see `Sender.handle`."""
        return self.node.sending.handle(text)

    @overload
    async def call(
        self,
        action: TypedAction[Req, Awaitable[Res]],
        body: Req,
        *,
        user: Statement | None = ...,
        **options: Unpack[CallKeywords],
    ) -> Res: ...
    @overload
    async def call(
        self,
        action: str,
        body: object,
        *,
        returns: type[Res],
        user: Statement | None = ...,
        **options: Unpack[CallKeywords],
    ) -> Res: ...
    async def call(
        self,
        action: TypedAction[Any, Awaitable[Res]] | str,
        body: object,
        *,
        returns: type[Res] | None = None,
        user: Statement | None = None,
        **options: Unpack[CallKeywords],
    ) -> Res:
        """Call an action and return its typed answer.

        Raises `Denied` if the other side's policy or ours denies, `RemoteError` with the other side's code for any other
        failure there, `CallExpired` if no answer came in `timeout` seconds.
        """
        chosen = DEFAULT_CALL
        if options:
            check_keywords(options, CallKeywords)
            chosen = CallOptions(**options)
        return await self.node.sending.call(action, body, returns=returns, origin=Origin.user(user), options=chosen)

    @overload
    def stream(
        self,
        action: TypedAction[Req, AsyncIterator[Res]],
        body: Req,
        *,
        user: Statement | None = ...,
        timeout: float = ...,
    ) -> AsyncGenerator[Res, None]: ...
    @overload
    def stream(
        self, action: str, body: object, *, returns: type[Res], user: Statement | None = ..., timeout: float = ...
    ) -> AsyncGenerator[Res, None]: ...
    def stream(
        self,
        action: TypedAction[Any, AsyncIterator[Res]] | str,
        body: object,
        *,
        returns: type[Res] | None = None,
        user: Statement | None = None,
        timeout: float = 30.0,
    ) -> AsyncGenerator[Res, None]:
        """Call an action that answers in chunks, and yield each as it comes; raises as `call` does."""
        return self.node.sending.stream(
            action, body, returns=returns, origin=Origin.user(user), options=CallOptions(timeout=timeout)
        )

    async def emit(self, name: str, body: object, *, media_type: str = JSON) -> Receipt:
        """Emit an event of our own; see `Sender.emit`."""
        return await self.node.sending.emit(name, body, media_type=media_type)
