"""The checked bundle that a process decides by, passed on in memory to all who need it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Final, TypeAlias

from sealbus.envelopes.errors import ConfigurationError
from sealbus.envelopes.trust.spiffe_id import SpiffeId
from sealbus.policies.bundle.files import Mark, changes, load_bundle, mark
from sealbus.policies.bundle.format import Bundle
from sealbus.policies.bundle.revocations import NONE_REVOKED, Revocations, issued_before
from sealbus.policies.bundle.signing import BundleVerifier

_logger: Final = logging.getLogger(__name__)

Take: TypeAlias = "Callable[[Bundle], Awaitable[None] | None]"
"""Takes a bundle, or raises `PolicyRefused` and changes nothing. What is waited for is made ready only: what decides changes
at the end, in the turn of the loop in which this returns."""


class InForce:
    """The bundle in force, none at first: put here once it is checked.

    One engine or server takes it: of two, the second could refuse what the first decides by already. `bundle` and
    `revoked_before` change in the turn of the loop in which it is taken. Bundles are put in force in order, one at a time.
    """

    def __init__(self) -> None:
        self.bundle: Bundle | None = None
        self.revoked_before: Mapping[SpiffeId, int] = MappingProxyType({})
        """Its revocations by time, which apply before any policy is asked."""
        self.revocations: Revocations = NONE_REVOKED
        """Who is revoked by word of identity providers, which applies before any policy is asked, too."""
        self.problem = ""
        """Why a newer bundle is not in force; empty if there is none."""
        self._take: Take | None = None
        self._one_at_a_time: Final = asyncio.Lock()

    async def put(self, bundle: Bundle) -> bool:
        """Put the checked `bundle` in force; return whether it differs from the one before. What takes it may refuse it."""
        async with self._one_at_a_time:
            different = self.bundle is None or bundle.raw != self.bundle.raw
            if different:
                revoked_before = issued_before(bundle.data)
                await _hand_over(self._take, bundle)
                self.bundle, self.revoked_before = bundle, revoked_before
            self.problem = ""
            return different

    @asynccontextmanager
    async def taken(self, take: Take) -> AsyncGenerator[None, None]:
        """While entered, call `take` with the bundle in force, if there is one, and with each new one."""
        async with self._one_at_a_time:
            if self._take is not None:
                raise RuntimeError("something else takes what is in force here")
            if self.bundle is not None:
                await _hand_over(take, self.bundle)
            self._take = take
        try:
            yield
        finally:
            self._take = None
            async with self._one_at_a_time:
                pass  # nothing is taken any more


async def _hand_over(take: Take | None, bundle: Bundle) -> None:
    taking = take(bundle) if take is not None else None
    if taking is not None:
        await taking


class BundleFile:
    """Puts the bundle in `file` in force, and each new one within 200 ms of the file's replacement.

    A refused one (`load_bundle`) leaves the old one in force.
    """

    def __init__(self, file: Path, verifier: BundleVerifier | None = None) -> None:
        self.in_force: Final = InForce()
        self._file = file
        self._verifier = verifier
        self._since: Mark | None = None

    async def start(self) -> None:
        """Read the file once. Raises `PolicyRefused`, `ConfigurationError` as `load_bundle` does."""
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
