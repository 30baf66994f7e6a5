"""The policy bundles of an export: exactly one file for each bundle that a `policy` record of the notary names.

The log has the hash of a bundle's bytes. The contents of bundles are not parsed here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Set
from hashlib import sha256
from typing import Final

from sealbus.envelopes.export.finding import Finding, FindingCode, of_file
from sealbus.envelopes.records.notary import PolicyRecord
from sealbus.envelopes.records.record import Record

POLICY_FILE_BYTES: Final = 8_388_608
"""Most bytes of a policy bundle."""
_PATH: Final = re.compile(r"policies/([0-9a-f]{64})\.tar\.gz", re.ASCII)


def policy_path(digest: bytes) -> str:
    """Return the path of the bundle with this hash, in an export and in a notary's folder."""
    return f"policies/{digest.hex()}.tar.gz"


def policy_digest(path: str) -> bytes | None:
    """Return the hash that the bundle at `path` must have, or None if `path` is not a bundle's."""
    matched = _PATH.fullmatch(path)
    return bytes.fromhex(matched[1]) if matched is not None else None


class PolicyFiles:
    """The bundles that a log names, from the `policy` records in the notary's messages."""

    def __init__(self) -> None:
        self._sizes: dict[bytes, set[int]] = {}

    @property
    def named(self) -> Set[bytes]:
        """The hashes of the bundles."""
        return self._sizes.keys()

    def take_records(self, records: Iterable[Record]) -> None:
        """Take the records of one message."""
        for record in records:
            if isinstance(record, PolicyRecord):
                self._sizes.setdefault(record.digest, set()).add(record.size)

    def check(self, read: Callable[[str, int], bytes | None], present: Iterable[bytes]) -> Iterator[Finding]:
        """Yield the findings about the bundles of an export.

        `read` takes a path and a number of bytes. It returns the beginning of the file, at most one byte more than that, or
        None if there is no file. `present` are the hashes in the names of the existing files.
        """
        for digest in sorted(set(present) - self.named):
            yield of_file(policy_path(digest), FindingCode.UNKNOWN_FILE, "no policy record of the notary names it")
        for digest in sorted(self.named):
            path = policy_path(digest)
            data = read(path, POLICY_FILE_BYTES)
            if data is None:
                yield of_file(path, FindingCode.MISSING_FILE, "a policy record names it")
            elif len(data) > POLICY_FILE_BYTES or sha256(data).digest() != digest:
                yield of_file(path, FindingCode.BAD_POLICY, "its bytes do not have the hash in its name")
            elif self._sizes[digest] != {len(data)}:
                yield of_file(path, FindingCode.BAD_POLICY, "its size is not the one in a policy record")
