"""A log in a folder that grew through several checkpoints, as a notary writes it."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

from support.cosigners import Cosigner, policy_text

from sealbus.agents.control.notary.log.folder_store import FolderStore
from sealbus.agents.control.notary.log.ledger import Ledger
from sealbus.envelopes.export.trust_root import Root
from sealbus.envelopes.log.checkpoint import Checkpoint, sign_checkpoint
from sealbus.envelopes.log.entries import creation_entry, verified_entry
from sealbus.envelopes.log.note import NoteSigner
from sealbus.envelopes.log.witness_policy import WitnessPolicy
from sealbus.envelopes.trust.names import Names
from sealbus.envelopes.trust.spiffe_id import SpiffeId, TrustDomain

__all__ = ["ORIGIN", "SIGNER", "GrownLog", "root_of"]

SIGNER = NoteSigner("log.example.org/audit", bytes(32))
ORIGIN = SIGNER.verifier.name


class GrownLog:
    """A log in `folder`. `branch` gives its messages other hashes: another history under the same key."""

    def __init__(self, folder: Path, branch: str = "") -> None:
        self.folder = folder
        self.ledger = Ledger()
        self.store = FolderStore(folder)
        self.notes: dict[int, bytes] = {}
        """The note of each checkpoint, by size."""
        self._branch = branch

    @classmethod
    def at(cls, folder: Path, sizes: Sequence[int], branch: str = "") -> GrownLog:
        """Return a log with a checkpoint at each of `sizes`."""
        log = cls(folder, branch)
        for size in sizes:
            log.grow(size)
        return log

    def grow(self, size: int, *, stored: bool = True) -> bytes:
        """Grow to `size` entries, and return the note of its checkpoint, which is stored unless the notary dies before."""
        for number in range(self.ledger.size, size):
            digest = sha256(f"{self._branch}{number}".encode()).digest()
            message = verified_entry(number, time=1_000 + number, header_digest=digest) if number else None
            self.ledger.append(message or creation_entry("AUDIT", created=1_000))
        note = sign_checkpoint(Checkpoint(ORIGIN, size, self.ledger.root()), [SIGNER])
        files = self.ledger.files()
        self.ledger.stored()
        self.store.enter()
        self.store.claim(1)
        if stored:
            self.store.commit(1, files, note)
            self.notes[size] = note
        else:
            self.store.keep(1, files)
        self.store.leave()
        return note


def root_of(*witnesses: Cosigner, held: Sequence[bytes] = ()) -> Root:
    """Return a root file's trust in the log, with a policy that demands all `witnesses` if there are any."""
    policy = None
    if witnesses:
        rows = ["group all all " + " ".join(one.label for one in witnesses), "quorum all"]
        keys = [f"log {SIGNER.verifier.text}\n"]
        policy = WitnessPolicy.parse(("".join(keys) + policy_text([], witnesses, *rows)).encode())
    domain = TrustDomain("example.org")
    return Root(
        origin=ORIGIN,
        keys=(SIGNER.verifier,),
        bundles=frozenset({bytes(32)}),
        names=Names(domain, "/agent/{name}", {}),
        minters=frozenset(),
        notaries=frozenset({SpiffeId("spiffe://example.org/agent/notary")}),
        checkpoints=tuple(held),
        policy=policy,
    )
