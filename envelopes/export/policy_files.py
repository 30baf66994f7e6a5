"""The policy bundles of an export: a file for each one that a `policy` record of the notary names, and no other.

What a bundle says is nobody's business here; its bytes are covered by the hash that the log holds.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Set
from hashlib import sha256
from typing import Final

from sealbus.envelopes.export.finding import Finding, FindingCode, of_file
from sealbus.envelopes.records.notary import PolicyRecord
from sealbus.envelopes.records.record import Record

__all__ = ["POLICY_FILE_BYTES", "PolicyFiles", "policy_digest", "policy_path"]

POLICY_FILE_BYTES: Final = 8_388_608
"""What a policy bundle has at most."""
_PATH: Final = re.compile(r"policies/([0-9a-f]{64})\.tar\.gz", re.ASCII)


def policy_path(digest: bytes) -> str:
    """Return where the bundle with this hash stands: in an export, and in a notary's folder."""
    return f"policies/{digest.hex()}.tar.gz"


def policy_digest(path: str) -> bytes | None:
    """Return the hash that the bundle at `path` must have; None for a path that no bundle stands at."""
    found = _PATH.fullmatch(path)
    return bytes.fromhex(found[1]) if found is not None else None


class PolicyFiles:
    """Which bundles a log names: takes the records of the notary's messages, of which only `policy` count."""

    def __init__(self) -> None:
        self._sizes: dict[bytes, set[int]] = {}

    @property
    def named(self) -> Set[bytes]:
        """The hashes of the bundles."""
        return self._sizes.keys()

    def take(self, records: Iterable[Record]) -> None:
        """Take the records of one message."""
        for record in records:
            if isinstance(record, PolicyRecord):
                self._sizes.setdefault(record.digest, set()).add(record.size)

    def check(self, read: Callable[[str, int], bytes | None], present: Iterable[bytes]) -> Iterator[Finding]:
        """Yield what is wrong with the bundles of an export.

        `read` gives the first bytes of the file at a path, as many as it is told and one more at most, and None where
        there is none; `present` are the hashes in the names of the files that are there.
        """
        for digest in sorted(set(present) - self.named):
            yield of_file(policy_path(digest), FindingCode.UNKNOWN_FILE, "no policy record of the notary names it")
        for digest in sorted(self.named):
            path = policy_path(digest)
            data = read(path, POLICY_FILE_BYTES)
            if data is None:
                yield of_file(path, FindingCode.MISSING_FILE, "a policy record names it")
            elif len(data) > POLICY_FILE_BYTES or sha256(data).digest() != digest:
                yield of_file(path, FindingCode.BAD_POLICY, "not the bytes that its name is the hash of")
            elif self._sizes[digest] != {len(data)}:
                yield of_file(path, FindingCode.BAD_POLICY, "another size than a policy record says")
