"""Keeps the policy of a process in step with the store: verified parts from NATS, composed into the bundle in force.

The process has the bundle in memory (`InForce`), a local OPA in a file. Both survive restarts: a process that starts while
NATS is unreachable decides by its last policy, and takes nothing older than that. In the folder::

    parts/platform.tar.gz       the parts in force, as they were signed; verified again at each start
    composed/bundle.tar.gz      what they compose to, replaced by rename

What was verified is in force in the process before it is written, so a full disk holds up no denial there, only in an OPA
that reads the file. It is tried again every second; a process that is restarted before it is kept begins with what it kept
last, until it has read the store.

A refused part leaves the old one in force and everything else working: the log, `problem` and the counters report it, and
`sealbus doctor` and `sealbus policy status` give the reason.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Final

from sealbus.agents.runtime.policy.store import PolicyStore
from sealbus.bus.background import Background
from sealbus.bus.streams.object_store import ObjectInfo
from sealbus.bus.telemetry import Counters
from sealbus.envelopes.errors import BusUnavailable, ConfigurationError
from sealbus.envelopes.trust.keys import PublicKey
from sealbus.policies.bundle.composition import PartSet
from sealbus.policies.bundle.files import read_file, write_file
from sealbus.policies.bundle.format import Bundle
from sealbus.policies.bundle.in_force import InForce
from sealbus.policies.bundle.ownership import PLATFORM, is_part
from sealbus.policies.bundle.revocations import REVOCATIONS
from sealbus.policies.lint.module import PolicyRefused

__all__ = ["PolicySync", "kept_parts", "policy_synced"]

_log: Final = logging.getLogger(__name__)

_PARTS: Final = "parts"
AGAIN_AFTER: Final = 1.0
"""Seconds until the next try if the store could not be read, or the policy not be written."""


class PolicySync:
    """The parts of one process, which alone uses `folder`; `check` as in `PartSet`."""

    def __init__(
        self,
        store: PolicyStore,
        folder: Path,
        anchors: Mapping[str, PublicKey],
        *,
        counters: Counters | None = None,
        check: Callable[[Bundle], None] | None = None,
        in_force: InForce | None = None,
    ) -> None:
        self.in_force: Final = in_force or InForce()
        self.bundle: Final = folder / "composed" / "bundle.tar.gz"
        self.parts = PartSet(anchors, check)
        self._store = store
        self._folder = folder
        self._seen: dict[str, int] = {}
        self._kept: Bundle | None = None
        self._kept_revocations: Bundle | None = None
        self._reading = ""
        self.unkept = ""
        """Why what is in force does not stand in the folder; empty if it does."""
        self._counters = counters or Counters()

    @property
    def problem(self) -> str:
        """Why the newest of some part is not in force, the store not read, or the policy not kept; empty if all is well."""
        refused = [f"{name}: {text}" for name, text in sorted(self.parts.problems.items())]
        return "\n".join((*refused, *filter(None, (self._reading, self.unkept))))

    async def start(self) -> None:
        """Put in force what the folder has and then what the store has.

        Raises `ConfigurationError` if neither has a platform bundle that may be put in force, or the folder cannot be read.
        One that cannot be written is a `problem`.
        """
        await asyncio.to_thread(self._restore)
        await self._enforce()
        try:
            await self._take(await self._store.objects.objects())
        except (BusUnavailable, ConfigurationError) as error:
            self._reading = error.detail
        if self.parts.composed is None:
            text = self.problem or "nothing was pushed yet: sealbus policy push"
            raise ConfigurationError(f"there is no policy in the store: {text}")

    async def run(self) -> None:
        """Follow pushes until cancelled."""
        while True:
            try:
                async with aclosing(self._store.objects.watch()) as changes:
                    async for infos in changes:
                        self._reading = ""
                        await self._take(infos)
                        await self._enforce()
                        if self.unkept:
                            break
            except (BusUnavailable, ConfigurationError) as error:
                self._reading = f"the policy store is not followed: {error.detail}"
                _log.warning("%s", self._reading)
            await asyncio.sleep(AGAIN_AFTER)

    async def _take(self, infos: Iterable[ObjectInfo]) -> None:
        """Offer what is newer than what was seen. Raises `BusUnavailable` if the store is behind what it told of."""
        newest = {info.name: info for info in infos if is_part(info.name) and not info.deleted}
        behind = ""
        # The platform's bundle says which teams exist.
        for name in sorted(newest, key=lambda one: (one != PLATFORM, one)):
            if self._seen.get(name, 0) < newest[name].sequence:
                part = await self._store.read(name)
                if part is not None:
                    await asyncio.to_thread(self._offer, name, part.raw)
                    await self._enforce()
                    self._seen[name] = part.last
                # Any replica may have answered. Nothing would tell of this change again, before the next one.
                if part is None or part.last < newest[name].sequence:
                    behind = name
        if behind:
            raise BusUnavailable(f"{behind}: a replica is behind")

    def _offer(self, name: str, raw: bytes) -> None:
        try:
            self.parts.offer(name, raw)
        except PolicyRefused as refused:
            self._counters.add("sealbus_policy_refused_total", part=name)
            _log.warning("policy part %s is refused, the old one stays: %s", name, refused.detail)
        else:
            self._counters.add("sealbus_policy_accepted_total", part=name)

    async def _enforce(self) -> None:
        """Put the composition of the parts in force, then on the disk, where it was not yet."""
        composed, revocations = self.parts.composed, self.parts.bundle(REVOCATIONS)
        # At once: they need no policy, which may take its time.
        self.in_force.revocations = self.parts.revocations
        if composed is None or (composed is self._kept and revocations is self._kept_revocations):
            return
        if await self.in_force.put(composed):
            _log.info("policy %s is in force", composed.revision)
        try:
            await asyncio.to_thread(self._keep, composed)
        except OSError as error:
            problem = f"the policy cannot be kept in {self._folder}: {error.strerror}"
            if problem != self.unkept:
                _log.warning("%s", problem)
            self.unkept = problem
        else:
            self._kept, self._kept_revocations, self.unkept = composed, revocations, ""

    def _keep(self, composed: Bundle) -> None:
        # First what an OPA waits for, without waiting for the disk: it is composed again at each start.
        _write(composed, self.bundle, durable=False)
        for part in self.parts.parts:
            bundle = self.parts.bundle(part.name)
            if bundle is not None:
                _write(bundle, self._folder / _PARTS / f"{part.name}.tar.gz", durable=True)

    def _restore(self) -> None:
        for name, raw in kept_parts(self._folder):
            self._offer(name, raw)


def kept_parts(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Yield name and bytes of each part that a process kept in its `folder`, the platform's first; nothing is verified.

    Raises `ConfigurationError` for one that cannot be read. Blocks.
    """
    found = {file.name.removesuffix(".tar.gz"): file for file in (folder / _PARTS).glob("*.tar.gz")}
    for name in sorted(found, key=lambda one: (one != PLATFORM, one)):
        yield name, read_file(found[name])


def _write(bundle: Bundle, file: Path, *, durable: bool) -> None:
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        there = file.read_bytes()
    except OSError:
        there = b""
    if there != bundle.raw:
        write_file(bundle.raw, file, durable=durable)


@asynccontextmanager
async def policy_synced(sync: PolicySync) -> AsyncGenerator[PolicySync, None]:
    """Start `sync` and run it while entered."""
    await sync.start()
    async with Background() as group:
        running = group.create_task(sync.run(), name="policy-sync")
        try:
            yield sync
        finally:
            running.cancel()
