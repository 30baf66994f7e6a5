"""Recorded decisions in ways of deciding, whatever their order."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from support.past_policies import decided_log, evaluator
from support.policies import ALLOW, DENY, bundle, document
from support.policy_inputs import well_formed
from support.recorded import recorded

from sealbus.envelopes.errors import Code
from sealbus.policies.backtest.recorded import CountedDenials, NotReplayable, Recorded
from sealbus.policies.bundle.check import DECISION
from sealbus.policies.bundle.files import STARTER, build_bundle
from sealbus.policies.past.ways import LeftOut, Ways

NO: dict[str, Any] = {"code": Code.DENIED, "reasons": ("no",), "obligations": b'[{"notify":"owner"}]'}

STARTER_BUNDLE = build_bundle(STARTER)
STARTER_LOG = decided_log(evaluator(STARTER_BUNDLE), [(DECISION, found) for found in well_formed(80)])


def ways(log: list[Recorded], most: int = 1_000) -> Ways:
    found = Ways(evaluator(bundle({"yes": ALLOW, "no": DENY, "also": ALLOW, "odd": True})), most=most)
    for one in log:
        found.add(one)
    return found


def test_the_smallest_input_stands_for_its_way() -> None:
    larger = document("yes", properties={"quantity": 7})
    found = ways([
        recorded(input=larger, leaf=b"a"),
        recorded("yes", leaf=b"c"),
        recorded("yes", leaf=b"b"),
        recorded("no", **NO),
    ])  # fmt: skip
    assert [(way.verdict, way.reasons) for way in sorted(found.examples)] == [("allow", ()), ("deny", ("no",))]
    allowed = min(found.examples)
    assert (found.examples[allowed].document, found.examples[allowed].leaf) == (document("yes"), b"b")
    assert (found.counts[allowed], found.counts.total(), found.left_out.total()) == (3, 4, 0)


def test_what_cannot_be_decided_again_as_recorded_is_counted() -> None:
    log: list[Recorded] = [
        recorded(redacted=True),
        recorded(input=None),
        recorded("no"),
        recorded("fails", code=Code.POLICY_ERROR),
        recorded("odd", code=Code.POLICY_ERROR),
        CountedDenials(caller="x", count=5),
    ]
    found = ways(log)
    assert found.examples == {}
    assert found.left_out == {
        NotReplayable.REDACTED: 1,
        NotReplayable.NO_INPUT: 1,
        NotReplayable.COUNTED: 5,
        LeftOut.CHANGED: 1,
        LeftOut.FAILED: 2,
    }


@given(st.permutations(STARTER_LOG), st.integers(1, 20))
def test_any_order_gives_the_same_ways(log: list[Recorded], most: int) -> None:
    evaluate = evaluator(STARTER_BUNDLE)
    straight, other = Ways(evaluate, most=most), Ways(evaluate, most=most)
    for one in STARTER_LOG:
        straight.add(one)
    for shuffled in log:
        other.add(shuffled)
    assert (straight.examples, straight.counts, straight.left_out) == (other.examples, other.counts, other.left_out)
    assert len(straight.examples) == most
    assert straight.left_out[LeftOut.TOO_MANY] == len(STARTER_LOG) - straight.counts.total() > 0
