"""A stop: the value that an agent stores once it was told to cancel a message (SPEC.md section 7, "Cancelling").

::

    state.<agent>.stop.<hex H(header)>.<requester>      [payload, signature, key, token], signed by the agent

Every process of every agent reads all stops. A message carries the headers of its ancestors, so each process can tell which
messages a stop concerns. Pure.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, NamedTuple

from sealbus.bus.sending.cancel import CancelRole
from sealbus.bus.streams.signed_value import PARTS, is_own, signed
from sealbus.envelopes.encoding.codec import Value, decode, encode, is_text
from sealbus.envelopes.errors import Code, EnvelopeError, SealError
from sealbus.envelopes.limits import DEFAULT_LIMITS
from sealbus.envelopes.message.fields import DIGEST_BYTES, RecordMap, check_bytes, check_uint
from sealbus.envelopes.message.header import Header, is_grant
from sealbus.envelopes.message.seal import Sealer
from sealbus.envelopes.message.subjects import OwnSubjects, action_of
from sealbus.envelopes.trust.bundles import Trust
from sealbus.envelopes.trust.caches import Caches
from sealbus.envelopes.trust.names import Names
from sealbus.envelopes.trust.spiffe_id import SpiffeId

STOPS: Final = "state.*.stop.*.*"
"""The subjects of all stops."""

_TYPE: Final = "application/vnd.sealbus.stop.v1"
"""The type of the signature."""
_SUBJECT: Final = re.compile(r"state\.([A-Za-z0-9_-]+)\.stop\.([0-9a-f]{64})\.([A-Za-z0-9_-]+)")
_BYTES: Final = 8_192
"""Most bytes of one part: two SPIFFE IDs with short fields, or a token."""


class StopPlace(NamedTuple):
    """The parts of a stop's subject: its agent, the message, and the workload that asked for it. Nothing is verified."""

    agent: str
    digest: bytes
    requester: str

    @property
    def subject(self) -> str:
        """The subject of the stop."""
        return f"state.{self.agent}.stop.{self.digest.hex()}.{self.requester}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    """A decided cancel of one message and what follows from it. Raises `SealError` for bad fields.

    `agent` is the recipient of the message with H(header) `digest` and the action `action`. `by` asked for the stop,
    in the `role` of requester or operator, for `reason`. After `end` nothing of the message is handled. The stop was made
    `at` (both microseconds); `cancel` is H(header) of the control message that was decided on.
    """

    agent: SpiffeId
    digest: bytes
    action: str
    by: SpiffeId
    role: CancelRole
    reason: str
    end: int
    at: int
    cancel: bytes

    def __post_init__(self) -> None:
        check_bytes("digest", self.digest, least=DIGEST_BYTES, most=DIGEST_BYTES)
        check_bytes("cancel", self.cancel, least=DIGEST_BYTES, most=DIGEST_BYTES)
        check_uint("at", self.at)
        check_uint("end", self.end)
        if not is_grant(self.action) or self.action.endswith("*"):
            raise SealError("a stop names an action")
        if not is_text(self.reason):
            raise SealError("a reason is a short text")

    def concerns(self, header: Header, own_subjects: OwnSubjects) -> bool:
        """Return whether this stop is for the message with this verified header, and `by` may cancel that message."""
        if header.digest != self.digest or header.aud != self.agent:
            return False
        if self.role is CancelRole.REQUESTER and header.iss != self.by:
            return False
        try:
            return action_of(header.to, own_subjects) == self.action
        except EnvelopeError:
            return False

    def keys(self) -> dict[str, Value]:
        """Return the keys of the payload that STATE and HELD have in common: all but the agent and the time."""
        return {
            "dig": self.digest,
            "act": self.action,
            "by": self.by.value,
            "rol": self.role.value,
            "rsn": self.reason,
            "end": self.end,
            "can": self.cancel,
        }

    def place(self, names: Names) -> StopPlace:
        """Return the place of the stop."""
        return StopPlace(names.token(self.agent), self.digest, names.token(self.by))


def sign(stop: Stop, sealer: Sealer) -> bytes:
    """Return the stored form of `stop`: an encoded `[payload, signature, key, token]`, signed by `sealer`."""
    fields: dict[str, Value] = {"v": 1, "own": stop.agent.value, "at": stop.at, **stop.keys()}
    payload = encode(fields, text_bytes=DEFAULT_LIMITS.spiffe_id_bytes)
    return encode([*signed(payload, _TYPE, sealer)], text_bytes=_BYTES)


def stop_of(keys: RecordMap, *, agent: SpiffeId, at: int) -> Stop:
    """Return the stop with the keys that `Stop.keys` returned. Raises `EnvelopeError`, `SealError` or `ValueError`."""
    return Stop(
        agent=agent,
        digest=keys.octets("dig"),
        action=keys.text("act"),
        by=SpiffeId.parse(keys.text("by")),
        role=CancelRole(keys.text("rol")),
        reason=keys.text("rsn"),
        end=keys.uint("end"),
        at=at,
        cancel=keys.octets("can"),
    )


def place_of(subject: str) -> StopPlace | None:
    """Return the place in the subject of a stop; `None` for every other subject."""
    match = _SUBJECT.fullmatch(subject)
    return StopPlace(match[1], bytes.fromhex(match[2]), match[3]) if match is not None else None


def parse(raw: bytes, place: StopPlace, *, stored: int, names: Names, trust: Trust, caches: Caches) -> Stop:
    """Return the stop in `place`: signed by the agent of the place, just before the broker stored it at `stored`.

    So a key signs no stop after the end of its credential, and an older stop does not replace a newer one. Raises
    `EnvelopeError`, step 0: `malformed`, `replayed` if it was stored at another time, or `bad_signature` if this agent did
    not sign it.
    """
    array = decode(raw, text_bytes=_BYTES, step=0) if len(raw) <= PARTS * _BYTES else None
    if not isinstance(array, list) or len(array) != PARTS:
        raise EnvelopeError(Code.MALFORMED, 0, "stop: not an array of four")
    parts = [part for part in array if isinstance(part, bytes)]
    keys = RecordMap(decode(parts[0] if parts else b"", text_bytes=DEFAULT_LIMITS.spiffe_id_bytes, step=0))
    try:
        stop = stop_of(keys, agent=SpiffeId.parse(keys.text("own")), at=keys.uint("at"))
    except (SealError, ValueError) as error:
        raise EnvelopeError(Code.MALFORMED, 0, "stop") from error
    keys.end()
    if stop.place(names) != place:
        raise EnvelopeError(Code.MALFORMED, 0, "stop: stored in another's place")
    if not stop.at - DEFAULT_LIMITS.clock_skew <= stored <= stop.at + DEFAULT_LIMITS.stored_within:
        raise EnvelopeError(Code.REPLAYED, 0, "stop: not stored when it was made")
    if not is_own(parts, _TYPE, own=stop.agent, at=stop.at, trust=trust, caches=caches):
        raise EnvelopeError(Code.BAD_SIGNATURE, 0, "stop: not signed by its agent")
    return stop
