"""`sealbus mcp`: the edge's tools for a desktop client, as the person who logged in."""

from __future__ import annotations

import asyncio
import os
import stat
import sys
from typing import TYPE_CHECKING, TextIO

import click

from sealbus.agents.cli.options import config_option

if TYPE_CHECKING:
    from sealbus.agents.runtime.settings.schema import ClientTable


@click.command("mcp")
@click.option("--edge", default=None, metavar="URL", help="The edge; by default the resource of your login.")
@click.option("--user", default=None, metavar="ID", help="Act for this user; only where `sealbus dev` runs.")
@config_option
def command(edge: str | None, user: str | None, config: str | None) -> None:
    """Give an MCP client the edge's tools, over standard input and output.

    A client starts this command itself. It acts with the login of `sealbus login`, and the edge decides about each call.
    """
    asyncio.run(_run(edge, user, config))


async def _run(edge: str | None, user: str | None, config: str | None) -> None:
    from sealbus.agents.cli.person.on_behalf import kept
    from sealbus.agents.login.mcp_relay import LINE_BYTES, McpRelay
    from sealbus.agents.runtime.settings.settings import load_client, load_settings
    from sealbus.envelopes.errors import ConfigurationError

    if user is None:
        table = load_client(config)
        url = edge or table.resource or _logged_in_for(table)

        async def token() -> str:
            return (await kept(table)).tokens.access_token
    else:
        settings, dev_user = load_settings(config).for_command(), user
        url = edge or settings.edge.resource

        async def token() -> str:
            from sealbus.agents.dev.users import dev_token

            # The same login session for as long as this command runs.
            return await asyncio.to_thread(dev_token, settings, dev_user, f"mcp-{os.getpid()}")

    if url is None:
        raise ConfigurationError("name the edge: --edge URL, or client.resource in the settings")

    async def write(line: bytes) -> None:
        await asyncio.to_thread(_written, line)

    relay = McpRelay(url, token, write)
    if not _can_wait(sys.stdin):
        raise ConfigurationError("an MCP client starts this: standard input has to be a pipe")
    loop, reader = asyncio.get_running_loop(), asyncio.StreamReader(limit=LINE_BYTES)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    await relay.relay_messages(reader)


def _can_wait(stream: TextIO) -> bool:
    """Return whether a stream can be waited for: a pipe, a socket or a terminal."""
    try:
        mode = os.fstat(stream.fileno()).st_mode
    except (OSError, ValueError):
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or stat.S_ISCHR(mode)


def _logged_in_for(table: ClientTable) -> str | None:
    from sealbus.agents.cli.person.on_behalf import login_file
    from sealbus.agents.login.kept_login import Choice

    return Choice.of(table).among(login_file(table).read()).resource


def _written(line: bytes) -> None:
    sys.stdout.buffer.write(line)
    sys.stdout.buffer.flush()
