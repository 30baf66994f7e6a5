"""Which policies of the deployment are in the log and in its folder, which are to come, and which nobody has.

Decisions name the revision of their policy. What became current is offered here by whoever follows the deployment's policy;
what a decision names and nobody offered (the notary was away, or another process composed other parts while a push
spread) is wanted, and looked for among former bundles.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Iterable
from typing import Final

from sealbus.envelopes.notary_records import PolicyRecord
from sealbus.policies.bundle_format import Bundle

__all__ = ["GIVEN_UP", "OFFERED", "WANTED", "PolicyArchive"]

OFFERED: Final = 16
"""Bundles that wait to be recorded, in memory; the first of them is dropped for another, and wanted once it is missed."""
WANTED: Final = 256
"""Revisions that are looked for, one after the other: whoever records made-up ones fills no memory."""
GIVEN_UP: Final = 1_024
"""Revisions that nobody has, remembered lest they be looked for again with every decision."""


class PolicyArchive:
    """Used from one event loop; nothing in it blocks."""

    def __init__(self) -> None:
        self.problem = "no policy is followed"
        """Why policies may be missing, in a few words; empty where the deployment's policy is followed."""
        self._records: dict[bytes, str] = {}
        self._kept: set[bytes] = set()
        self._revisions: set[str] = set()
        self._offered: OrderedDict[bytes, Bundle] = OrderedDict()
        self._wanted: OrderedDict[str, None] = OrderedDict()
        self._given_up: OrderedDict[str, None] = OrderedDict()
        self._wanting = asyncio.Event()

    def offer(self, bundle: Bundle) -> None:
        """Take a bundle that is or was current, unless it is recorded and kept."""
        digest = bundle.digest
        self._wanted.pop(bundle.revision, None)
        if not (digest in self._records and digest in self._kept):
            self._offered[digest] = bundle
            if len(self._offered) > OFFERED:
                self._offered.popitem(last=False)

    def next(self) -> Bundle | None:
        """Return a bundle that is to be kept and recorded; None if there is none."""
        return next(iter(self._offered.values()), None)

    def kept(self, digest: bytes) -> None:
        """Note that the folder holds the bundle with this hash."""
        self._kept.add(digest)
        self._settle(digest)

    def is_kept(self, digest: bytes) -> bool:
        """Tell whether the folder holds the bundle with this hash."""
        return digest in self._kept

    def recorded(self, record: PolicyRecord) -> None:
        """Note that the stream holds this record, by whichever notary of this log; its bundle is wanted if not kept."""
        self._records[record.digest] = record.revision
        self._settle(record.digest)
        if record.digest not in self._kept and record.digest not in self._offered:
            self._want(record.revision)

    def is_recorded(self, digest: bytes) -> bool:
        """Tell whether the stream holds a record of the bundle with this hash."""
        return digest in self._records

    def seen(self, revisions: Iterable[str]) -> None:
        """Take the revisions that verified decisions name."""
        for revision in revisions:
            if revision not in self._revisions and revision not in self._given_up:
                self._missed(revision)

    async def wanted(self) -> str:
        """Return a revision that is to be looked for, once there is one: then it is offered, or given up."""
        while not self._wanted:
            self._wanting.clear()
            await self._wanting.wait()
        return next(iter(self._wanted))

    def give_up(self, revision: str) -> None:
        """Note that nobody has it: decisions by it cannot be made again, and are counted as such."""
        self._wanted.pop(revision, None)
        self._given_up[revision] = None
        if len(self._given_up) > GIVEN_UP:
            self._given_up.popitem(last=False)

    def _missed(self, revision: str) -> None:
        if all(bundle.revision != revision for bundle in self._offered.values()):
            self._want(revision)

    def _want(self, revision: str) -> None:
        if len(self._wanted) < WANTED:
            self._wanted[revision] = None
            self._wanting.set()

    def _settle(self, digest: bytes) -> None:
        if digest in self._records and digest in self._kept:
            self._revisions.add(self._records[digest])
            self._offered.pop(digest, None)
            self._wanted.pop(self._records[digest], None)
