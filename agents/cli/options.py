"""Options and parameter types that commands share, how commands run, and SIGINT and SIGTERM as an event."""

from __future__ import annotations

import asyncio
import functools
import inspect
import re
import signal
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

import click

from sealbus.agents.cli.output import note
from sealbus.envelopes.limits import SECOND

if TYPE_CHECKING:
    from sealbus.agents.runtime.health import Probes
    from sealbus.agents.runtime.settings.settings import Settings
    from sealbus.bus.telemetry import Counters
    from sealbus.envelopes.trust.names import Names
    from sealbus.envelopes.trust.spiffe_id import SpiffeId


F = TypeVar("F", bound=Callable[..., Any])

PATH: Final = click.Path(path_type=Path)
PATH_OR_INPUT: Final = click.Path(path_type=Path, allow_dash=True)
EXISTING: Final = click.Path(path_type=Path, exists=True)
EXISTING_FILE: Final = click.Path(path_type=Path, exists=True, dir_okay=False)
EXISTING_FOLDER: Final = click.Path(path_type=Path, exists=True, file_okay=False)
FILE: Final = click.Path(path_type=Path, dir_okay=False)
FOLDER: Final = click.Path(path_type=Path, file_okay=False)
"""Parameter types for files and folders."""

_HEX = re.compile("[0-9a-fA-F]*")
_AGO = re.compile(r"([0-9]{1,6})([smhd])")
_UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}


@dataclass(frozen=True, slots=True, kw_only=True)
class Invocation:
    """The values of `--config`, `--as` and `--json`: settings file, name of the workload, and whether to print JSON."""

    config: str | None
    as_name: str
    as_json: bool
    also: Sequence[str] = ()
    """Further names that a command with several `--as` has, one for each further cell."""

    @property
    def as_names(self) -> Sequence[str]:
        """All names."""
        return (self.as_name, *self.also)

    def settings(self) -> Settings:
        """Return the settings of the command. Raises `ConfigurationError`."""
        from sealbus.agents.runtime.settings.settings import load_settings

        return load_settings(self.config).for_command()


def invocation_options(
    workload: str | None = None, *, json_help: str = "Print JSON, one object a line.", several: bool = False
) -> Callable[[Callable[..., Any]], Callable[..., None]]:
    """Add `--config`, `--as` and `--json`, which become one `Invocation`, `invocation`.

    `workload` is the default of `--as`. Without `workload` it is the workload that the settings name (`client.name`).
    With `several` the option may be given once for each cell: a connection is in one cell, that of its workload.
    The command may be a coroutine function, which is run. A number that it returns is the exit code.
    """

    def decorate(function: Callable[..., Any]) -> Callable[..., None]:
        run_command = as_command(function)

        @functools.wraps(function)
        def with_invocation(*, config: str | None, as_name: str | Sequence[str], as_json: bool, **others: Any) -> None:
            name, *also = (as_name,) if isinstance(as_name, str) else as_name
            if len({name, *also}) <= len(also):
                raise click.UsageError("--as names a workload twice: give one of each cell")
            run_command(invocation=Invocation(config=config, as_name=name, as_json=as_json, also=also), **others)

        named = client_option if workload is None else as_option(workload, several=several)
        as_json_option = click.option("--json", "as_json", is_flag=True, help=json_help)
        return config_option(named(as_json_option(with_invocation)))

    return decorate


def as_command(function: Callable[..., Any]) -> Callable[..., None]:
    """Make a command of `function`, which may be a coroutine function. A number that it returns is the exit code."""

    @functools.wraps(function)
    def run_command(**options: Any) -> None:
        code = function(**options)
        if inspect.iscoroutine(code):
            code = asyncio.run(code)
        if code:
            raise SystemExit(code)

    return run_command


def config_option(function: F) -> F:
    """Add `--config FILE`."""
    return click.option(
        "--config",
        default=None,
        is_eager=True,  # the defaults of other options may be in it
        metavar="FILE",
        help="Settings file; by default those of a running `sealbus dev`, or ./sealbus.toml.",
    )(function)


