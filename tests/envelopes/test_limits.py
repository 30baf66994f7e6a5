"""The limits fit each other: one that is changed alone is a format that contradicts itself."""

from __future__ import annotations

import dataclasses

import pytest

from sealbus.envelopes.limits import DEFAULT_LIMITS, SECOND, Limits


def test_every_limit_is_a_positive_whole_number() -> None:
    values = dataclasses.asdict(DEFAULT_LIMITS)
    assert len(values) > 20
    assert all(type(value) is int and value > 0 for value in values.values())


def test_limits_cannot_be_changed_in_place() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        DEFAULT_LIMITS.body_bytes = 1  # type: ignore[misc]
    assert Limits() == DEFAULT_LIMITS


def test_a_proof_reaches_every_leaf_of_the_largest_batch() -> None:
    assert 2**DEFAULT_LIMITS.proof_nodes == DEFAULT_LIMITS.batch_leaves


def test_the_largest_body_fits_beside_ancestors_at_their_largest() -> None:
    limits = DEFAULT_LIMITS
    proof = 32 * limits.proof_nodes + 64
    ancestors = limits.ancestors * (limits.header_bytes + proof + limits.token_bytes)
    own = limits.header_bytes + proof + limits.token_bytes
    statement = limits.context_bytes + proof + limits.token_bytes
    assert limits.body_bytes + ancestors + own + statement < limits.envelope_bytes


def test_parts_are_smaller_than_what_holds_them() -> None:
    limits = DEFAULT_LIMITS
    assert limits.text_bytes < limits.spiffe_id_bytes < limits.header_bytes < limits.envelope_bytes
    assert limits.subject_bytes <= limits.text_bytes
    assert limits.refusal_sample_bytes < limits.body_bytes


def test_times_leave_room_for_clocks() -> None:
    limits = DEFAULT_LIMITS
    assert 0 < limits.clock_skew < limits.stored_within < limits.live_seconds * SECOND
    assert limits.max_integer == 2**53 - 1 == int(float(limits.max_integer))
