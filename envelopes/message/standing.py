"""The session of a standing grant: it marks every context of a schedule that acts for an absent user (SPEC.md section 6)."""

from __future__ import annotations

from typing import Final

STANDING: Final = "standing-"
"""The beginning of the session in such contexts. No other session begins with it."""
_BYTES: Final = 16


def standing_session(grant: bytes) -> str:
    """Return the session for contexts that rest on the grant in the message with H(header) `grant`."""
    return STANDING + grant[:_BYTES].hex()
