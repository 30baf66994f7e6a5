"""Reads the log of nats-server: its port, whether it is ready, the result of a reload, and why it ended.

Only whole lines in the server's own words count. No client can forge such a line: the server quotes texts of clients.
"""

from __future__ import annotations

import asyncio
import re
from collections import deque
from typing import Final

_LINE: Final = re.compile(r"\[\d+\] \S+ \S+ \[(INF|WRN|ERR|FTL)\] (.*)")
_LISTENING: Final = re.compile(r"Listening for client connections on .*:(\d+)")
_RELOADED: Final = re.compile(r"Reloaded server configuration(?: \(sha256:[0-9a-f]{64}\))?")
_REFUSED: Final = re.compile(r"Failed to reload server configuration: (.*)")
_KEPT: Final = 50


class ServerLog:
    """The state of one server process, from its log lines. Made and used on the event loop only."""

    def __init__(self) -> None:
        self.port = 0
        """The port that it listens on, once it does."""
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done when clients can connect."""
        self._reload: asyncio.Future[str] | None = None
        self._last: deque[str] = deque(maxlen=_KEPT)

    def heard(self, line: str) -> None:
        """Take one line without its end."""
        self._last.append(line)
        matched = _LINE.fullmatch(line)
        if matched is None:
            return
        text = matched[2]
        if listening := _LISTENING.fullmatch(text):
            self.port = int(listening[1])
        elif text == "Server is ready":
            if not self.ready.done():
                self.ready.set_result(None)
        elif _RELOADED.fullmatch(text):
            self._reload_ended("")
        elif refused := _REFUSED.fullmatch(text):
            self._reload_ended(refused[1])

    def reload(self) -> asyncio.Future[str]:
        """Return the future outcome of the next reload: why it was refused, or an empty text."""
        self._reload = asyncio.get_running_loop().create_future()
        return self._reload

    @property
    def port_in_use(self) -> bool:
        """Whether the server reported that another process has its port."""
        return any("address already in use" in line for line in self._last)

    @property
    def last_words(self) -> str:
        """The server's last complaint, or else its last line."""
        for line in reversed(self._last):
            matched = _LINE.fullmatch(line)
            if matched is not None and matched[1] in ("ERR", "FTL"):
                return matched[2]
            if line.startswith("nats-server: "):
                return line.removeprefix("nats-server: ")
        return self._last[-1] if self._last else "it logged nothing"

    def _reload_ended(self, refusal: str) -> None:
        if self._reload is not None and not self._reload.done():
            self._reload.set_result(refusal)