def json_option(function: F) -> F:
    """Add `--json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON, one object a line.")(function)


def log_option(function: F) -> F:
    """Add `--log-format`; it becomes `log_json`."""

    @functools.wraps(function)
    def with_format(*, log_format: str | None, **others: Any) -> Any:
        log_json = log_format == "json" if log_format is not None else bool(others.get("as_json"))
        return function(log_json=log_json, **others)

    added = click.option(
        "--log-format",
        type=click.Choice(["text", "json"]),
        default=None,
        help="How stderr is written: lines for people, or one JSON object a line.  [default: text; json with --json]",
    )(with_format)
    return cast("F", added)


def as_option(default: str, *, several: bool = False) -> Callable[[F], F]:
    """Add `--as NAME`, the name of the workload whose Workload API socket is used, or `several` names."""
    more = " May be repeated, for other cells." if several else ""
    return click.option(
        "--as",
        "as_name",
        default=[default] if several else default,
        multiple=several,
        show_default=default,
        metavar="NAME",
        help=f"Whose identity to use where the settings name one Workload API socket per workload.{more}",
    )


def client_option(function: F) -> F:
    """Add `--as NAME` for commands that send: by default the workload that the settings name (`client.name`)."""

    def named(ctx: click.Context, _: click.Parameter, value: str | None) -> str:
        from sealbus.agents.runtime.settings.settings import load_client

        return value if value is not None else load_client(ctx.params.get("config")).name

    return click.option(
        "--as",
        "as_name",
        default=None,
        callback=named,
        metavar="NAME",
        help="Whose identity to use where the settings name one Workload API socket per workload.  [default: client.name]",
    )(function)


def login_options(function: F) -> F:
    """Add the options that replace settings of `[client]`; they become one list of `Flag`, `flags`."""

    @functools.wraps(function)
    def with_flags(
        *, issuer: str | None, client_id: str | None, resource: str | None, file: str | None, **others: Any
    ) -> Any:
        from sealbus.agents.runtime.settings.source import Flag

        values = {"issuer": issuer, "client-id": client_id, "resource": resource}
        flags = [
            Flag(option=f"--{name}", key=f"client.{name.replace('-', '_')}", value=value)
            for name, value in values.items()
        ]
        return function(flags=[*flags, Flag(option="--file", key="client.logins", value=file)], **others)

    for option in (
        click.option("--file", default=None, metavar="FILE", help="Where logins are kept (client.logins)."),
        click.option("--resource", default=None, metavar="URI", help="The audience of tokens (client.resource)."),
        click.option("--client-id", default=None, metavar="ID", help="The OAuth client (client.client_id)."),
        click.option("--issuer", default=None, metavar="URL", help="The identity provider (client.issuer)."),
    ):
        with_flags = option(with_flags)
    return cast("F", with_flags)


def agent_option(purpose: str) -> Callable[[F], F]:
    """Add `--agent NAME`, whose value `workload_named` reads; `purpose` is its help."""
    return click.option("--agent", default=None, metavar="NAME", help=f"{purpose}: its name or SPIFFE ID.")


def workload_named(names: Names, text: str | None) -> SpiffeId | None:
    """Return the workload that `--agent` names; None without the option. Raises `BadParameter` for another text."""
    from sealbus.envelopes.errors import ConfigurationError

    try:
        return workload_id(text, lambda: names) if text is not None else None
    except ConfigurationError as error:
        raise click.BadParameter("neither a name nor a SPIFFE ID", param_hint="--agent") from error


def workload_id(text: str, names: Callable[[], Names]) -> SpiffeId:
    """Return the SPIFFE ID `text`, or the ID of the workload that `names` gives this name; only then `names` is called.

    Raises `ConfigurationError` for another text.
    """
    from sealbus.envelopes.errors import ConfigurationError, EnvelopeError
    from sealbus.envelopes.trust.spiffe_id import SpiffeId

    if not text.startswith("spiffe://"):
        return names().id_of(text)
    try:
        return SpiffeId.parse(text)
    except EnvelopeError as error:
        raise ConfigurationError(f"{text[:255]!r} is not a SPIFFE ID") from error


def log_folder_option(rest: str = "") -> Callable[[F], F]:
    """Add `--log DIR`, the notary's folder of the log; it becomes `log_folder`. `rest` ends the sentence of its help."""
    folder = f"The folder in which the notary keeps the log{rest}."
    return click.option("--log", "log_folder", default=None, type=PATH, metavar="DIR", help=folder)


