"""An edge with cards for the agents of a test, and clients of the package `a2a` at it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

import grpc.aio  # type: ignore[import-untyped]  # grpc has no types
import httpx
from a2a.client import Client, ClientCallContext, ClientCallInterceptor, ClientConfig, create_client
from a2a.client.interceptors import AfterArgs, BeforeArgs
from a2a.types import Message, Part, Role, SendMessageRequest, StreamResponse, Task
from google.protobuf.json_format import ParseDict
from google.protobuf.struct_pb2 import Value
from joserfc.jwk import ECKey
from support.edge import Door, door
from support.issuer import AUDIENCE, TRUSTS_NOBODY
from support.ports import held_port

from sealbus import Agent, Context
from sealbus.agents.edge.oauth.tokens.access_token import AccessToken
from sealbus.agents.sdk.schema import AgentSchema

__all__ = [
    "BINDINGS",
    "CardKeyFile",
    "Lines",
    "Site",
    "asking",
    "card_key",
    "card_url",
    "client_of",
    "left",
    "site",
    "submitted",
    "token_of",
    "told",
    "written_schemas",
]

BINDINGS = ("JSONRPC", "HTTP+JSON", "GRPC")


@dataclass(kw_only=True)
class Site:
    """An edge on a bus in memory with its A2A server."""

    door: Door
    grpc: str
    """The address of its gRPC server."""

    def origin(self) -> str:
        """Return where the edge listens, and says in its cards that it does."""
        return f"http://127.0.0.1:{self.door.edge.port}"

    @asynccontextmanager
    async def client(self, agent: str, binding: str = "JSONRPC", **claims: Any) -> AsyncIterator[Client]:
        """Yield a client of an agent's, by its card, over one binding, with a token of these claims."""
        token = self.door.issuer.token(**claims)
        async with client_of(card_url(self.origin(), agent), binding, token) as client:
            yield client


@asynccontextmanager
async def client_of(url: str, binding: str, token: str) -> AsyncIterator[Client]:
    """Yield a client of the agent whose card is below `url`, over one binding."""
    async with httpx.AsyncClient(trust_env=False, verify=TRUSTS_NOBODY, timeout=60) as http:
        config = ClientConfig(
            httpx_client=http,
            supported_protocol_bindings=[binding],
            streaming=True,
            grpc_channel_factory=grpc.aio.insecure_channel,
        )
        async with await create_client(url, client_config=config, interceptors=[_Authorized(token)]) as client:
            yield client


def written_schemas(folder: Path, agents: Sequence[Agent]) -> tuple[Path, ...]:
    """Return files with the schemas of agents, in `folder`."""
    files = []
    for agent in agents:
        files.append(folder / f"{agent.name}.json")
        files[-1].write_text(AgentSchema.of(agent).text())
    return tuple(files)


class _Authorized(ClientCallInterceptor):
    """Shows a token with each request, by the name of the field that gRPC takes, too."""

    def __init__(self, token: str) -> None:
        self._token = token

    async def before(self, args: BeforeArgs) -> None:
        args.context = args.context or ClientCallContext()
        args.context.service_parameters = {
            **(args.context.service_parameters or {}),
            "authorization": f"Bearer {self._token}",
        }

    async def after(self, args: AfterArgs) -> None:
        pass


def card_url(origin: str, agent: str) -> str:
    """Return below what an agent's card is found."""
    return f"{origin}/a2a/{agent}"


def asking(skill: str, arguments: Any, **said: Any) -> SendMessageRequest:
    """Return a request to do what `skill` names; `said` is more of the message, or its `configuration`."""
    configuration = said.pop("configuration", None)
    part = Part(text=arguments) if isinstance(arguments, str) else Part(data=ParseDict(arguments, Value()))
    message = Message(**{"message_id": uuid4().hex, "role": Role.ROLE_USER, "parts": [part], **said})
    if skill:
        message.metadata.update({"skillId": skill})
    return SendMessageRequest(message=message, configuration=configuration)


