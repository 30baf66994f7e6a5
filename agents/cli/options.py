"""What commands share: common options, times as RFC 3339 or a duration ago, and SIGINT and SIGTERM as an event."""

from __future__ import annotations

import asyncio
import functools
import re
import signal
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click

from sealbus.envelopes.limits import SECOND

if TYPE_CHECKING:
    from sealbus.envelopes.trust.names import Names
    from sealbus.envelopes.trust.spiffe_id import SpiffeId

__all__ = [
    "HexDigits",
    "Moment",
    "agent_option",
    "as_option",
    "client_option",
    "config_option",
    "ended_by",
    "json_option",
    "log_option",
    "login_options",
    "stop_signalled",
    "workload_named",
]

F = TypeVar("F", bound=Callable[..., Any])

_HEX = re.compile("[0-9a-fA-F]*")
_AGO = re.compile(r"([0-9]{1,6})([smhd])")
_UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}


def config_option(function: F) -> F:
    """Add `--config FILE`."""
    return click.option(
        "--config",
        default=None,
        is_eager=True,  # what else is not said may be in it
        metavar="FILE",
        help="Settings file; by default those of a running `sealbus dev`, or ./sealbus.toml.",
    )(function)


def json_option(function: F) -> F:
    """Add `--json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON, one object a line.")(function)


def log_option(function: F) -> F:
    """Add `--log-format`; it becomes `log_json`."""

    @functools.wraps(function)
    def with_format(*, log_format: str | None, **given: Any) -> Any:
        log_json = log_format == "json" if log_format is not None else bool(given.get("as_json"))
        return function(log_json=log_json, **given)

    added = click.option(
        "--log-format",
        type=click.Choice(["text", "json"]),
        default=None,
        help="How stderr is written: lines for people, or one JSON object a line.  [default: text; json with --json]",
    )(with_format)
    return cast("F", added)


def as_option(default: str) -> Callable[[F], F]:
    """Add `--as NAME`, the name of the workload whose Workload API socket is used."""
    return click.option(
        "--as",
        "as_name",
        default=default,
        show_default=True,
        metavar="NAME",
        help="Whose identity to use where the settings name one Workload API socket per workload.",
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
    """Add the options that stand for settings of `[client]`; they become one list of `Flag`, `flags`."""

    @functools.wraps(function)
    def with_flags(
        *, issuer: str | None, client_id: str | None, resource: str | None, file: str | None, **given: Any
    ) -> Any:
        from sealbus.agents.runtime.settings.source import Flag

        said = {"issuer": issuer, "client-id": client_id, "resource": resource}
        flags = [
            Flag(option=f"--{name}", key=f"client.{name.replace('-', '_')}", value=value)
            for name, value in said.items()
        ]
        return function(flags=[*flags, Flag(option="--file", key="client.logins", value=file)], **given)

    for option in (
        click.option("--file", default=None, metavar="FILE", help="Where logins are kept (client.logins)."),
        click.option("--resource", default=None, metavar="URI", help="For whom tokens are (client.resource)."),
        click.option("--client-id", default=None, metavar="ID", help="The OAuth client (client.client_id)."),
        click.option("--issuer", default=None, metavar="URL", help="The identity provider (client.issuer)."),
    ):
        with_flags = option(with_flags)
    return cast("F", with_flags)


def agent_option(what: str) -> Callable[[F], F]:
    """Add `--agent NAME`, to be read by `workload_named`; `what` is its help."""
    return click.option("--agent", default=None, metavar="NAME", help=f"{what}: its name or SPIFFE ID.")


def workload_named(names: Names, text: str | None) -> SpiffeId | None:
    """Return the workload that `--agent` names, None without one; raises `BadParameter` for what cannot be one."""
    from sealbus.envelopes.errors import ConfigurationError, EnvelopeError
    from sealbus.envelopes.trust.spiffe_id import SpiffeId

    if text is None:
        return None
    try:
        return SpiffeId.parse(text) if "/" in text else names.id_of(text)
    except (EnvelopeError, ConfigurationError) as error:
        raise click.BadParameter("neither a name nor a SPIFFE ID", param_hint="--agent") from error


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
    """Parameter type for an id or a hash, of as many hex digits as one of `lengths` says, converted to bytes."""

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
    """Return an event that SIGINT and SIGTERM set from now on, on the running loop."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    return stop


@asynccontextmanager
async def ended_by(stop: asyncio.Event) -> AsyncGenerator[None, None]:
    """Run the block, such as a wait for an identity, until `stop` is set at the latest; look at `stop` afterwards."""
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
