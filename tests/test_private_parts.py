"""What is relied on of packages without being promised: private attributes, and methods that are overridden or called.

Each stands here with the classes of ours that rely on it, and its package is pinned exactly. Where an upgrade takes one away
or gives it another signature, this file says so, in one place; then read what became of it before the pin is moved. What our
code touches is read from its byte code, so that nothing new can be relied on without standing here.
"""

from __future__ import annotations

import ast
import asyncio
import inspect
import pkgutil
import re
import socket
import sys
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from types import CodeType, FunctionType

import pytest
import uvicorn
from a2a.server.request_handlers import GrpcHandler
from nats.aio.client import Client
from nats.aio.transport import TcpTransport
from nats.protocol.parser import Parser
from opa_client import AsyncOpaClient  # type: ignore[import-untyped]  # it has no types
from packaging.requirements import Requirement
from spiffe import WorkloadApiClient
from spiffe._proto.workload_pb2_grpc import SpiffeWorkloadAPIServicer
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle
from uvicorn.server import ServerState

from sealbus.agents.dev.workload_api.server import WorkloadServicer
from sealbus.agents.edge.http.peer import PeerProtocol
from sealbus.agents.edge.http.protocol import EdgeProtocol
from sealbus.agents.edge.http.server import _HttpServer
from sealbus.agents.identity.workload_api import RawClient
from sealbus.bus.nats.connection.client import SafeClient, TlsStream
from sealbus.bus.nats.connection.link import Link
from sealbus.bus.nats.connection.parser import ProtocolParser
from sealbus.policies.opa.client import _BoundedClient

ROOT = Path(__file__).parent.parent

FOLDERS = ("agents", "bus", "envelopes", "policies")
OWN = sys.stdlib_module_names | {"sealbus"}
PROTO = {"spiffe._proto.workload_pb2", "spiffe._proto.workload_pb2_grpc"}
"""The Workload API's messages and stubs, generated from its proto file, which is a standard."""

ATTRIBUTE = "-"


@dataclass(frozen=True)
class Part:
    """`names` of `theirs`, each with its parameters or `ATTRIBUTE`, which `ours` override, call, read or set.

    Where `theirs` is documented as a whole, only its private names and what is overridden are looked at.
    """

    package: str
    theirs: type
    ours: tuple[type, ...]
    names: dict[str, str]
    documented: bool = False


PARTS = [
    Part(
        "nats-py",
        Client,
        (SafeClient, ProtocolParser, Link),
        {
            "_close": "self, status, do_cbs=True",
            "_ping_interval": "self",
            "_process_err": "self, err_msg",
            "_process_info": "self, info, initial_connection=False",
            "_process_msg": "self, sid, subject, reply, data, headers",
            "_process_op_err": "self, e",
            "_process_ping": "self",
            "_process_pong": "self",
            "_read_loop": "self",
            "_select_next_server": "self",
            "_send_ping": "self, future=None",
            **dict.fromkeys(
                (
                    "_current_server",
                    "_err",
                    "_pending",
                    "_pending_data_size",
                    "_pings_outstanding",
                    "_pongs",
                    "_ps",
                    "_pongs_received",
                    "_public_nkey",
                    "_reading_task",
                    "_server_info",
                    "_server_pool",
                    "_sid",
                    "_transport",
                ),
                ATTRIBUTE,
            ),
        },
        documented=True,
    ),
    Part(
        "nats-py",
        TcpTransport,
        (TlsStream, SafeClient),
        {
            **dict.fromkeys(("_bare_io_reader", "_bare_io_writer", "_io_reader", "_io_writer"), ATTRIBUTE),
            "close": "self",
            "connect": "self, uri, buffer_size, connect_timeout",
            "connect_tls": "self, uri, ssl_context, buffer_size, connect_timeout",
            "drain": "self",
            "read": "self, buffer_size",
            "readline": "self",
            "wait_closed": "self",
            "write": "self, payload",
            "writelines": "self, payload",
        },
    ),
    Part("nats-py", Parser, (ProtocolParser,), {"parse": "self, data=b''", "reset": "self"}),
    Part(
        "spiffe",
        WorkloadApiClient,
        (RawClient,),
        {
            "_config": ATTRIBUTE,
            "_get_spiffe_grpc_channel": "self",
            "_grpc_target": "value",
            "_spiffe_workload_api_stub": ATTRIBUTE,
        },
        documented=True,
    ),
    Part(
        "spiffe",
        SpiffeWorkloadAPIServicer,
        (WorkloadServicer,),
        dict.fromkeys(
            ("FetchJWTBundles", "FetchJWTSVID", "FetchX509Bundles", "FetchX509SVID", "ValidateJWTSVID"),
            "self, request, context",
        ),
    ),
    Part(
        "opa-python-client",
        AsyncOpaClient,
        (_BoundedClient,),
        {"_request": "self, method, url, **kwargs", "_session": ATTRIBUTE},
        documented=True,
    ),
    Part(
        "uvicorn",
        H11Protocol,
        (EdgeProtocol, PeerProtocol),
        {
            **dict.fromkeys(("access_log", "app", "conn", "cycle", "logger", "loop", "transport"), ATTRIBUTE),
            "connection_lost": "self, exc",
            "connection_made": "self, transport",
            "data_received": "self, data",
            "eof_received": "self",
            "on_response_complete": "self",
            "pause_writing": "self",
            "resume_writing": "self",
            "send_400_response": "self, msg",
        },
    ),
    Part(
        "uvicorn",
        uvicorn.Server,
        (_HttpServer,),
        {
            **dict.fromkeys(("config", "server_state", "started"), ATTRIBUTE),
            "capture_signals": "self",
            "main_loop": "self",
            "on_tick": "self, counter",
            "startup": "self, sockets=None",
        },
    ),
]

