"""What the demonstration leaves behind: its log as an export, and the root file that it is verified with."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import Final

from sealbus.agents.demo.backstage import WITHIN
from sealbus.agents.demo.stage import Stage
from sealbus.agents.dev.notary import DevLog
from sealbus.agents.evidence.exporting import export_log, log_files
from sealbus.agents.evidence.root_making import make_root
from sealbus.envelopes.errors import ConfigurationError
from sealbus.envelopes.export.layout import CHECKPOINT
from sealbus.envelopes.export.root import Root
from sealbus.envelopes.export.strict_note import open_strictly

__all__ = ["ROOT_FILE", "leave_evidence"]

ROOT_FILE: Final = "root.json"
"""Beside the export, and not inside: nothing inside an export can introduce trust."""

_LOOK_EVERY: Final = 0.05


async def leave_evidence(stage: Stage, log: DevLog, folder: Path) -> int:
    """Export the log into `folder`, which is emptied first, put the root file beside it, and return the entries.

    Waits until the log holds every decision that the scenes have come to.
    """
    last = max((entry.sequence for entry in stage.entries), default=0)
    root = await asyncio.to_thread(make_root, stage.backstage.settings, keys=[log.verifier])
    async with asyncio.timeout(WITHIN):
        # The first entry is the stream's creation, so that one of a number more is the message of that number.
        while await asyncio.to_thread(_size, log.folder, root) <= last:  # noqa: ASYNC110  a file has no event
            await asyncio.sleep(_LOOK_EVERY)
    await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
    await asyncio.to_thread(lambda: folder.parent.mkdir(parents=True, exist_ok=True))
    written = await export_log(folder, get=log_files(log.folder), transport=stage.operator, root=root)
    if written.missing_count:
        raise ConfigurationError(f"{written.missing_count} messages of the log are not in the stream")
    await asyncio.to_thread((folder.parent / ROOT_FILE).write_bytes, root.encode())
    return written.entries


def _size(folder: Path, root: Root) -> int:
    """Return how many entries the last checkpoint is of."""
    path = folder / CHECKPOINT
    if not path.exists():
        return 0
    return open_strictly(path.read_bytes(), root.origin, root.keys).checkpoint.size
