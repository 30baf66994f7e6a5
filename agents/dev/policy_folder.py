"""Publishes the policy folder of `sealbus dev` again when a file in it changes; a bad one leaves the old in force."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from sealbus.envelopes.errors import ConfigurationError

if TYPE_CHECKING:
    from sealbus.agents.dev.environment import Environment

__all__ = ["republish"]

_log = logging.getLogger(__name__)

LOOK_EVERY = 0.1
"""Seconds between looks at the folder; half of what a change may take to reach every process."""


async def republish(environment: Environment) -> None:
    """Look at the folder until cancelled, and publish what changed."""
    seen = _stamp(environment)
    while True:
        await asyncio.sleep(LOOK_EVERY)
        stamp = _stamp(environment)
        if stamp == seen:
            continue
        seen = stamp
        try:
            revision = environment.publish_policy()
        except ConfigurationError as error:
            _log.warning("policy not published, the old one stays in force: %s", error.detail)
        else:
            _log.warning("policy published: revision %s", revision)


def _stamp(environment: Environment) -> frozenset[tuple[str, int, int]]:
    found = set()
    for path in environment.policy.rglob("*"):
        try:
            stat = path.stat()
        except FileNotFoundError:
            continue
        if path.is_file():
            found.add((str(path), stat.st_mtime_ns, stat.st_size))
    return frozenset(found)