INSIDE: list[tuple[Callable[..., object], set[str]]] = [
    # nats-py connects, reads and logs in by what is overridden or set.
    (Client.connect, {"_select_next_server"}),
    (Client._process_connect_init, {"_read_loop", "_reading_task", "_transport", "_ps", "_pongs", "connect_tls"}),
    (Client._connect_command, {"_public_nkey", "_signature_cb"}),
    (Client._close, {"_pending", "_transport", "_reading_task"}),
    (Client._send_ping, {"_pongs", "_transport"}),
    (Client._ping_interval, {"_process_op_err", "_pings_outstanding"}),
    # spiffe makes its connection by the method that is overridden, and its stub with it.
    (WorkloadApiClient.__init__, {"_get_spiffe_grpc_channel", "_spiffe_workload_api_stub"}),
    # a2a ends requests that were not done by the method that is overridden.
    (GrpcHandler._handle_unary, {"abort_context"}),
    (GrpcHandler._handle_stream, {"abort_context"}),
    # opa-python-client asks everything by the method that is overridden.
    (AsyncOpaClient.check_health, {"_request"}),
    (AsyncOpaClient.get_status, {"_request"}),
    (AsyncOpaClient.get_policies_list, {"_request"}),
    (AsyncOpaClient.get_data, {"_request"}),
    (AsyncOpaClient.query_rule, {"_request"}),
    (AsyncOpaClient.ad_hoc_query, {"_request"}),
    # uvicorn runs, stops and answers by what is overridden or set.
    (uvicorn.Server.serve, {"capture_signals"}),
    (uvicorn.Server._serve, {"startup", "main_loop", "shutdown", "should_exit"}),
    (uvicorn.Server.shutdown, {"servers", "connections", "tasks", "timeout_graceful_shutdown"}),
    (uvicorn.Server.on_tick, {"should_exit", "default_headers"}),
    (
        H11Protocol.handle_events,
        {"conn", "next_event", "send_400_response", "on_response_complete", "app", "access_log"},
    ),
    (H11Protocol.connection_lost, {"connections", "cycle", "disconnected", "message_event", "response_complete"}),
    (RequestResponseCycle.receive, {"message_event", "disconnected", "response_complete"}),
    (RequestResponseCycle.send, {"disconnected", "response_complete"}),
]
"""Functions of theirs that must go on using these names, or what is overridden would be called by nobody."""

DOCUMENTED = {
    "aiohttp": "a session takes a class of responses, whose `close` and `connection` are documented",
    "a2a.auth.user": "abstract on purpose: who asks",
    "a2a.server.request_handlers": "handlers of one's own; of `GrpcHandler` the public `abort_context` alone is overridden",
    "a2a.server.request_handlers.grpc_handler": "abstract on purpose: what a handler is told of a request",
    "a2a.server.routes.common": "as above",
    "authlib.oauth2.rfc6749": "the hooks of a server of one's own are its documentation; the development IdP alone has them",
    "authlib.oauth2.rfc6749.grants": "as above",
    "authlib.oauth2.rfc6749.requests": "as above",
    "authlib.oauth2.rfc7636": "as above",
    "authlib.oauth2.rfc8628": "as above",
    "click": "groups and parameter types",
    "grpc.aio": "interceptors",
    "httpx": "as httpx2",
    "httpx2": "a transport of one's own is its documented way to answer requests without a network",
    "h11": "`Connection.next_event` is the whole of its interface",
    "mcp_types": "parameters of methods of one's own are models of its",
    "pydantic": "models",
    "starlette.responses": "a response is called as an ASGI application",
}
"""Modules whose classes are meant to be derived from, and why that is believed."""


