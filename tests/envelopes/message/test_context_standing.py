from __future__ import annotations

from sealbus.envelopes.message.user_context import STANDING, standing_session


def test_a_session_names_its_grant() -> None:
    grant = bytes(range(32))
    assert standing_session(grant) == "standing-000102030405060708090a0b0c0d0e0f"
    assert standing_session(grant).startswith(STANDING)
