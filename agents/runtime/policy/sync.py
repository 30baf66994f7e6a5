"""Keeps the policy of a process in step with the store: verified parts from NATS, composed into the bundle in force.

The process has the bundle in memory (`InForce`), a local OPA reads it from a file. Both survive restarts: a process that
starts while NATS is unreachable decides by its last policy, and accepts no older part. In the folder::

    parts/platform.tar.gz       the signed parts in force; verified again at each start
    parts/platform@13-*.tar.gz  a denial that the platform's bundle lacks, with its hash
    composed/bundle.tar.gz      their composition for an OPA, replaced by rename

A verified part is in force in the process before it is written. So a full disk delays no denial there, only in an OPA that
reads the file. Writing is tried again every second. A process that restarts before that begins with the policy that it wrote
last, until it has read the store.

A refused part leaves the old one in force and everything else working: the log, `problem` and the counters report it, and
`sealbus doctor` and `sealbus policy status` give the reason.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence, Set
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Final

from sealbus.agents.runtime.policy.store import TRIES, PolicyStore, denials_of, serial_of
from sealbus.bus.background import Background
from sealbus.bus.streams.object_store import ObjectInfo, digest_of
from sealbus.bus.telemetry import Counters
from sealbus.envelopes.errors import BusUnavailable, ConfigurationError
from sealbus.envelopes.trust.keys import PublicKey
from sealbus.policies.bundle.composition import PartSet
from sealbus.policies.bundle.denials import DENIAL
from sealbus.policies.bundle.files import read_file, write_file
from sealbus.policies.bundle.format import Bundle
from sealbus.policies.bundle.in_force import InForce
from sealbus.policies.bundle.ownership import PLATFORM, is_part
from sealbus.policies.bundle.revocations import REVOCATIONS
from sealbus.policies.lint.module import PolicyRefused

_logger: Final = logging.getLogger(__name__)

_PARTS: Final = "parts"
_SUFFIX: Final = ".tar.gz"
_KEPT_DENIAL: Final = re.compile(rf"{PLATFORM}@([0-9]+)-[0-9a-f]+\{_SUFFIX}")
READINGS: Final = 5
"""How often a process without a policy of its own reads the store at its start, until nothing is missing."""
AGAIN_AFTER: Final = 1.0
"""Seconds until the next try if the store could not be read, or the policy could not be written."""


class PolicySync:
    """The parts of one process, which alone uses `folder`; `check` is as in `PartSet`.

    Without `for_opa` nobody reads the composed bundle from the folder, and it is not there.
    """

    def __init__(
        self,
        store: PolicyStore,
        folder: Path,
        anchors: Mapping[str, PublicKey],
        *,
        counters: Counters | None = None,
        check: Callable[[Bundle], None] | None = None,
        in_force: InForce | None = None,
        for_opa: bool = True,
    ) -> None:
        self.in_force: Final = in_force or InForce()
        self.bundle: Final = folder / "composed" / "bundle.tar.gz"
        self.parts = PartSet(anchors, check)
        self._for_opa = for_opa
        self._store = store
        self._folder = folder
        self._seen: dict[str, int] = {}
        self._kept: Bundle | None = None
        self._kept_revocations: Bundle | None = None
        self._kept_parts: dict[str, Bundle] = {}
        self._kept_denials: dict[str, Bundle] = {}
        self._whole = False
        """Whether all was read once: a part of it is not kept, because the next start would begin with it."""
        self._reading = ""
        self._damaged: Set[str] = frozenset()
        """The parts whose newest object was damaged when it was read."""
        self._lacking = True
        """Whether what was read of the store may lack denials or revocations."""
        self.unkept = ""
        """Why the policy in force is not written to the folder; empty if it is."""
        self._counters = counters or Counters()

    @property
    def problem(self) -> str:
        """Why the newest version of a part is not in force, the store not read, or the policy not written; else empty."""
        refused = [f"{name}: {text}" for name, text in sorted(self.parts.problems.items())]
        return "\n".join((*refused, *filter(None, (self._reading, self.unkept))))

    async def start(self) -> None:
        """Put in force the parts of the folder and then those of the store.

        Raises `ConfigurationError` if neither has a platform bundle that may be put in force, if the folder has none and the
        store cannot be read as a whole, or if the folder cannot be read. A folder that cannot be written is a `problem`.
        """
        await asyncio.to_thread(self._restore)
        kept = self._whole = self.parts.composed is not None
        await self._enforce()
        for left in reversed(range(READINGS)):
            for name in self._damaged:
                self._seen.pop(name, None)
            try:
                await self._read_newer(await self._store.objects.objects())
            except (BusUnavailable, ConfigurationError) as error:
                self._reading = error.detail
            else:
                self._reading = ""
            if not self._lacking and self.parts.unfit:
                self._reading, self._lacking = "a denial does not fit the policy", True
            # Without a policy of its own, a process must have read who is denied.
            if kept or not self._lacking or self.parts.composed is None or not left:
                break
            await asyncio.sleep(AGAIN_AFTER)
        if self.parts.composed is None or (self._lacking and not kept):
            text = self.problem or "nothing was pushed yet: sealbus policy push"
            what = "there is no policy in the store" if self.parts.composed is None else "not all of the store was read"
            raise ConfigurationError(f"{what}: {text}")
        self._whole = True
        await self._enforce()

    async def follow_pushes(self) -> None:
        """Follow pushes until cancelled."""
        while True:
            try:
                async with aclosing(self._store.objects.watch()) as changes:
                    async for infos in changes:
                        await self._read_newer(infos)
                        self._reading = ""
                        await self._enforce()
                        if self.unkept:
                            break
            except (BusUnavailable, ConfigurationError) as error:
                self._reading = f"the policy store is not followed: {error.detail}"
                _logger.warning("%s", self._reading)
            await asyncio.sleep(AGAIN_AFTER)

    async def _read_newer(self, infos: Sequence[ObjectInfo]) -> None:
        """Read and offer each part that is newer than the last one read. Raises `BusUnavailable` if a replica is behind."""
        newest = {info.name: info for info in infos if is_part(info.name) and not info.deleted}
        behind: list[str] = []
        self._lacking = True
        # Before all else: a denial waits for no bundle.
        await self._read_denials(infos, tries=1)
        # The platform's bundle says which teams exist.
        for name in sorted(newest, key=lambda name: (name != PLATFORM, name)):
            if self._seen.get(name, 0) < newest[name].sequence:
                part = await self._store.read(name)
                if part is not None:
                    await asyncio.to_thread(self._offer, name, part.raw)
                    await self._enforce()
                    self._seen[name] = part.last
                    self._damaged = self._damaged - {name} if part.raw else self._damaged | {name}
                # A replica that is behind may have answered. No news of this change comes again before the next change.
                if part is None or part.last < newest[name].sequence:
                    behind.append(name)
        damaged = await self._read_denials(infos)
        unread = {*behind, *self._damaged}
        self._lacking = bool(damaged) or not unread.isdisjoint((PLATFORM, REVOCATIONS))
        if behind or damaged:
            names = ", ".join(filter(None, (*behind, damaged)))
            raise BusUnavailable(f"{names}: a replica is behind, or the object is damaged")

    async def _read_denials(self, infos: Sequence[ObjectInfo], *, tries: int = TRIES) -> str:
        """Read and offer each denial that the platform's bundle lacks; return the name of one without its bytes."""
        platform = self.parts.bundle(PLATFORM)
        if platform is None:
            return ""
        had, damaged = platform.denials, ""
        known = {(one.serial, digest_of(one.raw)) for one in self.parts.denials}
        for info in denials_of((info for info in infos if not info.deleted), had):
            if self._seen.get(info.name, 0) < info.sequence and (serial_of(info), info.digest) not in known:
                raw = await self._store.denial(info, tries=tries)
                if raw:
                    await asyncio.to_thread(self._offer, DENIAL, raw)
                    self._seen[info.name] = info.sequence
                damaged = damaged if raw else info.name
        for name in [name for name in self._seen if "@" in name and int(name.partition("@")[2]) <= had]:
            del self._seen[name]
        await self._enforce()
        return damaged

    def _offer(self, name: str, raw: bytes) -> None:
        try:
            self.parts.offer(name, raw)
        except PolicyRefused as refused:
            self._counters.add("sealbus_policy_refused_total", part=name)
            _logger.warning("policy part %s is refused, the old one stays: %s", name, refused.detail)
        else:
            self._counters.add("sealbus_policy_accepted_total", part=name)

    async def _enforce(self) -> None:
        """Put the composition of the parts in force and write it, unless that is done already."""
        composed, revocations = self.parts.composed, self.parts.bundle(REVOCATIONS)
        # At once: revocations need no policy, which may take longer.
        self.in_force.revocations = self.parts.revocations
        if composed is None or (composed is self._kept and revocations is self._kept_revocations):
            return
        if await self.in_force.put(composed):
            _logger.info("policy %s is in force", composed.revision)
        if not self._whole:
            return
        try:
            await asyncio.to_thread(self._keep, composed)
        except OSError as error:
            problem = f"the policy cannot be kept in {self._folder}: {error.strerror}"
            if problem != self.unkept:
                _logger.warning("%s", problem)
            self.unkept = problem
        else:
            self._kept, self._kept_revocations, self.unkept = composed, revocations, ""

    def _keep(self, composed: Bundle) -> None:
        # First the file that an OPA waits for, without waiting for the disk: it is composed again at each start.
        if self._for_opa:
            _write(composed, self.bundle, durable=False)
        else:
            self.bundle.unlink(missing_ok=True)
        folder = self._folder / _PARTS
        for part in self.parts.parts:
            bundle = self.parts.bundle(part.name)
            if bundle is not None and bundle is not self._kept_parts.get(part.name):
                _write(bundle, folder / f"{part.name}{_SUFFIX}", durable=True)
                self._kept_parts[part.name] = bundle
        denials = {f"{PLATFORM}@{one.serial}-{one.digest.hex()[:16]}{_SUFFIX}": one for one in self.parts.denials}
        for name in denials.keys() - self._kept_denials.keys():
            _write(denials[name], folder / name, durable=True)
        self._kept_denials = denials
        platform = self.parts.bundle(PLATFORM)
        for name in {file.name for file in folder.glob(f"{PLATFORM}@*{_SUFFIX}")} - denials.keys():
            # Others were refused, perhaps for a key that is missing for a while.
            serial = _KEPT_DENIAL.fullmatch(name)
            if platform is not None and serial is not None and int(serial[1]) <= platform.denials:
                (folder / name).unlink(missing_ok=True)

    def _restore(self) -> None:
        for name, raw in kept_parts(self._folder):
            self._offer(name, raw)


def kept_parts(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Yield name and bytes of each part that a process kept in its `folder`, the platform's first; verifies nothing.

    Denials come last, each under the name `DENIAL`. Raises `ConfigurationError` for a file that cannot be read. Blocks.
    """
    files = {file.name.removesuffix(_SUFFIX): file for file in (folder / _PARTS).glob(f"*{_SUFFIX}")}
    # Denials in the order of their serials: each that comes out of order costs all others.
    for name in sorted(files, key=lambda name: ("@" in name, name != PLATFORM, len(name.partition("-")[0]), name)):
        yield DENIAL if "@" in name else name, read_file(files[name])


def _write(bundle: Bundle, file: Path, *, durable: bool) -> None:
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        current = file.read_bytes()
    except OSError:
        current = b""
    if current != bundle.raw:
        write_file(bundle.raw, file, durable=durable)


@asynccontextmanager
async def policy_synced(sync: PolicySync) -> AsyncGenerator[PolicySync, None]:
    """Start `sync` and run it while entered."""
    await sync.start()
    async with Background() as group:
        running = group.create_task(sync.follow_pushes(), name="policy-sync")
        try:
            yield sync
        finally:
            running.cancel()
