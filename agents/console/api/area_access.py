"""Check whether a person may see an area: the policy is asked through the edge, and again every `FOR` seconds.

Each question is a call, with its records. So an answer "yes" counts for a while: a person who keeps a page open leaves two
calls a minute in the evidence, and does not fill the stream.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final, NamedTuple

from sealbus.agents.console.agent import Area
from sealbus.agents.console.api.edge_client import EdgeClient
from sealbus.agents.console.pages.sessions import Session

FOR: Final = 30.0
"""Seconds for which a "yes" counts. A person who loses the right sees nothing more after that."""
KEPT: Final = 4_096


class _Seen(NamedTuple):
    session: Session
    until: float


class AreaAccess:
    """Checks access to areas, and remembers each "yes" for `FOR` seconds. A "no" is not remembered."""

    def __init__(self, edge: EdgeClient, *, elapsed: Callable[[], float] = time.monotonic) -> None:
        self._edge = edge
        self._elapsed = elapsed
        self._seen: OrderedDict[tuple[int, Area, str], _Seen] = OrderedDict()

    async def check(self, session: Session, area: Area, item: str = "") -> None:
        """Return if the policy lets the person of `session` see `area`, or one `item` of it, now.

        Raises `EdgeRefused` if the policy does not, `BusUnavailable` if it cannot be asked.
        """
        key = id(session), area, item
        seen = self._seen.get(key)
        if seen is not None and seen.session is session and seen.until > self._elapsed():
            return
        viewer = await self._edge.call(session.tokens.access_token, "view", {"area": area, "item": item})
        session.name, session.idp = str(viewer.get("user", "")), str(viewer.get("idp", ""))
        self._seen[key] = _Seen(session, self._elapsed() + FOR)
        self._seen.move_to_end(key)
        if len(self._seen) > KEPT:
            self._seen.popitem(last=False)