async def made(theirs: type, folder: Path) -> object:
    """Return one of `theirs`, with the attributes that it has from the beginning."""
    config = Config(lambda: None)
    if theirs is WorkloadApiClient:
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(str(folder / "s"))
        client = WorkloadApiClient(f"unix://{folder / 's'}")
        client.close()
        return client
    if theirs is H11Protocol:
        return H11Protocol(config, ServerState(), {}, asyncio.get_running_loop())
    made: object = theirs(config) if theirs is uvicorn.Server else theirs()
    return made


def names_in(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            yield from names_in(inner)


def functions_of(ours: type) -> Iterator[FunctionType]:
    for member in vars(ours).values():
        function = getattr(member, "fget", None) or getattr(member, "__wrapped__", member)
        if isinstance(function, FunctionType):
            yield function


def touched(one: object, part: Part) -> set[str]:
    """Return what `part.ours` override and use of `part.theirs`, of which `one` is one."""
    mine = {name for ours in part.ours if issubclass(ours, part.theirs) for name in vars(ours)}
    used = {name for ours in part.ours for function in functions_of(ours) for name in names_in(function.__code__)}
    inside = set(vars(part.theirs)) | set(vars(one))
    if part.documented:
        inside = {name for name in inside if name.startswith("_")} | set(vars(one))
    return {name for name in inside & (mine | used) if not name.startswith(("__", "_abc_"))}


def signature(one: object, name: str) -> str:
    """Return a function's parameters without their types; of anything else that it is one."""
    found = inspect.getattr_static(one, name)
    if not callable(getattr(one, name)) or name in vars(one):
        return ATTRIBUTE
    function = inspect.unwrap(getattr(found, "__func__", found))
    return ", ".join(
        str(p.replace(annotation=inspect.Parameter.empty)) for p in inspect.signature(function).parameters.values()
    )


def derived(path: Path) -> Iterator[str]:
    """Yield what a file imports of private modules, and the foreign classes that it derives from."""
    foreign: dict[str, str] = {}
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module is not None:
            foreign |= {one.asname or one.name: f"{node.module}.{one.name}" for one in node.names}
        elif isinstance(node, ast.Import):
            foreign |= {one.asname or one.name: one.name for one in node.names}
    foreign = {name: whole for name, whole in foreign.items() if whole.partition(".")[0] not in OWN}
    yield from (whole for whole in foreign.values() if re.search(r"\._(?!_)|^_(?!_)", whole))
    for node in ast.walk(tree):
        for base in node.bases if isinstance(node, ast.ClassDef) else ():
            name, _, rest = ast.unparse(base).partition("[")[0].partition(".")
            if name in foreign:
                yield f"{foreign[name]}.{rest}".rstrip(".")


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.theirs.__name__)
async def test_what_is_relied_on_is_there_as_it_was(part: Part, tmp_path: Path) -> None:
    one = await made(part.theirs, tmp_path)
    there = {name: signature(one, name) if hasattr(one, name) else "gone" for name in part.names}
    assert there == part.names


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.theirs.__name__)
async def test_nothing_else_is_relied_on(part: Part, tmp_path: Path) -> None:
    assert touched(await made(part.theirs, tmp_path), part) == part.names.keys()


@pytest.mark.parametrize(("function", "names"), INSIDE, ids=lambda one: getattr(one, "__qualname__", ""))
def test_what_is_overridden_or_set_is_used(function: Callable[..., object], names: set[str]) -> None:
    assert sorted(names - set(names_in(inspect.unwrap(function).__code__))) == []


@pytest.mark.parametrize("package", sorted({part.package for part in PARTS}))
def test_its_package_is_pinned_exactly(package: str) -> None:
    asked = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]
    (pin,) = [str(one.specifier) for one in map(Requirement, asked) if one.name == package]
    assert pin == f"=={version(package)}"


@pytest.mark.slow
def test_no_other_foreign_class_is_derived_from_and_no_other_private_module_imported() -> None:
    found = {name for folder in FOLDERS for path in (ROOT / folder).rglob("*.py") for name in derived(path)}
    judged = {name for name in found if pkgutil.resolve_name(name) in {part.theirs for part in PARTS}}
    documented = {name for name in found if name.rpartition(".")[0] in DOCUMENTED}
    assert sorted(found - judged - documented - PROTO) == []
    assert sorted(DOCUMENTED.keys() - {name.rpartition(".")[0] for name in documented}) == []
