"""The table of kinds, against the one in SPEC.md section 3, written out once more."""

from __future__ import annotations

import pytest

from sealbus.envelopes.message.kinds import KINDS, RULES, Kind, Profile

MINUTE = 60_000_000
DAY = 24 * 60 * MINUTE

TABLE = [
    ("task", "aud end", "ctx par grt idm re", DAY, "live"),
    ("call", "aud end rpl", "ctx par grt idm re", MINUTE, "live"),
    ("reply", "aud re", "", MINUTE, "result"),
    ("chunk", "aud re seq", "fin", MINUTE, "result"),
    ("status", "aud re seq", "fin", DAY, "result"),
    ("event", "", "aud re idm", DAY, "live"),
    ("record", "", "", DAY, "archive"),
]


@pytest.mark.parametrize(("kind", "must", "may", "life", "profile"), TABLE, ids=[row[0] for row in TABLE])
def test_rules_are_the_table(kind: str, must: str, may: str, life: int, profile: str) -> None:
    rule = RULES[KINDS[kind]]
    assert rule.must == set(f"t id iss to iat exp key crd dig typ {must}".split())
    assert rule.may == set(f"tid sch ext {may}".split())
    assert rule.life == life
    assert rule.profile is Profile(profile)


def test_there_are_no_other_kinds() -> None:
    assert [row[0] for row in TABLE] == [kind.value for kind in Kind]
    assert set(RULES) == set(Kind)
    assert KINDS.get("tasks") is None
