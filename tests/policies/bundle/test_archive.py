"""Archives: what goes in comes out, and nothing is believed before it is bounded."""

from __future__ import annotations

import pytest

from sealbus.policies.bundle import archive as bundle_archive
from sealbus.policies.bundle.archive import BUNDLE_FILES, pack_archive, unpack_archive
from sealbus.policies.lint.module import PolicyRefused


def test_what_was_packed_is_unpacked() -> None:
    contents = {"b/c.rego": b"package b", "a": b""}
    assert unpack_archive(pack_archive(contents)) == contents
    assert pack_archive(contents) == pack_archive(dict(reversed(contents.items())))


def test_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(PolicyRefused, match="over 1000 files"):
        unpack_archive(pack_archive({f"{number}.rego": b"" for number in range(BUNDLE_FILES + 1)}))
    raw = pack_archive({"a": b"x"})
    monkeypatch.setattr(bundle_archive, "UNPACKED_BYTES", 9_000)
    with pytest.raises(PolicyRefused, match="bytes unpacked"):
        unpack_archive(raw)
    monkeypatch.setattr(bundle_archive, "BUNDLE_BYTES", len(raw) - 1)
    with pytest.raises(PolicyRefused, match="the bundle has over"):
        unpack_archive(raw)
