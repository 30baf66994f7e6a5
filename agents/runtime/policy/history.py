"""Composes former policies of a process again, from the former bundles in the store.

The revision of a composed bundle begins with a hash of its parts and names each part with its serial. So the bundle can be
composed again and recognized, as long as the store keeps those parts.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from typing import Final

from sealbus.agents.runtime.policy.store import PolicyStore
from sealbus.envelopes.errors import ConfigurationError
from sealbus.envelopes.trust.keys import PublicKey
from sealbus.policies.bundle.composition import PartSet
from sealbus.policies.bundle.denials import DENIAL
from sealbus.policies.bundle.format import Bundle
from sealbus.policies.bundle.ownership import MOST_TEAMS, PLATFORM
from sealbus.policies.lint.module import PolicyRefused

MOST_BASES: Final = 3
"""Bundles of the platform that are tried for a revision, the newest first."""

_REVISION: Final = re.compile(r"(?:[0-9a-f]{12}|[0-9a-f]{64})((?:\.[a-z][a-z0-9_]{0,31}-[1-9][0-9]{0,15})+)", re.ASCII)


def parts_of(revision: str) -> Mapping[str, int]:
    """Return the serial of each part of a composed bundle of `revision`, the platform first.

    Empty for another form of revision, and for a revision that is too long to name all its parts.
    """
    match = _REVISION.fullmatch(revision)
    texts = match[1][1:].split(".") if match is not None else []
    parts = {name: int(serial) for name, _, serial in (text.rpartition("-") for text in texts)}
    if len(parts) != len(texts) or len(texts) > MOST_TEAMS or next(iter(parts), "") != PLATFORM:
        return {}
    return parts


async def former_policy(store: PolicyStore, anchors: Mapping[str, PublicKey], revision: str) -> Bundle | None:
    """Return the composed bundle of `revision`, with each of its parts verified again with `anchors`.

    None if a part is no longer kept, is refused today, or the parts do not compose to this revision. Raises `BusUnavailable`.
    """
    wanted = parts_of(revision)
    # The platform's serial is that of a bundle, or of a denial since. A bundle that was pushed by halves has none since.
    bundles = [serial for serial in await store.serials(PLATFORM) if serial <= wanted.get(PLATFORM, 0)]
    for base in bundles[-MOST_BASES:][::-1]:
        parts = PartSet(anchors, digits=len(revision.partition(".")[0]))
        composed = await _composed(store, parts, {**wanted, PLATFORM: base}, upto=wanted[PLATFORM])
        if composed is not None and composed.revision == revision:
            return composed
    return None


async def _composed(store: PolicyStore, parts: PartSet, serials: Mapping[str, int], *, upto: int) -> Bundle | None:
    """Return the composition of the former bundles of `serials`, with the platform's denials up to `upto`."""
    try:
        for name, serial in serials.items():
            await asyncio.to_thread(parts.offer, name, await store.former(name, serial))
        platform = parts.bundle(PLATFORM)
        had = platform.denials if platform is not None else 0
        for raw in (await store.denials(after=had, upto=upto)).values():
            await asyncio.to_thread(parts.offer, DENIAL, raw)
    except (ConfigurationError, PolicyRefused):
        return None
    return parts.composed
