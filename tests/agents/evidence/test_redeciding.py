"""Every decision of an export made again by its archived policy: what follows, what does not, what cannot be known."""

from __future__ import annotations

from pathlib import Path

from support.decided_world import FIRST, SECOND, decide, decided_world
from support.kept_log import root_of, written
from support.log_world import World
from support.policies import DENY, bundle

from sealbus.agents.evidence.decisions import redecide
from sealbus.agents.evidence.files import FolderFiles
from sealbus.agents.evidence.verify import Verification, verify_export
from sealbus.policies.backtest.recorded import NotReplayable
from sealbus.policies.backtest.report import BacktestReport


async def made_again(world: World, folder: Path) -> tuple[Verification, BacktestReport, dict[str, str]]:
    files, root = FolderFiles(written(world.files(), folder)), root_of(world)
    report = verify_export(files, root, processes=1)
    assert report.passed, report.findings
    found, problems = await redecide(files, root, report)
    return report, found, problems


async def test_a_log_follows_from_its_policies_after_all_keys_have_gone(tmp_path: Path) -> None:
    report, found, problems = await made_again(decided_world(), tmp_path)
    assert report.passed
    assert (found.compared, found.same, problems) == (12, 12, {})
    assert set(found.not_replayable) == {NotReplayable.COUNTED}


async def test_a_decision_that_its_policy_does_not_make_is_a_finding(tmp_path: Path) -> None:
    world = decided_world()
    decide(world, "no", "first", allow=True)
    forged = world.sequence
    decide(world, "yes", "first", allow=True, inp=b"7")
    report, found, _ = await made_again(world, tmp_path)
    assert [(one.sequence, one.code) for one in report.findings] == [
        (forged + 1, "bad_decision"), (forged, "bad_decision")
    ]  # fmt: skip
    assert report.findings[1].detail == "does not follow from its input and policy: allow-to-deny"
    assert not report.passed
    assert found.contradictions == 2


async def test_what_cannot_be_made_again_is_counted(tmp_path: Path) -> None:
    world = decided_world(1, bundles=(FIRST,))
    decide(world, "yes", "first", allow=True, red=["/context/user/id"])
    report, found, _ = await made_again(world, tmp_path)
    assert report.passed
    assert found.compared == 2
    assert found.not_replayable[NotReplayable.NO_BUNDLE] == 2
    assert found.not_replayable[NotReplayable.REDACTED] == 1


async def test_a_bundle_that_is_none_or_of_a_revision_twice_is_told(tmp_path: Path) -> None:
    world = decided_world()
    world.record_policy(b"no bundle", "first")
    world.record_policy(bundle({"yes": DENY}, revision="second").raw, "second")
    report, found, problems = await made_again(world, tmp_path)
    assert report.passed
    assert found.same == 12
    assert len(problems) == 2
    assert "several bundles" in problems["second"]


async def test_a_bundle_that_the_log_does_not_name_decides_nothing(tmp_path: Path) -> None:
    world = decided_world(1, bundles=(FIRST,))
    files = FolderFiles(written(world.files(), tmp_path))
    (tmp_path / "policies" / f"{SECOND.digest.hex()}.tar.gz").write_bytes(SECOND.raw)
    report = verify_export(files, root_of(world), processes=1)
    assert [one.code for one in report.findings] == ["unknown_file"]
    found, _ = await redecide(files, root_of(world), report)
    assert found.not_replayable[NotReplayable.NO_BUNDLE] == 2
    assert report.count == 1
