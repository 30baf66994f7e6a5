"""The checked bundle that a process decides by, shared in memory."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Final, TypeAlias

from sealbus.envelopes.errors import ConfigurationError
from sealbus.envelopes.trust.spiffe_id import SpiffeId
from sealbus.policies.bundle.cells import cells_of
from sealbus.policies.bundle.files import Mark, changes, load_bundle, mark
from sealbus.policies.bundle.format import Bundle
from sealbus.policies.bundle.revocations import NONE_REVOKED, Revocations, issued_before
from sealbus.policies.bundle.signing import BundleVerifier
from sealbus.policies.decision.documents import DataDocument
from sealbus.policies.decision.placement import Placement

_logger: Final = logging.getLogger(__name__)

Take: TypeAlias = "Callable[[Bundle], Awaitable[None] | None]"
"""Accepts a bundle, or raises `PolicyRefused` and changes nothing.

It may wait while it prepares. Decisions follow the new bundle from the turn of the event loop in which it returns.
"""


class InForce:
    """The bundle in force, none at first. Only checked bundles are put here.

    Only one engine or server takes it: a second one could refuse a bundle that the first one already decides by. `bundle`
    and `revoked_before` change in the turn of the event loop in which the bundle is taken. Bundles are put in force in order,
    one at a time.
    """

    def __init__(self) -> None:
        self.bundle: Bundle | None = None
        self.revoked_before: Mapping[SpiffeId, int] = MappingProxyType({})
        """The bundle's revocations by time, which apply before any policy decides."""
        self.revocations: Revocations = NONE_REVOKED
        """The revocations that identity providers reported, which also apply before any policy decides."""
        self.cells: Mapping[str, Placement] = MappingProxyType({})
        """The cell of each subject token that the bundle's registry names (`sealbus.policies.bundle.cells`)."""
        self.problem = ""
        """Why a newer bundle is not in force; empty if there is none."""
        self._take: Take | None = None
        self._one_at_a_time: Final = asyncio.Lock()

    async def put(self, bundle: Bundle) -> bool:
        """Put the checked `bundle` in force; return whether it is new. Raises `PolicyRefused` if its taker refuses it."""
        async with self._one_at_a_time:
            different = self.bundle is None or not _same(bundle, self.bundle)
            if different:
                revoked_before = self._revoked_before_of(bundle)
                # A bundle that extends the one in force adds denials alone.
                cells = self.cells if self._extension_of(bundle) else cells_of(bundle.data)
                await _hand_over(self._take, bundle)
                self.bundle, self.revoked_before, self.cells = bundle, revoked_before, cells
            self.problem = ""
            return different

    def _revoked_before_of(self, bundle: Bundle) -> Mapping[SpiffeId, int]:
        """Return the bundle's revocations by time; one that extends the bundle in force mostly has the same."""
        steps = self._extension_of(bundle)
        if not steps:
            return issued_before(bundle.data)
        times = dict(self.revoked_before)
        for _, added in steps:
            for spiffe_id, time in issued_before(added).items():
                times[spiffe_id] = max(time, times.get(spiffe_id, 0))
        return MappingProxyType(times)

    def _extension_of(self, bundle: Bundle) -> Sequence[tuple[str, DataDocument]]:
        """Return the denials by which `bundle` extends the bundle in force, none if it is another one."""
        return bundle.extension.since(self.bundle.revision) if bundle.extension and self.bundle else ()

    @asynccontextmanager
    async def taken(self, take: Take) -> AsyncGenerator[None, None]:
        """While entered, call `take` with the bundle in force, if there is one, and with each new bundle."""
        async with self._one_at_a_time:
            if self._take is not None:
                raise RuntimeError("the bundle in force already has a taker")
            if self.bundle is not None:
                await _hand_over(take, self.bundle)
            self._take = take
        try:
            yield
        finally:
            self._take = None
            async with self._one_at_a_time:
                pass  # the last call of `take` has ended


def _same(bundle: Bundle, other: Bundle) -> bool:
    if bundle.extension is not None or other.extension is not None:
        # Not by their bytes, which are not packed; the revision of a composed bundle has a hash of its contents.
        return bundle is other or (bundle.extension is not None and bundle.revision == other.revision)
    return bundle.raw == other.raw


async def _hand_over(take: Take | None, bundle: Bundle) -> None:
    taking = take(bundle) if take is not None else None
    if taking is not None:
        await taking


class BundleFile:
    """Puts the bundle in `file` in force, and each new bundle within 200 ms of the file's replacement.

    If a new bundle is refused (`load_bundle`), the old one stays in force.
    """

    def __init__(self, file: Path, verifier: BundleVerifier | None = None) -> None:
        self.in_force: Final = InForce()
        self._file = file
        self._verifier = verifier
        self._since: Mark | None = None

    async def start(self) -> None:
        """Read the file once. Raises `PolicyRefused` and `ConfigurationError` as `load_bundle` does."""
        self._since = mark(self._file)
        await self._load()

    async def run(self) -> None:
        """Follow the file until cancelled."""
        async for _ in changes(self._file, self._since):
            try:
                await self._load()
            except ConfigurationError as error:
                self.in_force.problem = error.detail
                _logger.warning("the new policy bundle is refused, the old one stays: %s", error.detail)

    async def _load(self) -> None:
        bundle = await asyncio.to_thread(load_bundle, self._file, self._verifier, after=self.in_force.bundle)
        await self.in_force.put(bundle)
