"""`Client`: what is not an agent's handler and wants to submit, call, emit and read, with an identity of its own."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeVar, overload

from sealbus.agents.bodies import JSON
from sealbus.agents.node import Node
from sealbus.agents.sending import Receipt
from sealbus.envelopes.wire import Statement

if TYPE_CHECKING:
    from sealbus.agents.agent import Handler
    from sealbus.agents.settings import Settings

__all__ = ["Client"]

Req = TypeVar("Req")
Res = TypeVar("Res")


class Client:
    """`async with Client("shop-web") as bus:` its identity, servers and policy come from the settings.

    `user` is a signed user context, minted by the edge; it is sent along unmodified and never made here.
    """

    def __init__(self, name: str, *, settings: Settings | None = None) -> None:
        self.name = name
        self._settings = settings
        self._node: Node | None = None
        self._stack = AsyncExitStack()

    @classmethod
    def on(cls, node: Node) -> Client:
        """Return a client on an entered node; the node outlives it."""
        client = cls(node.token)
        client._node = node
        return client

    async def __aenter__(self) -> Self:
        if self._node is None:
            from sealbus.agents.runtime import open_node

            self._node = await self._stack.enter_async_context(open_node(self.name, self._settings))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._node = None
        await self._stack.__aexit__(kind, error, trace)

    @property
    def node(self) -> Node:
        """The node that this client is on. Raises `RuntimeError` outside `async with`."""
        if self._node is None:
            raise RuntimeError("use the client inside `async with`")
        return self._node

    async def submit(
        self,
        action: str,
        body: object,
        *,
        user: Statement | None = None,
        life: float = 3_600.0,
        partition: str | None = None,
        grants: Sequence[str] | None = None,
        idempotency_key: str | None = None,
        media_type: str = JSON,
    ) -> Receipt:
        """Submit a task; see `Sending.submit`."""
        return await self.node.sending.submit(
            action,
            body,
            user=user,
            life=life,
            partition=partition,
            grants=grants,
            idempotency_key=idempotency_key,
            media_type=media_type,
        )

    @overload
    async def call(
        self, action: Handler[Req, Res], body: Req, *, user: Statement | None = ..., timeout: float = ...
    ) -> Res: ...
    @overload
    async def call(
        self, action: str, body: object, *, returns: type[Res], user: Statement | None = ..., timeout: float = ...
    ) -> Res: ...
    async def call(
        self,
        action: Handler[Req, Res] | str,
        body: object,
        *,
        returns: type[Res] | None = None,
        user: Statement | None = None,
        timeout: float = 30.0,
        grants: Sequence[str] | None = None,
        media_type: str = JSON,
    ) -> Res:
        """Call an action and return its typed answer; see `Sending.call`."""
        return await self.node.sending.call(
            action, body, returns=returns, user=user, timeout=timeout, grants=grants, media_type=media_type
        )

    def stream(
        self,
        action: Handler[Req, Res] | str,
        body: object,
        *,
        returns: type[Res] | None = None,
        user: Statement | None = None,
        timeout: float = 30.0,
    ) -> AsyncGenerator[Res, None]:
        """Call an action that answers in chunks; see `Sending.stream`."""
        return self.node.sending.stream(action, body, returns=returns, user=user, timeout=timeout)

    async def emit(self, name: str, body: object, *, media_type: str = JSON) -> Receipt:
        """Emit an event of our own; see `Sending.emit`."""
        return await self.node.sending.emit(name, body, media_type=media_type)
