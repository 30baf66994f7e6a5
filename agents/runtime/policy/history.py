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
from sealbus.policies.bundle.format import Bundle
from sealbus.policies.bundle.ownership import MOST_TEAMS, PLATFORM
from sealbus.policies.lint.module import PolicyRefused

_REVISION: Final = re.compile(r"[0-9a-f]{12}((?:\.[a-z][a-z0-9_]{0,31}-[1-9][0-9]{0,15})+)", re.ASCII)


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
    parts = PartSet(anchors)
    for name, serial in parts_of(revision).items():
        try:
            raw = await store.former(name, serial)
            await asyncio.to_thread(parts.offer, name, raw)
        except (ConfigurationError, PolicyRefused):
            return None
    composed = parts.composed
    return composed if composed is not None and composed.revision == revision else None
