"""Times on the command line: RFC 3339, or how long ago."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime

import click

from sealbus.envelopes.limits import SECOND

__all__ = ["Moment"]

_AGO = re.compile(r"([0-9]{1,6})([smhd])")
_UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}


class Moment(click.ParamType[int]):
    """Converts `2026-11-24T14:00:00Z` or `10m` (ago) to microseconds since the Unix epoch."""

    name = "time"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the time that `value` says, or fail the command's usage."""
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
