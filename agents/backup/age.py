"""The role `backups`: shows at /metrics when the newest backup in a folder was taken. It connects to nothing."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from sealbus.agents.backup.manifest import MANIFEST, Manifest
from sealbus.agents.identity.threads import in_thread
from sealbus.agents.runtime.settings.settings import Settings
from sealbus.bus.telemetry import Counters
from sealbus.envelopes.errors import BackupRefused, ConfigurationError
from sealbus.envelopes.limits import SECOND

_logger: Final = logging.getLogger(__name__)

LOOK_EVERY: Final = 15.0
"""Seconds between two looks, as between two scrapes."""


class BackupAge:
    """The backups of one deployment, each in a folder below `folder`. Only their manifests are read, and each of these once.

    The gauge is 0 if there is none, so that an alert about its age also fires where no backup was taken, or none can be read.
    """

    problem = ""
    """A role may say why it cannot do its work. A backup that is missing is no reason to be not ready: an alert says so."""

    def __init__(
        self, folder: Path, counters: Counters, *, trust_domain: str, origin: str = "", every: float = LOOK_EVERY
    ) -> None:
        self._folder = folder
        self._trust_domain, self._origin = trust_domain, origin
        self._every = every
        self._known: dict[Path, tuple[tuple[int, int], int]] = {}
        """When each backup was taken, beside the change and the inode of its manifest."""
        self._newest: dict[tuple[str, ...], float] = {}
        self._reported: set[str] = set()
        counters.gauges("sealbus_last_backup_timestamp_seconds", (), lambda: self._newest)

    async def run(self) -> None:
        """Look again and again until cancelled."""
        while True:
            # In a thread, because backups are often on a disk of another machine.
            newest, problems = await in_thread(self._look)
            self._newest = {(): newest / SECOND}
            for problem in sorted(problems - self._reported):
                _logger.warning("not counted as a backup: %s", problem)
            self._reported = problems
            await asyncio.sleep(self._every)

    def _look(self) -> tuple[int, set[str]]:
        """Return when the newest backup was begun, in microseconds since 1970, and why folders do not count."""
        problems: set[str] = set()
        try:
            backups = [path for path in self._folder.iterdir() if path.is_dir()]
        except OSError as error:
            return 0, {f"{self._folder}: {error.strerror}"}
        before, self._known = self._known, {}
        for backup in backups:
            try:
                status = (backup / MANIFEST).stat()
                stamp = (status.st_mtime_ns, status.st_ino)
                known = before.get(backup)
                self._known[backup] = known if known is not None and known[0] == stamp else (stamp, self._taken(backup))
            except FileNotFoundError:
                # It is being taken, or was cut off.
                continue
            except OSError as error:
                problems.add(f"{backup}: {error.strerror}")
            except BackupRefused as error:
                problems.add(f"{backup}: {error.detail}")
        return max((taken for _, taken in self._known.values()), default=0), problems

    def _taken(self, backup: Path) -> int:
        manifest = Manifest.read(backup)
        manifest.check_of(self._trust_domain, self._origin)
        return manifest.taken


@asynccontextmanager
async def open_backups(settings: Settings, *, counters: Counters) -> AsyncGenerator[BackupAge, None]:
    """Open the role. Raises `ConfigurationError` if `control.backups` is not set."""
    folder = settings.control.backups
    if folder is None:
        raise ConfigurationError("control.backups is not set: the folder that has a folder for each backup")
    yield BackupAge(
        folder,
        counters,
        trust_domain=settings.trust_domain.name,
        origin=settings.control.notary.origin or "",
    )
