"""The oldest nats-server that we connect to: the first whose known faults do not break our guarantees."""

from __future__ import annotations

import re
from typing import Final

__all__ = ["LEAST", "too_old"]

LEAST: Final = (2, 12, 7)
"""Fixed by then: routes without authentication, and denied queue subscriptions that were allowed (advisories 2026-16 and
2026-18); clients mistaken for others by names in their certificates (CVE-2026-33248); a stream's log that was dropped
with an unreadable snapshot (#7580). The tests run 2.15.1."""

_FORM: Final = re.compile(r"v?(\d{1,6})\.(\d{1,6})\.(\d{1,6})(?:[-+].*)?", re.ASCII)


def too_old(version: object) -> str:
    """Return one line that says why a server with this `version` is not used; empty if it is new enough."""
    found = _FORM.fullmatch(version) if isinstance(version, str) else None
    if found is None:
        return f"the server does not state its version; {_wanted()}"
    if tuple(int(part) for part in found.groups()) < LEAST:
        return f"the server is nats-server {found[1]}.{found[2]}.{found[3]}; {_wanted()}"
    return ""


def _wanted() -> str:
    return f"nats-server {'.'.join(map(str, LEAST))} or newer is needed"
