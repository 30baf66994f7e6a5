"""The session of a user's standing grant: what a schedule does for them says so in every context (SPEC.md section 6)."""

from __future__ import annotations

from typing import Final

STANDING: Final = "standing-"
"""What the session of such a context begins with, and no other's."""
_BYTES: Final = 16


def standing_session(grant: bytes) -> str:
    """Return the session of contexts for what the message with H(header) `grant` asked for."""
    return STANDING + grant[:_BYTES].hex()
