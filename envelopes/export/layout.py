"""Which files an export of a log of some size has: exactly these, and anything else is a finding."""

from __future__ import annotations

import re
from typing import Final

from sealbus.envelopes.errors import LogError
from sealbus.envelopes.export.frames import messages_path
from sealbus.envelopes.log.tiles import TILE_WIDTH, TileName

__all__ = ["CHECKPOINT", "is_expected", "tiles_of"]

CHECKPOINT: Final = "checkpoint"
_MESSAGES: Final = re.compile(r"messages/((?:x[0-9]{3}/){0,5}[0-9]{3})", re.ASCII)


def tiles_of(size: int) -> int:
    """Return how many tiles the entries of a log of `size` fill, the last one perhaps in part."""
    return -(-size // TILE_WIDTH)


def is_expected(path: str, size: int) -> bool:
    """Tell whether an export of `size` entries has a file at `path`; places are not exported (section 13)."""
    if path == CHECKPOINT:
        return True
    found = _MESSAGES.fullmatch(path)
    if found is not None:
        index = int(found[1].replace("x", "").replace("/", ""))
        return index < tiles_of(size) and messages_path(index) == path
    try:
        name = TileName.parse(path)
    except LogError:
        return False
    if name.level == "places":
        return False
    held = size if name.level == "entries" else size >> (8 * name.level)
    return name.index * TILE_WIDTH < held and name.width == min(TILE_WIDTH, held - name.index * TILE_WIDTH)
