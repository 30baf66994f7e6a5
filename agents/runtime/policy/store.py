"""The bucket in NATS that policy bundles are pushed to, with the current and former bundles of each part.

The object of a part has its name (`platform`, or a team's) and the current signed bundle; `stock@7` is the part `stock` under
serial 7. A denial that came into force by itself (`sealbus.policies.bundle.denials`) is `platform@8`, so that nobody else can
write a bundle under its serial; its description says what it is. `revocations` fits one message, so that a writer with no
other right can replace it. This module verifies no bundles: readers do, with `PartSet`.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterable, Sequence, Set
from dataclasses import dataclass
from typing import Final, TypeAlias

from sealbus.bus.nats.connection.connection import Connection
from sealbus.bus.streams.declared import Stream
from sealbus.bus.streams.object_store import ObjectInfo, ObjectStore, bucket_stream
from sealbus.bus.streams.plan import Change, apply, plan, read_streams
from sealbus.envelopes.errors import BusUnavailable, ConfigurationError
from sealbus.envelopes.limits import DEFAULT_LIMITS
from sealbus.policies.bundle.cells import bucket_and_cell
from sealbus.policies.bundle.ownership import PLATFORM, is_part
from sealbus.policies.bundle.revocations import REVOCATIONS

SCHEME: Final = "nats://"
"""Prefix by which `policy.bundle` names a bucket: `nats://policies`, or `nats://policies@default` from another cell."""
BUCKET_BYTES: Final = 33_554_432
DENIAL_DESCRIPTION: Final = "denial"
"""Description of the object of a denial."""
MOST_DENIALS: Final = 1_024
"""Most denials since the platform's bundle. One more is pushed with a new bundle, which has them all."""
TAKES_DENIALS: Final = "takes denials"
"""Description of a platform's bundle with which denials by themselves fit (`sealbus.policies.bundle.denials`)."""
KEPT: Final = 20
"""Former bundles kept of each part, for `sealbus policy rollback`."""
TRIES: Final = 5
BEHIND: Final = 0.2
"""Seconds that a replica may be behind another. An object that does not fit its description for longer is damaged."""

BeforeWriting: TypeAlias = Callable[[str, int, bytes], Awaitable[None]]
"""Is called with the name of a part, its new serial, and the bytes that are about to be stored."""

