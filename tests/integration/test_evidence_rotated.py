"""Years later: every key was replaced, everything live is gone, and an export still verifies, by both verifiers.

Its policies, too, signed by keys that are gone: every decision follows from the one that made it.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest
from independent import verify_export as independent
from support.decided import record_decision
from support.notary import NAMES, NOTARY, ORIGIN, SIGNER, Bench, last_place
from support.policies import signing_key
from support.teams import signed_platform, signed_team, team_policy

from sealbus.agents.control.notary.log.folder_store import CHECKPOINT, FolderStore
from sealbus.agents.control.notary.policy_archive import PolicyArchive
from sealbus.agents.dev.memory.identity import MemoryIdentity
from sealbus.agents.evidence.decisions import redecide
from sealbus.agents.evidence.export import export_log, log_files
from sealbus.agents.evidence.files import FolderFiles
from sealbus.agents.evidence.verify import verify_export
from sealbus.envelopes.export.trust_root import Root
from sealbus.envelopes.log.checkpoint import open_checkpoint
from sealbus.envelopes.log.note import NoteSigner
from sealbus.envelopes.trust.keys import SigningKey, key_id
from sealbus.policies.bundle.composition import PartSet
from sealbus.policies.bundle.format import Bundle

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


def composed(platform: SigningKey, team: SigningKey, serial: int) -> Bundle:
    """Return what processes compose of the parts that these keys sign; each serial allows another quantity."""
    parts = PartSet({key_id(platform.public): platform.public})
    parts.offer("platform", signed_platform(platform, {"stock": team}, serial=serial))
    rule = f"request.action.properties.quantity < {10 * serial}"
    parts.offer("stock", signed_team("stock", team, team_policy("stock", allow=rule), serial=serial))
    assert parts.composed is not None
    return parts.composed


async def seal_up(bench: Bench, policy: Bundle, *signers: NoteSigner) -> None:
    """Run a notary, under an identity and keys of its own, until all that is stored is under a checkpoint."""
    plan = bench.options(verifiers=tuple(one.verifier for one in BOTH)).plan
    options = replace(bench.options(), plan=plan, signers=signers)
    last, store, archive = bench.stored(), FolderStore(bench.folder), PolicyArchive()
    archive.offer(policy)

    def reached() -> bool:
        note = store.get(CHECKPOINT)
        if note is None:
            return False
        signed = open_checkpoint(note, origin=ORIGIN, verifiers=[one.verifier for one in BOTH])
        return {one.verifier for one in signers} == set(signed.signers) and (
            last_place(store, signed.checkpoint.size).sequence >= last
        )

    async with bench.running(options=options, policies=archive):
        await bench.until(lambda: archive.next_offered() is None)
        last = bench.stored()
        await bench.until(reached)


@pytest.mark.slow
async def test_an_export_verifies_after_all_keys_have_gone(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "log")
    first = sha256(bench.authority.jwt_bundle()).digest()
    issuers = [bench.authority.jwt_bundle()]
    signers: list[tuple[NoteSigner, ...]] = [(SIGNER,), BOTH, BOTH, (NEW_SIGNER,)]
    steps = [begin, prepare, activate, prune]
    for number, (step, keys) in enumerate(zip(steps, signers, strict=True), 1):
        step(bench)
        # New processes, and so new keys and SVIDs, for everybody.
        bench.agent = MemoryIdentity(bench.authority, NAMES.id_of("shop"))
        issuers.append(bench.authority.jwt_bundle())
        bench.record(5)
        policy = composed(signing_key(), signing_key(), number)
        # Whoever was the sender then, too, has a key and an SVID of that time.
        sender = MemoryIdentity(bench.authority, NAMES.id_of("planner"))
        for quantity in (10 * number - 1, 10 * number):
            await record_decision(bench, sender, policy, quantity)
        bench.garbage()
        await seal_up(bench, policy, *keys)
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
    assert report.tally.records["policy"] == len(list((export / "policies").iterdir())) == 4
    made, problems = await redecide(FolderFiles(export), trusted, report)
    assert (made.read, made.compared, made.same, made.not_replayable, problems) == (8, 8, 8, {}, {})
    assert report.passed
    assert {row.verdict: count for row, count in report.tally.rows.items() if row.action} == {"allow": 4, "deny": 4}
    assert report.tally.records["bundle"] >= 4
    assert report.tally.entries["unverified"] == 4
    theirs = independent.verify(independent.read_folder(export), independent.read_root(root.encode()))
    assert (theirs.findings, theirs.garbage) == ([], 4)
    # A policy is covered as every other byte is.
    bundle = next((export / "policies").iterdir())
    raw = bundle.read_bytes()
    bundle.write_bytes(raw[:-1])
    assert {one.code for one in verify_export(FolderFiles(export), trusted).findings} == {"bad_policy"}
    assert {
        code
        for _, code, _ in independent.verify(
            independent.read_folder(export), independent.read_root(root.encode())
        ).findings
    } == {"bad_policy"}
    bundle.write_bytes(raw)
    # Neither of the log's keys alone explains all of it, and neither does another first bundle.
    for changed in (
        replace(trusted, keys=trusted.keys[:1]),
        replace(trusted, keys=trusted.keys[1:]),
        replace(trusted, bundles=frozenset({bytes(32)})),
    ):
        assert not verify_export(FolderFiles(export), changed).passed
        assert independent.verify(independent.read_folder(export), independent.read_root(changed.encode())).findings