@asynccontextmanager
async def site(
    folder: Path, *agents: Agent, shown: Sequence[str] = (), settings: Mapping[str, Any] | None = None, **changes: Any
) -> AsyncIterator[Site]:
    """Run `agents` with an edge in front that shows those of them that `shown` names, by default all."""
    port, grpc_port = held_port(), held_port()
    grpc_address = {"grpc": f"127.0.0.1:{grpc_port}"}
    a2a = {**grpc_address, "agents": tuple(shown or [agent.name for agent in agents]), **(settings or {})}
    actions = changes.pop("actions", [f"{agent.name}.*" for agent in agents])
    changes = {
        "address": f"127.0.0.1:{port}",
        "resource": f"http://127.0.0.1:{port}",
        "row": {"audiences": (AUDIENCE,)},
        "schemas": written_schemas(folder, agents),
        **changes,
    }
    async with door(*agents, actions=actions, a2a=a2a, **changes) as running:
        yield Site(door=running, grpc=a2a["grpc"])


class Lines:
    """An agent that writes a line at a time, each with `line` in it, and goes on after the first only once it is told to."""

    def __init__(self, line: str = "line") -> None:
        self.go_on = asyncio.Event()
        self.begun = asyncio.Event()
        self.canceled = asyncio.Event()
        self.agent = Agent("writer")

        @self.agent.task("write")
        async def write(body: int, ctx: Context) -> AsyncIterator[str]:
            await ctx.progress("begun")
            for number in range(body):
                yield f"{line} {number}"
                await self.go_on.wait()

        @self.agent.call("shout")
        async def shout(body: str, ctx: Context) -> str:
            """<b>Shout</b> & "quote" [link](javascript:alert(1))."""
            return body.upper()

        @self.agent.call("big")
        async def big(body: str, ctx: Context) -> int:
            return 2**60

        @self.agent.call("count", chunks=True)
        async def count(body: int, ctx: Context) -> AsyncIterator[int]:
            for number in range(body):
                yield number

        @self.agent.call("hang")
        async def hang(body: int, ctx: Context) -> int:
            self.begun.set()
            try:
                await asyncio.get_running_loop().create_future()
            finally:
                self.canceled.set()
            return 0

        @self.agent.call("broken")
        async def broken(body: int, ctx: Context) -> int:
            raise RuntimeError("a secret")


async def told(responses: AsyncIterator[StreamResponse]) -> list[StreamResponse]:
    """Return all that a client is told."""
    return [one async for one in responses]


async def submitted(client: Client, skill: str, arguments: object, **said: Any) -> Task:
    """Return a task that was begun, and whose stream was left at once."""
    async with left(client.send_message(asking(skill, arguments, **said))) as responses:
        return (await anext(responses)).task


@asynccontextmanager
async def left(responses: AsyncIterator[StreamResponse]) -> AsyncIterator[AsyncIterator[StreamResponse]]:
    """Leave a stream at the end of the block."""
    assert isinstance(responses, AsyncGenerator)
    async with aclosing(responses):
        yield responses


class CardKeyFile(NamedTuple):
    """A file with a key that signs cards, and its public key as JWK, with its id."""

    file: Path
    public: dict[str, str]


def card_key(folder: Path) -> CardKeyFile:
    """Return a new key for cards, in `folder`."""
    key = ECKey.generate_key("P-256")
    file = folder / "card.key"
    file.touch(mode=0o600)
    file.write_bytes(key.as_pem(private=True))
    public = {name: str(value) for name, value in key.as_dict(private=False).items()}
    return CardKeyFile(file, {**public, "kid": key.thumbprint()})


def token_of(issuer: str, user: str) -> AccessToken:
    """Return the contents of a user's token."""
    return AccessToken(
        issuer=issuer,
        subject=user,
        name=user,
        client="shop-web",
        session="s",
        scope=(),
        claims={},
        tenant=None,
        acr=None,
        amr=None,
        auth_time=None,
        issued=0,
        expires=2**62,
    )
