"""Policy bundles of the past, by revision: a folder of bundle files, and engines for those that are asked now."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from sealbus.envelopes.errors import ConfigurationError
from sealbus.policies.bundle_format import BUNDLE_BYTES, Bundle, read_bundle
from sealbus.policies.engine import PolicyEngine
from sealbus.policies.problems import PolicyRefused

__all__ = ["ENGINES", "ArchivedPolicies"]

ENGINES: Final = 4
"""Engines that are open at a time; the one that was asked longest ago is closed for another."""


class ArchivedPolicies:
    """The bundles of `folder`, whatever their files are called; `open_engine` opens an engine for a bundle file.

    Enter with `async with`. Entering raises `ConfigurationError` for what is no folder and for two different bundles of
    one revision; a file that is no bundle, or a bundle that may not be put in force, stands in `problems` by its name.
    """

    def __init__(
        self,
        folder: Path,
        *,
        open_engine: Callable[[Path], AbstractAsyncContextManager[PolicyEngine]],
        most: int = ENGINES,
    ) -> None:
        self._folder = folder
        self._open_engine = open_engine
        self._most = most
        self._files: dict[str, Path] = {}
        self._open: OrderedDict[str, tuple[AbstractAsyncContextManager[PolicyEngine], PolicyEngine]] = OrderedDict()
        self.problems: dict[str, str] = {}
        """Why a file is not used, by its name."""

    async def __aenter__(self) -> Self:
        self._files = await asyncio.to_thread(self._read)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        while self._open:
            await self._close_oldest()

    @property
    def revisions(self) -> frozenset[str]:
        """The revisions that are there."""
        return frozenset(self._files)

    def has(self, revision: str) -> bool:
        """Tell whether there is a bundle of `revision` that was not refused yet."""
        return revision in self._files

    async def engine(self, revision: str) -> PolicyEngine | None:
        """Return an open engine that decides by `revision`, valid until the next call; None where there is none."""
        found = self._open.get(revision)
        if found is not None:
            self._open.move_to_end(revision)
            return found[1]
        file = self._files.get(revision)
        if file is None:
            return None
        while len(self._open) >= self._most:
            await self._close_oldest()
        opening = self._open_engine(file)
        try:
            engine = await opening.__aenter__()
        except PolicyRefused as error:
            # What was in force once may be refused today: the rules of what both engines decide alike have grown.
            del self._files[revision]
            self.problems[file.name] = error.detail
            return None
        self._open[revision] = (opening, engine)
        return engine

    async def _close_oldest(self) -> None:
        _, (opened, _) = self._open.popitem(last=False)
        await opened.__aexit__(None, None, None)

    def _read(self) -> dict[str, Path]:
        if not self._folder.is_dir():
            raise ConfigurationError(f"{self._folder} is not a folder: name the one that holds the policy bundles")
        found: dict[str, tuple[Path, bytes]] = {}
        for file in sorted(self._folder.iterdir()):
            if file.name.startswith(".") or not file.is_file():
                continue
            try:
                bundle = _bundle(file)
            except ConfigurationError as error:
                self.problems[file.name] = error.detail
                continue
            other = found.setdefault(bundle.revision, (file, bundle.digest))
            if other[1] != bundle.digest:
                raise ConfigurationError(
                    f"{other[0].name} and {file.name} are different bundles of the one revision {bundle.revision}: keep "
                    "the one that was in force"
                )
        return {revision: file for revision, (file, _) in found.items()}


def _bundle(file: Path) -> Bundle:
    try:
        with file.open("rb") as opened:
            return read_bundle(opened.read(BUNDLE_BYTES + 1))
    except OSError as error:
        raise ConfigurationError(f"{file} cannot be read: {error.strerror}") from error
