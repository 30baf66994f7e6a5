"""Which files an export has: exactly those of a log of its size."""

from __future__ import annotations

import pytest
from support.log_world import Frame, LogKey, files_of

from sealbus.envelopes.export.format import is_expected, tiles_of


@pytest.mark.slow
@pytest.mark.parametrize("size", [1, 2, 255, 256, 257, 512, 700])
def test_all_files_of_a_log_and_of_no_other(size: int) -> None:
    def names(entries: int) -> set[str]:
        return set(files_of([Frame(0, n + 1, n, b"") for n in range(entries)], [LogKey("k")]))

    own = names(size)
    assert all(is_expected(name, size) for name in own)
    others = set().union(*(names(other) for other in (1, 100, 256, 300, 513, 66_000 if size == 700 else 800)))
    assert not [name for name in others - own if is_expected(name, size)]


@pytest.mark.parametrize(
    "path",
    [
        "", "checkpoint/", "README", "messages/", "messages/0", "messages/x000/000", "messages/000.p/3", "tile/0/000.p/0",
        "messages/001", "tile/1/000", "tile/places/000.p/3", "tile/entries/000", "tile/00/000.p/3", "tile/0/000.p/03",
    ],
)  # fmt: skip
def test_what_no_export_of_three_entries_has(path: str) -> None:
    assert not is_expected(path, 3)


def test_tiles() -> None:
    assert [tiles_of(size) for size in (0, 1, 256, 257)] == [0, 1, 1, 2]
