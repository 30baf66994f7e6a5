"""How long a reader lets user contexts and chains live: its own settings, within what format 1 allows.

Contexts and ancestors are judged at their own `iat`. So a key that is no longer in use can still sign one dated to a time
when it was; these limits end what it signs (SPEC.md section 7, steps 10 and 11).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sealbus.envelopes.errors import ConfigurationError
from sealbus.envelopes.limits import DEFAULT_LIMITS, SECOND

_LONGEST: Final = DEFAULT_LIMITS.live_seconds * SECOND


@dataclass(frozen=True, slots=True, kw_only=True)
class Lifetimes:
    """The most that one reader accepts, in microseconds. Raises `ConfigurationError` for what format 1 does not allow."""

    context_start: int = 3_600 * SECOND
    """A context's `exp - iat`: how long a chain may start with it. Four times what the edge mints."""
    context_life: int = 28_800 * SECOND
    """A context's `end - iat`: how long that chain may continue. A working day, which is what the edge mints."""
    chain_life: int = _LONGEST
    """A root's `end - iat`, for a chain without a context."""
    chain_after: int | None = None
    """How long a chain may continue after an ancestor's credential expired; None for no limit. A task may legitimately wait
    longer than an SVID lives."""

    def __post_init__(self) -> None:
        for name in ("context_start", "context_life", "chain_life"):
            if not 0 < getattr(self, name) <= _LONGEST:
                raise ConfigurationError(f"{name}: over 0 and at most {DEFAULT_LIMITS.live_seconds} s")
        if self.chain_after is not None and not 0 <= self.chain_after <= _LONGEST:
            raise ConfigurationError(f"chain_after: 0 to {DEFAULT_LIMITS.live_seconds} s")


DEFAULT_LIFETIMES: Final = Lifetimes()
FORMAT_LIFETIMES: Final = Lifetimes(context_start=_LONGEST, context_life=_LONGEST)
"""The limits of the format itself, used by the archive, which knows no reader's settings (SPEC.md section 7)."""