def limit_option(function: F) -> F:
    """Add `--limit N`, how many rows a list has at most."""
    rows = click.IntRange(1, 10_000)
    return click.option(
        "--limit", default=50, show_default=True, type=rows, help="How many to show, the newest first."
    )(function)


def period_options(function: F) -> F:
    """Add `--since TIME` and `--until TIME`."""
    function = click.option("--until", type=Moment(), default=None, help="Before this time.")(function)
    since = "From this time on: RFC 3339, or 10m, 2h, 3d ago."
    return click.option("--since", type=Moment(), default=None, help=since)(function)


def engine_options(function: F) -> F:
    """Add `--engine` and `--opa FILE`."""
    function = click.option("--opa", type=PATH, default=None, help="The opa executable, for --engine sidecar.")(
        function
    )
    engines = click.Choice(["embedded", "sidecar"])
    return click.option("--engine", type=engines, default="embedded", show_default=True)(function)


def opa_option(function: F) -> F:
    """Add `--opa FILE`, an executable that is otherwise searched on PATH."""
    return click.option("--opa", type=PATH, default=None, help="The opa executable; by default that on PATH.")(function)


class Moment(click.ParamType[int]):
    """Parameter type for `2026-11-24T14:00:00Z` or `10m` (ago), converted to microseconds since the Unix epoch."""

    name = "time"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the time that `value` stands for, or fail with a usage error."""
        if isinstance(value, int):
            return value
        text = str(value)
        ago = _AGO.fullmatch(text)
        if ago:
            return int(time.time() - int(ago[1]) * _UNITS[ago[2]]) * SECOND
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            self.fail(f"{text!r} is neither RFC 3339 nor a number with s, m, h or d", param, ctx)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        return int(moment.timestamp() * SECOND)


class HexDigits(click.ParamType[bytes]):
    """Parameter type for an id or a hash in hex digits, converted to bytes. `lengths` are the allowed numbers of digits."""

    name = "hex"

    def __init__(self, *lengths: int) -> None:
        self._lengths = lengths

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> bytes:
        """Return the bytes that `value` stands for, or fail with a usage error."""
        if isinstance(value, bytes):
            return value
        text = str(value)
        if len(text) not in self._lengths or not _HEX.fullmatch(text):
            self.fail(f"{text[:80]!r} is not {' or '.join(map(str, self._lengths))} hex digits", param, ctx)
        return bytes.fromhex(text)


def stop_signalled() -> asyncio.Event:
    """Return an event of the running loop that SIGINT and SIGTERM set from now on."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    return stop


@asynccontextmanager
async def ended_by(stop: asyncio.Event) -> AsyncGenerator[None, None]:
    """Run the block, such as a wait for an identity; end it when `stop` is set. Check `stop` afterwards."""
    limit = asyncio.timeout(None)
    try:
        async with limit:
            watching = asyncio.ensure_future(stop.wait())
            watching.add_done_callback(lambda _: None if watching.cancelled() else limit.reschedule(0.0))
            try:
                yield
            finally:
                watching.cancel()
    except TimeoutError:
        if not limit.expired():
            raise


async def observe_process(
    stack: AsyncExitStack, name: str, counters: Counters, address: str | None, probes: Callable[[], Probes]
) -> None:
    """Until `stack` ends, watch the event loop, export `counters` as `name` if that is asked for, and answer `probes`.

    Nothing is answered without an `address`; then `probes` is not called.
    """
    from sealbus.agents.runtime.health import HealthServer
    from sealbus.agents.runtime.metric_export import exporting_metrics
    from sealbus.agents.runtime.process.loop_watch import LoopWatch

    watch = await stack.enter_async_context(LoopWatch())
    watch.count_in(counters)
    await stack.enter_async_context(exporting_metrics(name, counters))
    if address is not None:
        health = HealthServer(address, probes=probes(), counters=counters, watch=watch)
        server = await stack.enter_async_context(health)
        note(f"health at port {server.port}")
