"""Source files: which are looked at, and what counts as a change."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from sealbus.agents.runtime.process.source_files import SourceFiles
from sealbus.envelopes.errors import ConfigurationError

SECONDS = 60.0


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with two files that count, and others that do not."""
    for name in ("app.py", "parts/stock.py", "notes.txt", ".git/hook.py", "__pycache__/app.py", "venv/lib/a.py"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("one = 1\n")
    (tmp_path / "venv" / "pyvenv.cfg").touch()
    return tmp_path


def of(folder: Path) -> SourceFiles:
    return SourceFiles([folder], every=0.01)


async def change(files: SourceFiles) -> str:
    async with asyncio.timeout(SECONDS):
        return await files.changed()


async def test_a_file_that_is_changed_made_or_removed_is_named(folder: Path) -> None:
    files = of(folder)
    (folder / "app.py").write_text("two = 22\n")
    assert await change(files) == str(folder / "app.py")
    (folder / "parts" / "more.py").touch()
    assert await change(files) == str(folder / "parts" / "more.py")
    (folder / "app.py").unlink()
    (folder / "parts" / "stock.py").unlink()
    assert await change(files) == f"{folder / 'app.py'} and 1 others"


async def test_what_is_changed_before_it_is_waited_for_counts(folder: Path) -> None:
    files = of(folder)
    (folder / "app.py").write_text("two = 22\n")
    assert await change(files)


@pytest.mark.parametrize("name", ["notes.txt", ".git/hook.py", "__pycache__/app.py", "venv/lib/a.py", "venv/lib/b.py"])
async def test_other_files_do_not_count(folder: Path, name: str) -> None:
    files = of(folder)
    (folder / name).write_text("two = 22\n")
    (folder / "parts" / "stock.py").write_text("two = 22\n")
    assert await change(files) == str(folder / "parts" / "stock.py")


def test_a_folder_that_holds_too_much_is_refused(folder: Path) -> None:
    assert SourceFiles([folder, folder], most=2).folders == (folder,)
    with pytest.raises(ConfigurationError, match=r"over 1 \.py files"):
        SourceFiles([folder], most=1)
