"""A site is backed up, loses its disk and is restored, by the commands of docs/backup.md in their order."""

from __future__ import annotations

import asyncio
import os
import sys
import time

from ledger.book import Book
from ledger.site import AGAIN, READY_SECONDS, TESTS, Site
from sealbus.agents.runtime.open import open_connection
from sealbus.bus.nats.api import api
from sealbus.bus.stream_names import TASKS
from sealbus.bus.streams.snapshot import list_streams
from sealbus.envelopes.errors import BusUnavailable, ConfigurationError

__all__ = ["lose_and_restore", "until_handled"]

HANDLED_SECONDS = 600.0
"""Seconds until what waited in a backup must be handled."""


async def lose_and_restore(site: Site) -> None:
    """Back the site up, lose its disk, and restore it; nothing is connected meanwhile, and the notary runs at the end.

    An `untold` site's notary is started as if nothing had happened. Raises `RuntimeError` with what a failing command says.
    """
    backup = site.folder / f"backup-{time.time_ns()}"
    book = Book(site.book)
    book.backup()
    book.close()
    await _sealbus(site, "backup", str(backup))
    await site.servers.kill()
    await site.disk.replace()
    # Until all is in its place no write is synced by itself.
    site.servers.configure(always=False)
    await site.servers.start()
    await _answering(site)
    await _sealbus(site, "restore", str(backup))
    site.restored_to = await _last_task(site)
    await site.servers.caught_up()
    await site.servers.stop()
    await asyncio.to_thread(site.disk.sync)
    site.servers.configure(always=site.servers.always)
    await site.servers.start()
    await _answering(site)
    if not site.untold:
        await _sealbus(site, "notary", "restored", str(backup))
    await site.start_notary()
    if not site.untold:
        await _sealbus(site, "restore", "--check")


async def until_handled(site: Site) -> None:
    """Wait until every task that was restored has ended. Raises `RuntimeError` if one has not."""
    try:
        async with asyncio.timeout(HANDLED_SECONDS):
            while not await _is_handled(site):  # noqa: ASYNC110 -- the server does not say when
                await asyncio.sleep(AGAIN)
    except TimeoutError as error:
        raise RuntimeError(f"what was restored is not handled within {HANDLED_SECONDS:g} s") from error


async def _is_handled(site: Site) -> bool:
    try:
        async with open_connection("operator", site.operators) as (_, connection):
            answer = await api(connection.jetstream, f"CONSUMER.LIST.{TASKS}")
    except BusUnavailable:
        return False
    consumers = answer["consumers"]
    assert isinstance(consumers, list)
    return all(
        one["num_pending"] == one["num_ack_pending"] == 0 or one["ack_floor"]["stream_seq"] >= site.restored_to
        for one in consumers
    )


async def _last_task(site: Site) -> int:
    async with open_connection("operator", site.operators) as (_, connection):
        return next(one.last for one in await list_streams(connection.jetstream) if one.name == TASKS)


async def _answering(site: Site) -> None:
    """Wait until JetStream answers: a cluster has to elect somebody first."""
    async with asyncio.timeout(READY_SECONDS):
        while True:
            try:
                async with open_connection("operator", site.operators) as (_, connection):
                    await list_streams(connection.jetstream)
            except (BusUnavailable, ConfigurationError):
                await asyncio.sleep(AGAIN)
            else:
                return


async def _sealbus(site: Site, *arguments: str) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "sealbus", *arguments, "--config", str(site.notary_file),
        cwd=TESTS, env={**os.environ, "PYTHONPATH": str(TESTS)},
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    out, _ = await process.communicate()
    with (site.folder / "operator.log").open("ab") as log:
        log.write(f"$ sealbus {' '.join(arguments)}\n".encode() + out)
    if process.returncode != 0:
        raise RuntimeError(f"sealbus {' '.join(arguments)}: {out.decode().strip()}")
