"""Estimates how many bytes the streams will hold at a rate of tasks and calls, to help operators choose `streams.max_bytes`.

The bytes of one message were measured as nats-server 2.15.1 counts them for `max_bytes`: an agent that loads a resource, the
starter policy, a user's context, ES256 SVIDs, one message after the other. The records of 300 tasks at once took 42 % less,
because one audit message then holds many records, and their evidence once. `tests/integration/test_stream_sizes.py` compares
all figures with those of a server.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from sealbus.bus.stream_names import AUDIT, RESULTS, STATE, TASKS
from sealbus.bus.streams.declared import DEFAULT_MAX_BYTES, KEPT_SECONDS
from sealbus.envelopes.errors import ConfigurationError

TASK: Final = 1_890
"""Bytes of a task in TASKS, beside its body: header, proof, SVID and the user's context."""
RESULT: Final = 1_060
"""Bytes of the end of a task in RESULTS, beside its result's body."""
REFUSAL: Final = 1_210
"""Bytes of the end of a task that is denied."""
DECIDED: Final = 7_500
"""Bytes in AUDIT of an allowed message: the decision, its outcome, and the requester's decision about the answer."""
DENIED: Final = 3_720
"""Bytes in AUDIT of a denied message: the decision alone."""
CLAIM: Final = 1_940
"""Bytes of one effect in STATE (`once`)."""

DAY: Final = 86_400
HEADROOM: Final = 1.25
"""Room beyond the bytes held: the alert SealbusStreamFull fires once less than a fifth is left (docs/alerts.md)."""
_STEP: Final = 64 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpectedLoad:
    """The expected load: tasks and calls a second as means of a whole day, shares from 0 to 1, and mean bytes of bodies."""

    tasks: float
    calls: float = 0.0
    denied: float = 0.0
    once: float = 0.0
    """Share of the allowed tasks whose effect is claimed."""
    body: int = 1_024
    result: int = 256

    def __post_init__(self) -> None:
        if min(self.tasks, self.calls, self.body, self.result) < 0:
            raise ConfigurationError("rates and bytes are 0 or more")
        if not (0 <= self.denied <= 1 and 0 <= self.once <= 1):
            raise ConfigurationError("shares are from 0 to 1")

    @property
    def audit_bytes_per_second(self) -> float:
        """How fast AUDIT, which forgets nothing, grows."""
        return (self.tasks + self.calls) * ((1 - self.denied) * DECIDED + self.denied * DENIED)


def bytes_held(load: ExpectedLoad, *, days: float) -> Mapping[str, int]:
    """Return the bytes by stream: those of AUDIT after `days`, of the other streams in the 24 h 5 min that they keep.

    A backlog takes no extra room, because TASKS keeps acknowledged messages too. Raises `ConfigurationError` unless `days` is
    over 0.
    """
    if not days > 0:
        raise ConfigurationError("the days are over 0")
    allowed = load.tasks * (1 - load.denied)
    per_second = {
        TASKS: load.tasks * (TASK + load.body),
        RESULTS: allowed * (RESULT + load.result) + load.tasks * load.denied * REFUSAL,
        STATE: allowed * load.once * CLAIM,
    }
    return {
        **{name: round(rate * KEPT_SECONDS) for name, rate in per_second.items()},
        AUDIT: round(load.audit_bytes_per_second * days * DAY),
    }


def room_for(stream: str, held: int) -> int:
    """Return the `max_bytes` with room for `held` bytes and `HEADROOM`, in steps of 64 MiB and never under the default."""
    return max(-(-int(held * HEADROOM) // _STEP) * _STEP, DEFAULT_MAX_BYTES.get(stream, _STEP))


def seconds_until_full(load: ExpectedLoad, max_bytes: int) -> float | None:
    """Return after how many seconds an empty AUDIT of `max_bytes` is full; `None` if it never is."""
    rate = load.audit_bytes_per_second
    return max_bytes / rate if rate else None
