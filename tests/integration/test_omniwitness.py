"""One series of requests to transparency-dev's witness and to ours: both answer alike, and each cosigns both logs."""

from __future__ import annotations

import asyncio
import logging
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

import httpx2
import pytest
from support import grown_log as log_of_ours
from support.grown_log import GrownLog
from support.omniwitness import running_omniwitness
from support.plain_log import PlainLog, body, leaf, signed
from support.witness_site import WitnessSite, witness_keys

from sealbus.agents.control.notary.cosigning import Cosigning
from sealbus.bus.telemetry import Counters
from sealbus.envelopes.log.checkpoint import Checkpoint, sign_checkpoint
from sealbus.envelopes.log.cosignature import CosignatureSigner, verify_cosignatures
from sealbus.envelopes.log.note import NoteSigner, keep_signatures, parse_note
from sealbus.envelopes.log.tree_builder import TreeBuilder
from sealbus.envelopes.log.witness_policy import WitnessPolicy, open_cosigned

T = TypeVar("T")

pytestmark = pytest.mark.omniwitness

REQUESTS = 600
SEED = 20_261_203
LEAVES = [leaf(number) for number in range(40)]
FORKED = [*LEAVES[:5], *(leaf(number, "fork") for number in range(5, 40))]
KEYS = [NoteSigner("log.example.org/audit", bytes(32)), NoteSigner("sum.example.com", bytes([1]) * 32)]
ORIGINS = ["log.example.org/audit", "a plain log"]
LOGS = [PlainLog(key, LEAVES, origin) for key, origin in zip(KEYS, ORIGINS, strict=True)]
FORKS = [PlainLog(key, FORKED, origin) for key, origin in zip(KEYS, ORIGINS, strict=True)]
STRANGER = PlainLog(NoteSigner("stranger.example.com", bytes([2]) * 32), LEAVES)

DIFFERENCES = {(403, 500), (403, 400), (404, 400)}
"""What we answer, and what omniwitness does: 500 where no key of the log signed, and 400 for a malformed first line before
it looks at the checkpoint. tlog-witness demands 403 for the first, and says nothing of the second."""


def drawn(choice: random.Random, sizes: dict[str, int]) -> tuple[PlainLog, int, bytes, bytes]:
    """Return the log, size, note and body of a request; most begin at the last cosigned size."""
    which = choice.randrange(2)
    log = choice.choice([LOGS[which]] * 4 + [FORKS[which], STRANGER])
    last = sizes.get(log.origin, 0)
    old = choice.choice([last] * 4 + [0, choice.randrange(40)])
    new = min(39, choice.choice([last, last + 1, last + choice.randrange(6), choice.randrange(40)]))
    path = choice.choice(
        [log.proof(old, new)] * 6 + [[], FORKS[which].proof(old, new), [*log.proof(old, new), leaf(1)]]
    )
    note = choice.choice(
        [log.note(new)] * 8
        + [
            log.note(new, leaf(9)),
            signed(log.text(new), STRANGER.signer),
            log.note(new).replace(f"\n{new}\n".encode(), f"\n{new + 1}\n".encode(), 1),
            log.note(new) + signed("x\n", STRANGER.signer).partition(b"\n\n")[2],
        ]
    )
    first = choice.choice([f"old {old}"] * 15 + [f"size {old}"])
    return log, new, note, body(first, path, note)


async def test_both_answer_alike(tmp_path: Path) -> None:
    keys = {log.origin: log.signer.verifier.text for log in LOGS}
    signers = witness_keys(tmp_path)
    choice, sizes, seen = random.Random(SEED), dict[str, int](), Counter[tuple[int, int]]()  # noqa: S311  a series that can be repeated
    async with WitnessSite.open(tmp_path, keys) as ours, running_omniwitness(tmp_path, keys, signers) as theirs:
        for log in LOGS:
            # omniwitness takes any old size for the first checkpoint of a log.
            for client in (ours.client, theirs):
                assert (await client.post("/add-checkpoint", content=log.request(0, 2))).status_code == 200
            sizes[log.origin] = 2
        for number in range(REQUESTS):
            log, new, note, request = drawn(choice, sizes)
            answers = [await client.post("/add-checkpoint", content=request) for client in (ours.client, theirs)]
            status, other = (answer.status_code for answer in answers)
            seen[status, other] += 1
            assert status == other or (status, other) in DIFFERENCES, (number, request)
            if status == 409:
                assert answers[0].content == answers[1].content
                assert answers[0].headers["content-type"] == answers[1].headers["content-type"]
            if status == 200:
                sizes[log.origin] = new
                for answer in answers:
                    check_cosigned(note, answer, signers)
    assert seen.keys() == {(status, status) for status in (200, 400, 404, 409, 422)} | DIFFERENCES


def check_cosigned(note: bytes, answer: httpx2.Response, signers: tuple[CosignatureSigner, ...]) -> None:
    """Check that both keys cosigned."""
    verifiers = [signer.verifier for signer in signers]
    assert list(verify_cosignatures(parse_note(note + answer.content), verifiers)) == verifiers


