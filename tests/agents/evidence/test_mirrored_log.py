"""The log that is made from a mirror is the notary's, and a mirror that was changed gives none."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import cast

import pytest
from support.notary import NAMES, NOTARY, ORIGIN, SIGNER, Bench, own_records

from sealbus.agents.control.notary.log.folder_store import CHECKPOINT
from sealbus.agents.evidence.mirrored_log import MirroredLog, make_log
from sealbus.bus.ports import Delivery, Transport
from sealbus.bus.stream_names import AUDIT
from sealbus.envelopes.errors import Code, LogError
from sealbus.envelopes.export.trust_root import Root
from sealbus.envelopes.log.note import NoteSigner
from sealbus.envelopes.records.notary import BundleRecord


@dataclass
class Mirror:
    """A copy of a stream, as the region's server gives it out."""

    bench: Bench
    change: Callable[[list[Delivery]], list[Delivery]] = lambda messages: messages

    async def read(self, stream: str, subjects: Sequence[str]) -> AsyncGenerator[Sequence[Delivery], None]:
        assert stream == "AUDIT_MIRROR"
        stored: list[Delivery] = []
        async for batch in self.bench.broker.connect().read(AUDIT, subjects):
            stored += batch
        if changed := self.change(stored):
            yield changed


def root_of(bench: Bench, signer: NoteSigner = SIGNER) -> Root:
    records = own_records(bench.broker.streams[AUDIT].stored)
    [first, *_] = [record for record in records if isinstance(record, BundleRecord)]
    return Root(
        origin=ORIGIN,
        keys=(signer.verifier,),
        bundles=frozenset({sha256(first.jwt).digest()}),
        names=NAMES,
        minters=frozenset(),
        notaries=frozenset({NOTARY}),
    )


async def logged(folder: Path) -> Bench:
    """Return a broker with a log of records and garbage, whose last checkpoint is published."""
    bench = Bench(folder)
    async with bench.running():
        bench.record(5)
        bench.garbage()
        bench.record(1)
        await bench.sealed(bench.stored() - 1)
        await bench.published(1)
    return bench


async def made(bench: Bench, folder: Path, mirror: Mirror | None = None, root: Root | None = None) -> MirroredLog:
    return await make_log(
        folder,
        transport=cast("Transport", mirror or Mirror(bench)),
        mirror="AUDIT_MIRROR",
        created=bench.broker.streams[AUDIT].created,
        root=root or root_of(bench),
    )


async def test_it_is_the_notarys_own(tmp_path: Path) -> None:
    bench = await logged(tmp_path / "log")
    bench.record(2)
    found = await made(bench, tmp_path / "made")
    checkpoint = bench.checkpoint()
    assert checkpoint is not None
    assert found.size == checkpoint.size
    assert found.last < bench.stored()
    # The published checkpoint, and what came after it.
    assert found.beyond == bench.stored() - found.last >= 3
    for path in (tmp_path / "log" / "tile").rglob("*"):
        if path.is_file():
            assert (tmp_path / "made" / path.relative_to(tmp_path / "log")).read_bytes() == path.read_bytes()
    assert (tmp_path / "made" / CHECKPOINT).read_bytes() == (tmp_path / "log" / CHECKPOINT).read_bytes()
    # A notary goes on with it.
    async with bench.running(options=bench.options()):
        bench.record(1)
        await bench.sealed(bench.stored())


def without(number: int) -> Callable[[list[Delivery]], list[Delivery]]:
    return lambda messages: [message for message in messages if message.sequence != number]


def altered(number: int) -> Callable[[list[Delivery]], list[Delivery]]:
    def change(messages: list[Delivery]) -> list[Delivery]:
        return [one._replace(payload=b"x" + one.payload) if one.sequence == number else one for one in messages]

    return change


@pytest.mark.parametrize("change", [without, altered])
async def test_a_mirror_that_was_changed_gives_no_log(
    change: Callable[[int], Callable[[list[Delivery]], list[Delivery]]], tmp_path: Path
) -> None:
    bench = await logged(tmp_path / "log")
    with pytest.raises(LogError) as caught:
        await made(bench, tmp_path / "made", Mirror(bench, change(4)))
    assert caught.value.code is Code.LOG_MISMATCH
    assert not (tmp_path / "made").exists()


async def test_a_log_begins_when_its_stream_was_created_and_under_the_roots_keys(tmp_path: Path) -> None:
    bench = await logged(tmp_path / "log")
    bench.broker.streams[AUDIT].created += 1
    with pytest.raises(LogError) as caught:
        await made(bench, tmp_path / "made")
    assert caught.value.code is Code.LOG_MISMATCH
    stranger = NoteSigner(ORIGIN, bytes(reversed(range(32))))
    with pytest.raises(LogError) as caught:
        await made(bench, tmp_path / "made", root=root_of(bench, stranger))
    assert caught.value.code is Code.UNTRUSTED_NOTE


async def test_a_bundle_that_the_root_does_not_pin_vouches_for_nothing(tmp_path: Path) -> None:
    bench = await logged(tmp_path / "log")
    with pytest.raises(LogError) as caught:
        await made(bench, tmp_path / "made", root=replace(root_of(bench), bundles=frozenset({bytes(32)})))
    assert caught.value.code is Code.UNTRUSTED_NOTE
