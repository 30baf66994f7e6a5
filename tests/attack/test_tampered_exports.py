"""Single alterations of exports, each found by both verifiers, which share no code; and no false alarm on good ones.

`SEALBUS_ALTERATIONS=10000` is the full acceptance run; the ordinary one makes fewer.
"""

from __future__ import annotations

import json
import os
from functools import cache
from random import Random

import pytest
from independent import verify_export as independent
from support.log_world import World, make_world
from support.memory_files import MemoryFiles
from support.tampering import CLASSES, Altered, alter, flipped_in_a_message_and_signed_anew

from sealbus.agents.evidence.verify import Verification, verify_export
from sealbus.envelopes.export.trust_root import Root

ALTERATIONS = int(os.environ.get("SEALBUS_ALTERATIONS", "500"))
GOOD = 100
LARGE_SEED = 5


@cache
def world(number: int) -> World:
    """Return a small log; one in ten spans two tiles, and one holds a message of 900 kB."""
    return make_world(number, 262 if number % 10 == 9 else 20 + number % 7, large=number == LARGE_SEED)


def verified(altered: Altered) -> tuple[Verification, independent.Report]:
    ours = verify_export(MemoryFiles(altered.files), Root.parse(altered.root_bytes), processes=1)
    theirs = independent.verify(altered.files, independent.read_root(altered.root_bytes))
    return ours, theirs


@pytest.mark.slow
@pytest.mark.timeout(120 + ALTERATIONS // 4)
@pytest.mark.parametrize("name", list(CLASSES))
def test_every_alteration_is_found_by_both(name: str) -> None:
    rng = Random(name)  # noqa: S311  a run that can be made again
    for _ in range(-(-ALTERATIONS // len(CLASSES))):
        number = rng.randrange(20)
        altered = alter(rng, world(number), name)
        ours, theirs = verified(altered)
        assert not ours.passed, (number, theirs.findings)
        assert theirs.findings, (number, ours.findings)


@pytest.mark.slow
def test_there_is_no_false_alarm() -> None:
    for number in range(GOOD):
        made = world(number)
        ours, theirs = verified(Altered("none", made.files(), made.root()))
        assert (ours.passed, theirs.findings) == (True, []), (number, ours.findings)
        assert ours.checkpoint is not None
        assert ours.checkpoint.size == theirs.entries == len(made.frames)
        assert ours.tally.records.total() == theirs.records
        assert ours.tally.entries["unverified"] == theirs.garbage


def test_both_name_the_place_and_the_code() -> None:
    made = make_world(1, 20)
    altered = alter(Random(1), made, "record_of_the_notary_by_another")  # noqa: S311
    ours, theirs = verified(altered)
    [finding] = ours.findings
    assert theirs.findings == [(finding.place, finding.code, finding.detail)]
    assert (finding.sequence, finding.code) == (made.sequence + 1, "not_the_notary")


def test_a_later_checkpoint_kept_elsewhere_shows_what_was_left_out() -> None:
    made = make_world(2, 20)
    held = made.files()["checkpoint"].decode()
    shorter = World(Random(0), frames=made.frames[:8], keys=made.keys)  # noqa: S311
    root = json.dumps(made.root(checkpoints=[held])).encode()
    report = verify_export(MemoryFiles(shorter.files()), Root.parse(root), processes=1)
    assert "rolled_back" in {finding.code for finding in report.findings}


@pytest.mark.slow
def test_each_byte_of_a_message_is_covered_by_what_its_agent_signed() -> None:
    """Whoever has the log's key, and can sign any tree anew, still cannot change a byte of what an agent recorded."""
    rng, made = Random(3), world(4)  # noqa: S311
    for _ in range(150):
        at = rng.choice([index for index, frame in enumerate(made.frames) if frame.kind == 1])
        files, root = flipped_in_a_message_and_signed_anew(rng, made, at)
        ours, theirs = verified(Altered("flipped", files, root))
        place = f"#{made.frames[at].sequence}"
        assert place in {finding.place for finding in ours.findings}
        assert place in {found for found, _, _ in theirs.findings}
