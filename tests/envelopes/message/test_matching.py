"""Whether a subject is within a filter: NATS's own rules for `*` and `>`."""

from __future__ import annotations

import pytest

from sealbus.envelopes.message.subjects import matches


@pytest.mark.parametrize(
    ("pattern", "subject"),
    [("a", "a"), ("a.b", "a.b"), ("a.*", "a.b"), ("*.b", "a.b"), ("a.>", "a.b"), ("a.>", "a.b.c"), (">", "a.b")],
)
def test_within(pattern: str, subject: str) -> None:
    assert matches(pattern, subject)


@pytest.mark.parametrize(
    ("pattern", "subject"),
    [
        *(
            ("a", "b"),
            ("a", "A"),
            ("a", "a.b"),
            ("a.b", "a"),
            ("a.*", "a"),
            ("a.*", "a.b.c"),
            ("a.>", "a"),
            ("a.>", "b.c"),
        ),
        *(("a.b", "ab.b"), ("ab.b", "a.b")),
    ],
)
def test_outside(pattern: str, subject: str) -> None:
    assert not matches(pattern, subject)
