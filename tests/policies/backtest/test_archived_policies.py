"""Bundles of the past: found by revision in a folder, opened one by one, closed for others."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from support.engines import ScriptedEngine, allow
from support.policies import ALLOW, bundle

from sealbus.envelopes.errors import ConfigurationError
from sealbus.policies.backtest.archived_policies import ArchivedPolicies
from sealbus.policies.decision.engine import PolicyEngine


class Opened:
    """Opens engines that remember for which file, and when they were closed."""

    def __init__(self) -> None:
        self.open: list[str] = []
        self.opened: list[str] = []

    @asynccontextmanager
    async def __call__(self, file: Path) -> AsyncGenerator[PolicyEngine, None]:
        self.opened.append(file.name)
        self.open.append(file.name)
        try:
            yield ScriptedEngine(lambda _: allow())
        finally:
            self.open.remove(file.name)


def put(folder: Path, *revisions: str) -> None:
    for revision in revisions:
        (folder / f"{revision}.tar.gz").write_bytes(bundle(revision=revision).raw)


async def test_bundles_are_found_by_the_revision_inside(tmp_path: Path) -> None:
    (tmp_path / "whatever").write_bytes(bundle(revision="r1").raw)
    (tmp_path / ".hidden").write_bytes(bundle(revision="r2").raw)
    (tmp_path / "folder").mkdir()
    (tmp_path / "no-bundle").write_bytes(b"text")
    async with ArchivedPolicies(tmp_path, open_engine=Opened()) as policies:
        assert policies.revisions == {"r1"}
        assert policies.has("r1")
        assert not policies.has("r2")
        assert policies.files("r1") == (tmp_path / "whatever",)
        assert policies.files("r2") == ()
        assert list(policies.problems) == ["no-bundle"]
        assert await policies.engine("r2") is None


async def test_a_file_that_cannot_be_read_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, "r1")

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    async with ArchivedPolicies(tmp_path, open_engine=Opened()) as policies:
        assert "cannot be read: Permission denied" in policies.problems["r1.tar.gz"]


async def test_one_bundle_in_two_files_is_one(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(bundle(revision="r1").raw)
    async with ArchivedPolicies(tmp_path, open_engine=Opened()) as policies:
        assert policies.revisions == {"r1"}


async def test_two_bundles_of_one_revision_are_told_apart_and_said(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(bundle(revision="r1").raw)
    (tmp_path / "b").write_bytes(bundle({"x": ALLOW}, revision="r1").raw)
    (tmp_path / "c").write_bytes(bundle(revision="r1").raw)
    opening = Opened()
    async with ArchivedPolicies(tmp_path, open_engine=opening) as policies:
        assert policies.problems == {"r1": "the revision has several bundles: each of a and b may have made a decision"}
        assert policies.count("r1") == 2
        one, other = await policies.engine("r1"), await policies.engine("r1", 1)
        assert one is not other
        assert await policies.engine("r1", 1) is other
        assert await policies.engine("r1", 2) is None
        assert opening.opened == ["a", "b"]


async def test_only_the_bundles_that_are_named_by_their_hashes_count(tmp_path: Path) -> None:
    good, other, gone, pipe = (bundle(revision=name) for name in ("good", "other", "gone", "pipe"))
    for one, raw in ((good, good.raw), (other, good.raw)):
        (tmp_path / f"{one.digest.hex()}.tar.gz").write_bytes(raw)
    (tmp_path / "stray").write_bytes(bundle(revision="stray").raw)
    os.mkfifo(tmp_path / f"{pipe.digest.hex()}.tar.gz")
    digests = {one.digest for one in (good, other, gone, pipe)}
    async with ArchivedPolicies(tmp_path, open_engine=Opened(), digests=digests) as policies:
        assert policies.revisions == {"good"}
        assert policies.problems[f"{other.digest.hex()}.tar.gz"] == "not the bundle that its name says"
        assert "cannot be read" in policies.problems[f"{gone.digest.hex()}.tar.gz"]
        assert len(policies.problems) == 3
    async with ArchivedPolicies(tmp_path / "none", open_engine=Opened(), digests=frozenset()) as policies:
        assert policies.revisions == frozenset()


async def test_what_is_no_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="is not a folder"):
        async with ArchivedPolicies(tmp_path / "missing", open_engine=Opened()):
            pass


async def test_few_engines_are_open_and_the_one_asked_longest_ago_goes_first(tmp_path: Path) -> None:
    put(tmp_path, "r1", "r2", "r3")
    opening = Opened()
    async with ArchivedPolicies(tmp_path, open_engine=opening, most=2) as policies:
        first = await policies.engine("r1")
        await policies.engine("r2")
        assert await policies.engine("r1") is first
        await policies.engine("r3")
        assert opening.open == ["r1.tar.gz", "r3.tar.gz"]
        assert opening.opened == ["r1.tar.gz", "r2.tar.gz", "r3.tar.gz"]
    assert opening.open == []
