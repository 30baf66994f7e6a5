"""Years later: every key was replaced, everything live is gone, and an export still verifies, by both verifiers."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest
from independent import verify_export as independent
from support.notary import NAMES, NOTARY, ORIGIN, SIGNER, Bench, last_place

from sealbus.agents.control.notary.folder_store import FolderStore
from sealbus.agents.control.notary.log_store import CHECKPOINT
from sealbus.agents.dev.memory_identity import MemoryIdentity
from sealbus.agents.evidence.exporting import export_log, log_files
from sealbus.agents.evidence.files import FolderFiles
from sealbus.agents.evidence.verification import verify_export
from sealbus.envelopes.export.root import Root
from sealbus.envelopes.log.checkpoint import open_checkpoint
from sealbus.envelopes.log.note_keys import NoteSigner

NEW_SIGNER = NoteSigner(ORIGIN, bytes(range(1, 33)))
BOTH = (SIGNER, NEW_SIGNER)


def begin(_: Bench) -> None:
    """Change nothing yet."""


def prepare(bench: Bench) -> None:
    """Replace the keys of the trust domain as an issuer does: the new ones are trusted before they are used."""
    bench.authority.prepare_jwt()
    bench.authority.prepare_x509()


def activate(bench: Bench) -> None:
    bench.authority.activate_jwt()
    bench.authority.activate_x509()


def prune(bench: Bench) -> None:
    bench.authority.prune_jwt()
    bench.authority.prune_x509()


async def seal_up(bench: Bench, *signers: NoteSigner) -> None:
    """Run a notary, under an identity and keys of its own, until all that is stored is under a checkpoint."""
    plan = bench.options(verifiers=tuple(one.verifier for one in BOTH)).plan
    options = replace(bench.options(), plan=plan, signers=signers)
    last, store = bench.stored(), FolderStore(bench.folder)

    def reached() -> bool:
        note = store.get(CHECKPOINT)
        if note is None:
            return False
        signed = open_checkpoint(note, origin=ORIGIN, verifiers=[one.verifier for one in BOTH])
        return {one.verifier for one in signers} == set(signed.signers) and (
            last_place(store, signed.checkpoint.size).sequence >= last
        )

    async with bench.running(options=options):
        await bench.until(reached)


@pytest.mark.timeout(120)
async def test_an_export_verifies_after_all_keys_have_gone(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "log")
    first = sha256(bench.authority.jwt_bundle()).digest()
    issuers = [bench.authority.jwt_bundle()]
    signers: list[tuple[NoteSigner, ...]] = [(SIGNER,), BOTH, BOTH, (NEW_SIGNER,)]
    steps = [begin, prepare, activate, prune]
    for step, keys in zip(steps, signers, strict=True):
        step(bench)
        # New processes, and so new keys and SVIDs, for everybody.
        bench.agent = MemoryIdentity(bench.authority, NAMES.id_of("shop"))
        issuers.append(bench.authority.jwt_bundle())
        bench.record(5)
        bench.garbage()
        await seal_up(bench, *keys)
    kids = [{key["kid"] for key in json.loads(one)["keys"]} for one in issuers]
    assert not kids[0] & kids[-1]

    root = Root(
        origin=ORIGIN,
        keys=tuple(one.verifier for one in BOTH),
        bundles=frozenset({first}),
        names=NAMES,
        minters=frozenset(),
        notaries=frozenset({NOTARY}),
    )
    export = tmp_path / "export"
    await export_log(export, get=log_files(bench.folder), transport=bench.broker.connect(), root=root)
    shutil.rmtree(bench.folder)
    del bench

    trusted = Root.parse(root.encode())
    report = verify_export(FolderFiles(export), trusted)
    assert report.passed, report.findings
    assert report.tally.records["outcome"] == 20
    assert report.tally.records["bundle"] >= 4
    assert report.tally.entries["unverified"] == 4
    theirs = independent.verify(independent.read_folder(export), independent.read_root(root.encode()))
    assert (theirs.findings, theirs.garbage) == ([], 4)
    # Neither of the log's keys alone explains all of it, and neither does another first bundle.
    for changed in (
        replace(trusted, keys=trusted.keys[:1]),
        replace(trusted, keys=trusted.keys[1:]),
        replace(trusted, bundles=frozenset({bytes(32)})),
    ):
        assert not verify_export(FolderFiles(export), changed).passed
        assert independent.verify(independent.read_folder(export), independent.read_root(changed.encode())).findings