async def test_each_cosigns_a_log_of_sealbus(tmp_path: Path) -> None:
    """The notary's tree and note, not those of the test."""
    signer, tree, requests = KEYS[0], TreeBuilder(), []
    for size in range(1, 28):
        tree.append(LEAVES[size - 1])
        if size in (3, 27):
            note = sign_checkpoint(Checkpoint(ORIGINS[0], size, tree.root()), [signer])
            requests.append(
                (note, body(f"old {0 if size == 3 else 3}", LOGS[0].proof(3, size) if size > 3 else [], note))
            )
    keys = {ORIGINS[0]: signer.verifier.text}
    signers = witness_keys(tmp_path)
    async with WitnessSite.open(tmp_path, keys) as ours, running_omniwitness(tmp_path, keys, signers) as theirs:
        for note, request in requests:
            for client in (ours.client, theirs):
                answer = await client.post("/add-checkpoint", content=request)
                assert answer.status_code == 200
                check_cosigned(note, answer, signers)


@asynccontextmanager
async def asking(log: GrownLog, policy: WitnessPolicy, counters: Counters) -> AsyncIterator[Cosigning]:
    """Ask the witnesses of `policy` about checkpoints of `log`, as its notary does."""
    cosigning = Cosigning(policy, counters=counters, get=log.store.get)
    task = asyncio.create_task(cosigning.run())
    try:
        yield cosigning
    finally:
        task.cancel()
        await asyncio.wait({task})


async def offered(cosigning: Cosigning, log: GrownLog, size: int, seen: Callable[[], T | None]) -> T:
    """Offer one checkpoint of `log`, and wait for what `seen` waits for."""
    note = log.grow(size)
    cosigning.offer(Checkpoint(log_of_ours.ORIGIN, size, log.ledger.root()), note)
    async with asyncio.timeout(60):
        while (found := seen()) is None:  # noqa: ASYNC110  what another task found: there is no event to wait for
            await asyncio.sleep(0.01)
    return found


async def test_one_policy_demands_both_of_our_log_and_of_another_and_both_catch_a_fork(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The first checkpoint of a second history of our log, under the same key, has no cosignature and is refused by each."""
    plain, signer = LOGS[1], log_of_ours.SIGNER
    plain_key = KEYS[1].verifier
    keys = {log_of_ours.ORIGIN: signer.verifier.text, plain.origin: plain.signer.verifier.text}
    folders = [tmp_path / name for name in ("ours", "theirs")]
    for folder in folders:
        folder.mkdir()
    (_, mine), (_, other) = (witness_keys(folder) for folder in folders)
    async with (
        WitnessSite.open(folders[0], keys) as ours,
        running_omniwitness(folders[1], keys, [other]) as theirs,
    ):
        urls = [str(client.base_url) for client in (ours.client, theirs)]
        lines = [f"log {key}" for key in keys.values()]
        lines += [f"witness ours {mine.verifier.text} {urls[0]}", f"witness theirs {other.verifier.text} {urls[1]}"]
        policy = WitnessPolicy.parse("\n".join([*lines, "group both all ours theirs", "quorum both", ""]).encode())
        ours_log, counters = GrownLog(tmp_path / "log"), Counters()
        async with asking(ours_log, policy, counters) as cosigning:
            for size in (3, 300, 700):

                def quorum() -> bytes | None:
                    found = cosigning.take()
                    return found.cosigned if found is not None and found.quorum else None

                note = await offered(cosigning, ours_log, size, quorum)
                signed = open_cosigned(note, log_of_ours.ORIGIN, [signer.verifier], policy)
                assert (signed.checkpoint.size, policy.has_quorum(signed.cosigners)) == (size, True)
        for old, new in ((0, 9), (9, 30)):
            answers = [
                await client.post("/add-checkpoint", content=plain.request(old, new))
                for client in (ours.client, theirs)
            ]
            note = plain.note(new) + b"".join(answer.content for answer in answers)
            known = keep_signatures(note, [plain_key, *policy.names])
            signed = open_cosigned(known, plain.origin, [plain_key], policy)
            assert (signed.cosigners, policy.has_quorum(signed.cosigners)) == (("ours", "theirs"), True)
            assert not policy.has_quorum(signed.cosigners[:1]), "one of them is not enough"
        fork, refused = GrownLog(tmp_path / "fork", branch="fork"), Counters()
        caplog.set_level(logging.WARNING)
        async with asking(fork, policy, refused) as cosigning:

            def both() -> list[str] | None:
                said = [line for line in caplog.messages if "status 422" in line]
                return said if len(said) == 2 else None

            said = await offered(cosigning, fork, 701, both)
            assert sorted(said) == ["witness ours: status 422", "witness theirs: status 422"]
            assert cosigning.take() is None
        text = refused.render()
        for name in ("ours", "theirs"):
            assert f'sealbus_notary_witness_answers_total{{outcome="failed",witness="{name}"}} 1.0' in text
            assert f'sealbus_notary_witness_answers_total{{outcome="cosigned",witness="{name}"}} 0.0' in text
