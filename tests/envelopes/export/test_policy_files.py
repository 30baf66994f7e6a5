"""Which policy bundles an export has: those that the log names, with their bytes."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256

import pytest

from sealbus.envelopes.export.policy_files import POLICY_FILE_BYTES, PolicyFiles, policy_digest, policy_path
from sealbus.envelopes.records.notary import CheckpointRecord, PolicyRecord

ONE, OTHER = b"one bundle", b"another bundle"


def digest(raw: bytes) -> bytes:
    return sha256(raw).digest()


def record(raw: bytes, size: int | None = None) -> PolicyRecord:
    size = len(raw) if size is None else size
    return PolicyRecord(revision="r", digest=digest(raw), size=size, location=policy_path(digest(raw)))


def found(named: list[PolicyRecord], files: Mapping[str, bytes]) -> list[tuple[str, str]]:
    policies = PolicyFiles()
    policies.take_records([*named, CheckpointRecord(note=b"note")])
    present = [one for path in files if (one := policy_digest(path)) is not None]

    def read(path: str, most: int) -> bytes | None:
        return files[path][: most + 1] if path in files else None

    return [(finding.file, finding.code) for finding in policies.check(read, present)]


def test_a_path_is_the_hash() -> None:
    assert policy_digest(policy_path(digest(ONE))) == digest(ONE)
    assert policy_path(bytes(32)) == f"policies/{'0' * 64}.tar.gz"


@pytest.mark.parametrize(
    "path", ["", "policies/", "policies/x.tar.gz", f"policies/{'A' * 64}.tar.gz", f"policies/{'0' * 63}.tar.gz",
             f"policies/{'0' * 64}.tar.gz\n", f"x/policies/{'0' * 64}.tar.gz", f"policies/{'0' * 64}.tar"],
)  # fmt: skip
def test_what_is_no_path_of_a_bundle(path: str) -> None:
    assert policy_digest(path) is None


def test_exactly_the_named_ones() -> None:
    one, other = policy_path(digest(ONE)), policy_path(digest(OTHER))
    assert found([record(ONE), record(OTHER), record(ONE)], {one: ONE, other: OTHER}) == []
    assert found([record(ONE)], {}) == [(one, "missing_file")]
    assert found([], {one: ONE}) == [(one, "unknown_file")]
    assert found([record(ONE)], {one: OTHER}) == [(one, "bad_policy")]
    assert found([record(ONE)], {one: b""}) == [(one, "bad_policy")]
    assert found([record(ONE, 3)], {one: ONE}) == [(one, "bad_policy")]
    assert found([record(ONE), record(ONE, 3)], {one: ONE}) == [(one, "bad_policy")]


def test_a_bundle_whose_hash_differs_in_the_last_byte_alone() -> None:
    whole = digest(ONE)
    bent = whole[:-1] + bytes([whole[-1] ^ 1])
    named = PolicyRecord(revision="r", digest=bent, size=len(ONE), location=policy_path(bent))
    assert found([named], {policy_path(bent): ONE}) == [(policy_path(bent), "bad_policy")]


def test_a_bundle_is_as_large_as_bundles_get() -> None:
    largest, larger = bytes(POLICY_FILE_BYTES), bytes(POLICY_FILE_BYTES + 1)
    assert found([record(largest)], {policy_path(digest(largest)): largest}) == []
    path = policy_path(digest(larger))
    assert found([record(larger)], {path: larger}) == [(path, "bad_policy")]
