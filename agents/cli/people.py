"""The rows of people's random pseudonyms, as commands read them."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from sealbus.agents.cli.options import Invocation

if TYPE_CHECKING:
    from sealbus.agents.edge.oauth.tokens.pseudonyms import PseudonymKey, RandomPseudonyms
    from sealbus.agents.runtime.settings.settings import Settings
    from sealbus.bus.nats.connection.connection import Connection


@asynccontextmanager
async def open_rows(
    invocation: Invocation, settings: Settings, key: PseudonymKey
) -> AsyncGenerator[tuple[RandomPseudonyms, Connection], None]:
    """Open the rows under `key`, and the connection on which they are read."""
    from sealbus.agents.edge.oauth.tokens.pseudonyms import RandomPseudonyms
    from sealbus.agents.runtime.open import open_connection
    from sealbus.bus.clocks import ELAPSED
    from sealbus.bus.nats.transport import NatsTransport

    async with open_connection(invocation.as_name, settings) as (_, connection):
        yield RandomPseudonyms(key, NatsTransport(connection), ELAPSED), connection