_FORMER: Final = re.compile(r"([a-z0-9_]+)@([1-9][0-9]{0,15})")


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredPart:
    """The current bundle of one part in the store; `raw` is empty if the object is damaged.

    Pass `last` to replace it.
    """

    name: str
    raw: bytes
    last: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """The `serials` of denials read before a bundle was made. The former bundle has those up to `after`."""

    after: int
    serials: Set[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class SerialState:
    """The last serial of a part; how many denials came since its last bundle; and whether its bundle takes denials."""

    last: int
    denials: int
    takes_denials: bool


def policy_stream(bucket: str, *, replicas: int) -> Stream:
    """Return the declaration of the stream that holds the policies of `bucket`, whose cell may follow an @.

    Replicate it as the deployment's other streams: without it no one can deny or revoke, and no process can start.
    """
    return bucket_stream(
        bucket_and_cell(bucket)[0], description="sealbus: policy bundles", max_bytes=BUCKET_BYTES, replicas=replicas
    )


class PolicyStore:
    """The bucket `bucket`, or `<bucket>@<cell>`, over an entered connection, which outlives it.

    `create` makes it with `replicas` replicas. `before` is called before a bundle or denial is written; if it raises, nothing
    is written.
    """

    def __init__(
        self, connection: Connection, bucket: str, *, replicas: int = 1, before: BeforeWriting | None = None
    ) -> None:
        self.objects = ObjectStore(connection, bucket)
        self._before = before
        self._declared = policy_stream(bucket, replicas=replicas)

    async def create(self) -> Sequence[Change]:
        """Make the bucket if it does not exist; return the differences of an existing one, which `streams apply` changes.

        Needs an operator's identity. Raises `ConfigurationError`, `BusUnavailable`.
        """
        states = await read_streams([self._declared.name], self.objects.request)
        if states[self._declared.name] is None:
            await apply([self._declared], self.objects.request)
            return ()
        return plan([self._declared], states)

    async def current(self) -> dict[str, StoredPart]:
        """Return the current bundles by part name. Raises `BusUnavailable`, `ConfigurationError`."""
        parts: dict[str, StoredPart] = {}
        for info in await self.objects.objects():
            if is_part(info.name) and (part := await self.read(info.name)) is not None:
                parts[part.name] = part
        return parts

    async def read(self, name: str) -> StoredPart | None:
        """Return the current bundle of the part `name`, None if there is none. Raises `BusUnavailable`."""
        last = 0
        for _ in range(TRIES):
            info = await self.objects.info(name)
            if info is None:
                return None
            raw = await self.objects.get(info)
            if raw is not None or info.sequence == last:
                return StoredPart(name=name, raw=raw or b"", last=info.sequence)
            last = info.sequence
            await asyncio.sleep(BEHIND)
        raise BusUnavailable(f"{name}: replaced each time it was read")

    async def push(
        self,
        name: str,
        raw: bytes,
        serial: int,
        *,
        last: int,
        known: Known | None = None,
        had: int = 0,
        description: str = "",
    ) -> None:
        """Make `raw` the current bundle of `name`, in place of the one that was read with `last`, 0 for none.

        A bundle of the platform was made with the `known` denials, and has those up to the serial `had`, which are removed.
        It is first kept under its serial. Raises `ConfigurationError` if another push or a denial came first, or for
        revocations that do not fit one message; `BusUnavailable`.
        """
        if self._before is not None:
            await self._before(name, serial, raw)
        if name == PLATFORM and description != TAKES_DENIALS:
            last = await self._end_denials(last)
        former = f"{name}@{serial}"
        info = await self.objects.info(former)
        former_last = info.sequence if info is not None and not is_denial(info) else 0
        written = await self.objects.put(former, raw, last=former_last)
        if name == PLATFORM:
            if written is None:
                raise CameFirst(name)
            # A denial that is written from now on has a later serial, or sees this bundle and is written again (`deny`).
            infos = await self._read_up_to(written)
            if known is not None and {serial_of(one) for one in denials_of(infos, known.after)} - known.serials:
                raise CameFirst(name)
        if name == REVOCATIONS:
            # Another revoker may write at the same time: `put` would remove the chunk that our object describes.
            pushed = await self.objects.replace(name, raw, last=last)
        else:
            pushed = await self.objects.put(name, raw, last=last, description=description)
        if pushed is None:
            raise CameFirst(name)
        await self._prune(name, had)

    async def _end_denials(self, last: int) -> int:
        """Take away what says that denials fit the platform's bundle, before one comes with which they do not.

        Whoever denies with what was read before has a serial that the new bundle takes, or is seen by its push. Return the
        sequence of the current bundle.
        """
        info = await self.objects.info(PLATFORM)
        if info is None or info.sequence != last or info.description != TAKES_DENIALS:
            return last
        raw = await self.objects.get(info)
        same = await self.objects.put(PLATFORM, raw or b"", last=last)
        if same is None:
            raise CameFirst(PLATFORM)
        return same.sequence

    async def deny(self, raw: bytes, serial: int) -> bool:
        """Add the denial `raw` under the platform's `serial`; return False if a bundle may lack it: use a later serial.

        Raises `BusUnavailable`, after which it may be stored or not.
        """
        if self._before is not None:
            await self._before(PLATFORM, serial, raw)
        written = await self.objects.put(f"{PLATFORM}@{serial}", raw, last=0, description=DENIAL_DESCRIPTION)
        if written is None:
            return False
        # A bundle that is written from now on sees it.
        infos = await self._read_up_to(written)
        return all(is_denial(one) or serial_of(one) < serial for one in _formers_of(PLATFORM, infos))

    async def serial_state(self, name: str) -> SerialState:
        """Return which serial of `name` is the last, and what denials need to know of the platform."""
        infos = await self.objects.objects()
        formers = _formers_of(name, infos)
        bundle = max((serial_of(one) for one in formers if not is_denial(one)), default=0)
        return SerialState(
            last=serial_of(formers[-1]) if formers else 0,
            denials=len(denials_of(infos, bundle)),
            takes_denials=any(one.name == name and one.description == TAKES_DENIALS for one in infos),
        )

    async def _prune(self, name: str, had: int) -> None:
        """Remove all former bundles but the last `KEPT`, and the denials that the current one has, up to the serial `had`.

        A bundle without that number, which a command of 0.1.0 may push, would be given them again, whoever has ended them.
        """
        formers = await self._formers(name)
        bundles = [one for one in formers if not is_denial(one)]
        for one in (*bundles[:-KEPT], *(one for one in formers if is_denial(one) and serial_of(one) <= had)):
            await self.objects.remove(one)

    async def _read_up_to(self, written: ObjectInfo) -> list[ObjectInfo]:
        """Return all objects, as of `written` or later: a replica may be behind."""
        for _ in range(TRIES):
            infos = await self.objects.objects()
            if any(one.sequence >= written.sequence for one in infos):
                return infos
            await asyncio.sleep(BEHIND)
        raise BusUnavailable(f"{written.name}: the replicas are behind")

    async def denials(self, *, after: int, upto: int = DEFAULT_LIMITS.max_integer) -> dict[int, bytes]:
        """Return the denials with a serial after `after`, at most `upto`, by serial. Raises `BusUnavailable`."""
        found: dict[int, bytes] = {}
        for info in denials_of(await self.objects.objects(), after):
            if serial_of(info) <= upto:
                raw = await self.denial(info)
                # A bundle that has it may have taken its place meanwhile.
                if raw or await self.objects.info(info.name) is not None:
                    found[serial_of(info)] = raw
        return found

    async def denial(self, info: ObjectInfo, *, tries: int = TRIES) -> bytes:
        """Return the denial that `info` describes, which nobody replaces; nothing if it is damaged, or a replica behind."""
        for left in reversed(range(tries)):
            raw = await self.objects.get(info)
            if raw is not None:
                return raw
            if left:
                await asyncio.sleep(BEHIND)
        return b""

    async def former(self, name: str, serial: int) -> bytes:
        """Return the bundle of `name` under `serial`. Raises `ConfigurationError` if it is not kept."""
        info = await self.objects.info(f"{name}@{serial}")
        raw = await self.objects.get(info) if info is not None and not is_denial(info) else None
        if raw is None:
            serials = ", ".join(map(str, await self.serials(name))) or "none"
            raise ConfigurationError(f"{name}: serial {serial} is not kept; there are {serials}")
        return raw

    async def serials(self, name: str) -> list[int]:
        """Return the serials under which former bundles of `name` are kept, in order."""
        return [serial_of(info) for info in await self._formers(name) if not is_denial(info)]

    async def _formers(self, name: str) -> list[ObjectInfo]:
        return _formers_of(name, await self.objects.objects())


def _formers_of(name: str, infos: Iterable[ObjectInfo]) -> list[ObjectInfo]:
    """Return the objects of former bundles and denials of `name`, by serial."""
    former = [info for info in infos if (match := _FORMER.fullmatch(info.name)) is not None and match[1] == name]
    return sorted(former, key=serial_of)


def denials_of(infos: Iterable[ObjectInfo], after: int) -> list[ObjectInfo]:
    """Return the objects of denials with a serial after `after`, by serial."""
    return [info for info in _formers_of(PLATFORM, infos) if is_denial(info) and serial_of(info) > after]


class CameFirst(ConfigurationError):
    """Another push of the part `name` came first."""

    def __init__(self, name: str) -> None:
        super().__init__(f"{name}: another push came first; look at that one, then push again")


def is_denial(info: ObjectInfo) -> bool:
    """Return whether an object is described as a denial; only its signature says whether it is one."""
    return info.description == DENIAL_DESCRIPTION and info.name.startswith(f"{PLATFORM}@") and not info.deleted


def serial_of(info: ObjectInfo) -> int:
    """Return the serial in the name of a former bundle or a denial, 0 if it has none."""
    match = _FORMER.fullmatch(info.name)
    return int(match[2]) if match is not None else 0
