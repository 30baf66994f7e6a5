"""The notary's messages among all entries."""

from __future__ import annotations

from support.log_world import NOTARY, make_world
from vectors.issuing import INVENTORY

from sealbus.envelopes.export.format import Frame
from sealbus.envelopes.export.trust import NotaryMessages
from sealbus.envelopes.log.entries import EntryKind
from sealbus.envelopes.trust.spiffe_id import SpiffeId

WORLD = make_world(2, 30)
FRAMES = [Frame(EntryKind(one.kind), *one[1:]) for one in WORLD.frames]


def issuers(*notaries: str) -> list[str]:
    messages = NotaryMessages(map(SpiffeId, notaries))
    return [found.header.iss.value for one in FRAMES if (found := messages.read(one)) is not None]


def test_only_messages_that_say_that_they_are_the_notarys() -> None:
    assert set(issuers(NOTARY)) == {NOTARY}
    assert set(issuers(NOTARY, INVENTORY)) == {NOTARY, INVENTORY}
    assert len(issuers(NOTARY, INVENTORY)) == len(issuers(NOTARY)) + len(issuers(INVENTORY))
    assert issuers() == []
    # An id that begins like another's is found in its header, and is another.
    assert issuers(INVENTORY[:-1]) == []


def test_what_is_no_message() -> None:
    messages = NotaryMessages([SpiffeId(NOTARY)])
    good = next(one for one in FRAMES if messages.read(one) is not None)
    assert messages.read(good._replace(kind=EntryKind.UNVERIFIED)) is None
    assert messages.read(good._replace(data=good.data[:-1])) is None
    assert messages.read(good._replace(data=NOTARY.encode())) is None
