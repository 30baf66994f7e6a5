"""How long a reader lets user contexts and chains live: its own settings, within what format 1 allows.

Contexts and ancestors are judged at their own `iat`. So a key that is no longer anybody's can still sign one of a time at
which it was; what it signs ends as these say (SPEC.md section 7, steps 10 and 11).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sealbus.envelopes.errors import ConfigurationError
from sealbus.envelopes.limits import DEFAULT_LIMITS, SECOND

__all__ = ["DEFAULT_LIFETIMES", "FORMAT_LIFETIMES", "Lifetimes"]

_LONGEST: Final = DEFAULT_LIMITS.live_seconds * SECOND


@dataclass(frozen=True, slots=True, kw_only=True)
class Lifetimes:
    """What one reader takes at most, in microseconds. Raises `ConfigurationError` for what format 1 does not allow."""

    context_start: int = 3_600 * SECOND
    """A context's `exp - iat`: how long a chain may start with it. Four times what the edge mints."""
    context_life: int = 28_800 * SECOND
    """A context's `end - iat`: how long that chain may go on. A working day, which is what the edge mints."""
    chain_life: int = _LONGEST
    """A root's `end - iat`, of a chain without a context."""
    chain_after: int | None = None
    """How long after an ancestor's credential a chain may go on; None: that is not asked. A task may lawfully wait longer
    than an SVID lives."""

    def __post_init__(self) -> None:
        for name in ("context_start", "context_life", "chain_life"):
            if not 0 < getattr(self, name) <= _LONGEST:
                raise ConfigurationError(f"{name}: over 0 and at most {DEFAULT_LIMITS.live_seconds} s")
        if self.chain_after is not None and not 0 <= self.chain_after <= _LONGEST:
            raise ConfigurationError(f"chain_after: 0 to {DEFAULT_LIMITS.live_seconds} s")


DEFAULT_LIFETIMES: Final = Lifetimes()
FORMAT_LIFETIMES: Final = Lifetimes(context_start=_LONGEST, context_life=_LONGEST)
"""What the format itself allows; the archive's, which knows no reader's settings (SPEC.md section 7)."""
