"""Past policy bundles by revision: a folder of bundle files, and engines for the bundles in use."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterator, Set
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from sealbus.envelopes.errors import ConfigurationError
from sealbus.policies.bundle.files import read_file
from sealbus.policies.bundle.format import Bundle, read_bundle
from sealbus.policies.decision.engine import PolicyEngine
from sealbus.policies.lint.module import PolicyRefused

ENGINES: Final = 4
"""Most engines that are open at a time. A new one replaces the least recently used one."""


class ArchivedPolicies:
    """The bundles of `folder`, whatever their file names; `open_engine` opens an engine for a bundle file.

    With `digests`, only files count that have one of these SHA-256 as their name (`<hex>.tar.gz`) and as their hash, because
    anyone may have put other files there. Enter with `async with`, which raises `ConfigurationError` if `folder` is not a
    folder. A file that is not a bundle, or may not be put in force, is listed in `problems` by its name.

    One revision may have several bundles with different hashes: an operator chose it twice, or a newer version composes the
    same parts to other bytes. A decision names only the revision, so each of these bundles may have made it.
    """

    def __init__(
        self,
        folder: Path,
        *,
        open_engine: Callable[[Path], AbstractAsyncContextManager[PolicyEngine]],
        most: int = ENGINES,
        digests: Set[bytes] | None = None,
    ) -> None:
        self._folder = folder
        self._open_engine = open_engine
        self._most = most
        self._digests = digests
        self._files: dict[str, list[Path]] = {}
        self._open: OrderedDict[Path, tuple[AbstractAsyncContextManager[PolicyEngine], PolicyEngine]] = OrderedDict()
        self.problems: dict[str, str] = {}
        """The reason why a file is not used, by its name; of a revision with several bundles, by the revision."""

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
        """The revisions in the folder."""
        return frozenset(self._files)

    def has(self, revision: str) -> bool:
        """Return whether there is a bundle of `revision` that was not refused yet."""
        return bool(self.count(revision))

    def count(self, revision: str) -> int:
        """Return how many different bundles of `revision` there are that were not refused yet."""
        return len(self._files.get(revision, ()))

    def files(self, revision: str) -> tuple[Path, ...]:
        """Return the bundle files of `revision` that were not refused yet."""
        return tuple(self._files.get(revision, ()))

    async def engine(self, revision: str, number: int = 0) -> PolicyEngine | None:
        """Return an open engine that decides by the bundle `number` of `revision`, valid until the next call.

        Returns None if there is no such bundle, or if it is refused; then it loses its number.
        """
        files = self._files.get(revision, [])
        if number >= len(files):
            return None
        file = files[number]
        opened = self._open.get(file)
        if opened is not None:
            self._open.move_to_end(file)
            return opened[1]
        while len(self._open) >= self._most:
            await self._close_oldest()
        opening = self._open_engine(file)
        try:
            engine = await opening.__aenter__()
        except PolicyRefused as error:
            # A bundle of the past may be refused today, because newer versions refuse more forms.
            files.pop(number)
            self.problems[file.name] = error.detail
            return None
        self._open[file] = (opening, engine)
        return engine

    async def _close_oldest(self) -> None:
        _, (opened, _) = self._open.popitem(last=False)
        await opened.__aexit__(None, None, None)

    def _read(self) -> dict[str, list[Path]]:
        revisions: dict[str, dict[bytes, Path]] = {}
        for file, digest in self._candidates():
            try:
                bundle = _bundle(file)
            except ConfigurationError as error:
                self.problems[file.name] = error.detail
                continue
            if digest is not None and bundle.digest != digest:
                self.problems[file.name] = "not the bundle that its name says"
                continue
            revisions.setdefault(bundle.revision, {}).setdefault(bundle.digest, file)
        for revision, files in revisions.items():
            if len(files) > 1:
                names = " and ".join(file.name for file in files.values())
                self.problems[revision] = f"the revision has several bundles: each of {names} may have made a decision"
        return {revision: list(files.values()) for revision, files in revisions.items()}

    def _candidates(self) -> Iterator[tuple[Path, bytes | None]]:
        """Yield each file to read, with the SHA-256 that its bundle must have, or `None` if any bundle counts."""
        if self._digests is not None:
            for digest in sorted(self._digests):
                yield self._folder / f"{digest.hex()}.tar.gz", digest
            return
        if not self._folder.is_dir():
            raise ConfigurationError(f"{self._folder} is not a folder: name the folder that holds the policy bundles")
        for file in sorted(self._folder.iterdir()):
            if not file.name.startswith(".") and file.is_file():
                yield file, None


def _bundle(file: Path) -> Bundle:
    # A pipe of that name would block.
    if not file.is_file():
        raise ConfigurationError(f"{file} cannot be read: there is no such file")
    return read_bundle(read_file(file))
