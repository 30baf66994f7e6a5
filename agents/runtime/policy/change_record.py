"""Has the audit stream record what is about to be stored in the policy store: who changes what, before it is changed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from sealbus.bus.ports import Transport
from sealbus.bus.sending.message import single_record
from sealbus.bus.sending.outbox import Outbox
from sealbus.envelopes.errors import BusUnavailable, ConfigurationError, SealbusError
from sealbus.envelopes.records.operation import ChangeRecord

WITHIN: Final = 10.0
"""Seconds within which the audit stream must have the record."""
SOON: Final = 2.0
"""Seconds for which a change that does not need its record waits for it."""


@dataclass(slots=True, kw_only=True)
class ChangeRecorder:
    """Records changes on `subject`, by the identity of `outbox`, each as `action` with `target` and `reason`.

    `transport` is that of the outbox. With `must` a change that is not recorded is not made. Without, it is made, and `warn`
    is told: a denial does not wait for a log. Where no stream takes records, nobody can handle a message, and every change is
    made.
    """

    outbox: Outbox
    transport: Transport
    subject: str
    action: str
    target: str = ""
    reason: str = ""
    must: bool = True
    warn: Callable[[str], None] = lambda _: None
    given_up: bool = False
    """Whether a record was not stored, so that another try of the same denial does not wait again."""

    async def __call__(self, part: str, serial: int, raw: bytes) -> None:
        """Record that `raw` is about to be stored as `part` under `serial`. Raises `BusUnavailable`, `ConfigurationError`."""
        if self.given_up:
            return
        try:
            record = ChangeRecord(
                action=self.action,
                part=part,
                serial=serial,
                digest=sha256(raw).digest(),
                target=self.target,
                reason=self.reason,
            )
            async with asyncio.timeout(WITHIN if self.must else SOON):
                await self._store(record)
        except (SealbusError, TimeoutError) as error:
            self.given_up = not self.must
            text = f"the audit stream has no record of this change: {str(error) or 'it did not answer'}"
            if self.must:
                raise BusUnavailable(f"{text}; nothing was changed") from error
            self.warn(text)

    async def _store(self, record: ChangeRecord) -> None:
        try:
            await self.transport.audit_stream()
        except ConfigurationError:
            self.warn("no stream takes records yet: this change is not recorded")
            return
        await self.outbox.publish(single_record(self.subject, record), within=WITHIN)
