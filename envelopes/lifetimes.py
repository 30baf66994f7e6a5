"""How long a reader lets user contexts and chains live: its own settings, within the limits of format 1.

Readers judge contexts and ancestors at their own `iat`. So the holder of a retired key can still sign a context with an
earlier `iat`. These limits end the life of such a context (SPEC.md section 7, steps 10 and 11).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sealbus.envelopes.errors import ConfigurationError
from sealbus.envelopes.limits import DEFAULT_LIMITS, SECOND

_LONGEST: Final = DEFAULT_LIMITS.live_seconds * SECOND


@dataclass(frozen=True, slots=True, kw_only=True)
class Lifetimes:
    """The longest lives that one reader accepts, in microseconds.

    Raises `ConfigurationError` for a value that format 1 does not allow.
    """

    context_start: int = 3_600 * SECOND
    """A context's `exp - iat`: how long a chain may start with it. Four times the life that the edge gives."""
    context_life: int = 28_800 * SECOND
    """A context's `end - iat`: how long that chain may continue. A working day, as the edge gives."""
    chain_life: int = _LONGEST
    """A root's `end - iat`, for a chain without a context."""
    chain_after: int | None = None
    """How long a chain may continue after an ancestor's credential expired; None for no limit. A task may wait longer than
    an SVID lives."""

    def __post_init__(self) -> None:
        for name in ("context_start", "context_life", "chain_life"):
            if not 0 < getattr(self, name) <= _LONGEST:
                raise ConfigurationError(f"{name}: over 0 and at most {DEFAULT_LIMITS.live_seconds} s")
        if self.chain_after is not None and not 0 <= self.chain_after <= _LONGEST:
            raise ConfigurationError(f"chain_after: 0 to {DEFAULT_LIMITS.live_seconds} s")


DEFAULT_LIFETIMES: Final = Lifetimes()
FORMAT_LIFETIMES: Final = Lifetimes(context_start=_LONGEST, context_life=_LONGEST)
"""The limits of the format itself. The archive uses them, because it knows no reader's settings (SPEC.md section 7)."""
