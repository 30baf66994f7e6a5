"""The server that must reload its files: found by its PID file, and signaled only if it handles the signal.

If health addresses are given, such as those of the callout responders, one of them must be healthy before that.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import httpx2

from sealbus.envelopes.errors import ConfigurationError

_PID: Final = re.compile(r"[1-9][0-9]{0,9}\s*")
_PID_BYTES: Final = 64

ANSWER_SECONDS: Final = 2.0
_HEALTHY: Final = 200


class NotRunning(Exception):
    """The server is not running; the text gives the evidence."""


class ServerProcess:
    """The process whose ID is in `pid_file`, looked up again each time."""

    def __init__(self, pid_file: Path) -> None:
        self.pid_file: Final = pid_file.absolute()

    def check(self) -> None:
        """Raise the error that `reload` would raise now, but send no signal."""
        self._signal(0)

    def reload(self) -> None:
        """Send SIGHUP.

        Raises `NotRunning` without a PID file or a process, and `ConfigurationError` if a signal would be wrong: a file
        without a process ID, another user's process, or a process that SIGHUP would end because it does not catch it
        (detected on Linux only). Such a process may have got the ID of a server that has ended.
        """
        self._signal(signal.SIGHUP)

    def _signal(self, number: int) -> None:
        pid = self._pid()
        try:
            _check_caught(pid)
            os.kill(pid, number)
        except ProcessLookupError as error:
            raise NotRunning(f"process {pid} of {self.pid_file} has ended") from error
        except PermissionError as error:
            raise ConfigurationError(
                f"process {pid} of {self.pid_file} is another user's: run as the user of the server"
            ) from error

    def _pid(self) -> int:
        try:
            with self.pid_file.open(encoding="ascii", errors="replace") as file:
                text = file.read(_PID_BYTES)
        except FileNotFoundError as error:
            raise NotRunning(f"there is no {self.pid_file}") from error
        except OSError as error:
            raise ConfigurationError(f"{self.pid_file} cannot be read: {error.strerror}") from error
        if not text.strip():
            # The server has created the file and not written it yet.
            raise NotRunning(f"{self.pid_file} is empty")
        # Neither 0 nor negative: those mean all processes of a group, or all that this user may signal.
        if _PID.fullmatch(text) is None:
            raise ConfigurationError(f"{self.pid_file} does not hold a process ID")
        return int(text)


def _check_caught(pid: int) -> None:
    """Raise `ConfigurationError` if the process does not catch SIGHUP (proc_pid_status(5), `SigCgt`)."""
    if sys.platform != "linux":
        return
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
    except FileNotFoundError as error:
        raise ProcessLookupError(pid) from error
    caught = re.search(r"^SigCgt:\s*([0-9a-f]+)$", status, re.MULTILINE)
    if caught is not None and not int(caught[1], 16) >> (signal.SIGHUP - 1) & 1:
        raise ConfigurationError(f"process {pid} does not listen to SIGHUP: is its PID file stale?")


class HealthAddresses:
    """Addresses such as `http://host:port/readyz`, each of which answers 200 while the process behind it is healthy.

    Raises `ConfigurationError` for a text that is not such an address.
    """

    def __init__(self, urls: Sequence[str]) -> None:
        for url in urls:
            if not _is_http(url):
                raise ConfigurationError(f"health address {url!r}: write http://host:port/path")
        self.urls: Final = tuple(urls)

    async def any_healthy(self) -> bool:
        """Ask all addresses at once; return within two seconds whether any is healthy. No answer means unhealthy."""
        async with httpx2.AsyncClient(trust_env=False, follow_redirects=False, timeout=ANSWER_SECONDS) as client:
            requests = [asyncio.create_task(_is_healthy(client, url)) for url in self.urls]
            try:
                async with asyncio.timeout(ANSWER_SECONDS):
                    for answer in asyncio.as_completed(requests):
                        if await answer:
                            return True
            except TimeoutError:
                pass
            finally:
                for request in requests:
                    request.cancel()
                await asyncio.gather(*requests, return_exceptions=True)
        return False


def _is_http(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


async def _is_healthy(client: httpx2.AsyncClient, url: str) -> bool:
    try:
        # The body is not read, so that an endless page does no harm.
        async with client.stream("GET", url) as answer:
            return answer.status_code == _HEALTHY
    except httpx2.HTTPError:
        return False
