"""What nats-server says about itself in its log: where it listens, that it is ready, how a reload went, why it ended.

Only whole lines of the server's own wording count. No client can make it log one: what it logs of clients is quoted.
"""

from __future__ import annotations

import asyncio
import re
from collections import deque
from typing import Final

__all__ = ["ServerLog"]

_LINE: Final = re.compile(r"\[\d+\] \S+ \S+ \[(INF|WRN|ERR|FTL)\] (.*)")
_LISTENING: Final = re.compile(r"Listening for client connections on .*:(\d+)")
_RELOADED: Final = re.compile(r"Reloaded server configuration(?: \(sha256:[0-9a-f]{64}\))?")
_REFUSED: Final = re.compile(r"Failed to reload server configuration: (.*)")
_KEPT: Final = 50


class ServerLog:
    """Hears the lines of one server process as they come. Made on the event loop, used on it only."""

    def __init__(self) -> None:
        self.port = 0
        """Where it listens, once it does."""
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done when clients can connect."""
        self._reload: asyncio.Future[str] | None = None
        self._last: deque[str] = deque(maxlen=_KEPT)

    def heard(self, line: str) -> None:
        """Take in one line without its end."""
        self._last.append(line)
        found = _LINE.fullmatch(line)
        if found is None:
            return
        text = found[2]
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
        """Return the outcome of the reload that is asked for next: why it was refused, or an empty text."""
        self._reload = asyncio.get_running_loop().create_future()
        return self._reload

    @property
    def port_in_use(self) -> bool:
        """Whether it said that another process has its port."""
        return any("address already in use" in line for line in self._last)

    @property
    def last_words(self) -> str:
        """The last thing that it complained about, or else the last that it said."""
        for line in reversed(self._last):
            found = _LINE.fullmatch(line)
            if found is not None and found[1] in ("ERR", "FTL"):
                return found[2]
            if line.startswith("nats-server: "):
                return line.removeprefix("nats-server: ")
        return self._last[-1] if self._last else "it said nothing"

    def _reload_ended(self, refusal: str) -> None:
        if self._reload is not None and not self._reload.done():
            self._reload.set_result(refusal)
