"""What may follow from a message: nothing for another user, nothing that lasts longer, nothing that was not granted."""

from __future__ import annotations

from sealbus.envelopes.message.chain import covers
from sealbus.envelopes.message.header import Header

__all__ = ["widened"]


def widened(child: Header, parent: Header, action: str) -> str:
    """Return in what `child`, which was allowed as `action`, goes beyond its `parent`; empty if it does not."""
    if child.par != parent.digest:
        return "it follows from another message"
    if child.iss != parent.aud:
        return "its sender did not handle its parent"
    if child.ctx != parent.ctx:
        return "it is for another user"
    if child.end is None or parent.end is None or child.end > parent.end:
        return "it ends later"
    if parent.grt is not None and not covers(parent.grt, action):
        return "it is not granted"
    return ""
