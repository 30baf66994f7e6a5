"""Dead letters: what is believed of them, what may be sent again and as whose, and that a drop is said before it is done."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from support.engines import ScriptedEngine
from support.shop import Update

from sealbus import Agent, Context
from sealbus.bus.clocks import wall_clock
from sealbus.bus.inspection.dead import DeadLetter, DeadLetterList, common_grants, dead_subjects, drop, sent_again
from sealbus.bus.ports import StreamRefused
from sealbus.bus.sending.message import OutgoingMessage
from sealbus.envelopes.accept.live import LiveProfile
from sealbus.envelopes.errors import BusUnavailable, Code, ConfigurationError, EnvelopeError
from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.message.header import Header, parse_header
from sealbus.envelopes.message.kinds import Kind
from sealbus.envelopes.message.user_context import parse_payload
from sealbus.envelopes.message.wire import parse_envelope
from sealbus.envelopes.trust.bundles import Trust, TrustBundles
from sealbus.testing import TestBus

HOUR = 3_600 * SECOND


class Mill:
    """Two agents, of which one breaks what it is given until it is mended, and hands `pass_on` to the other."""

    def __init__(self) -> None:
        self.broken = True
        self.seen: list[Context] = []
        self.agent, self.front = Agent("mill"), Agent("front")

        @self.agent.task("grind", retry=0)
        async def grind(body: Update, ctx: Context) -> None:
            self.seen.append(ctx)
            if self.broken:
                raise ValueError

        @self.front.task("pass_on", retry=0)
        async def pass_on(body: Update, ctx: Context) -> None:
            await ctx.submit("mill.grind", body, grants=["mill.grind", "store.a.*"])

        @self.agent.on("event.front.ready", retry=0)
        async def ready(body: Update, ctx: Context) -> None:
            raise ValueError


@pytest.fixture
def mill() -> Mill:
    return Mill()


@pytest.fixture
async def bus(mill: Mill) -> AsyncIterator[TestBus]:
    async with TestBus(mill.agent, mill.front, engine=ScriptedEngine()) as running:
        yield running


def letters(bus: TestBus, bundles: TrustBundles | None = None, window: int = 100) -> DeadLetterList:
    profile = LiveProfile(
        own=bus.names.id_of("operator"),
        names=bus.names,
        kinds=frozenset({Kind.TASK, Kind.EVENT}),
        minters=bus.deployment.minters,
    )
    return DeadLetterList(
        transport=bus.broker.connect(),
        profile=profile,
        trust=lambda: Trust(bundles=bus.edge.bundles() if bundles is None else bundles),
        window=window,
    )


async def listed(bus: TestBus, *, window: int = 100, most: int = 100, agent: str | None = None) -> list[DeadLetter]:
    of = bus.names.id_of(agent) if agent is not None else None
    found = letters(bus, window=window).newest(
        dead_subjects(bus.names, of), first=1, last=len(bus.stored("DEAD")), most=most
    )
    return [one async for one in found]


async def last(bus: TestBus, bundles: TrustBundles | None = None) -> DeadLetter:
    count = len(bus.stored("DEAD"))
    return await letters(bus, bundles).find_letter(count, first=1, last=count)


async def ground(bus: TestBus, user: str | None = "alice", grants: list[str] | None = None) -> DeadLetter:
    """Return the dead letter of a task that shop-web sent."""
    client = await bus.client("shop-web")
    context = bus.user(user, "shop-web") if user is not None else None
    await client.submit("mill.grind", Update(item_id="1"), user=context, grants=grants)
    await bus.idle()
    return await last(bus)


def again(letter: DeadLetter, bus: TestBus, name: str = "operator", **options: bool) -> OutgoingMessage:
    return sent_again(letter, bus.names.id_of(name), now=wall_clock(), **options)


@pytest.mark.parametrize("window", [1, 2, 100])
async def test_letters_are_listed_with_their_reasons_the_newest_first(bus: TestBus, window: int) -> None:
    for user in ("alice", "bob", "carol"):
        await ground(bus, user)
    found = await listed(bus, window=window)
    assert [one.user for one in found] == ["carol", "bob", "alice"]
    assert [one.sequence for one in found] == [3, 2, 1]
    assert {(one.refused, one.agent, one.subject) for one in found} == {("", "mill", "dead.mill.grind")}
    assert {(one.death.code, one.death.deliveries) for one in found if one.death is not None} == {("handler_failed", 1)}
    assert {one.payload for one in found} == {b""}
    assert [one.user for one in await listed(bus, window=window, most=2)] == ["carol", "bob"]
    assert len(await listed(bus, window=window, agent="mill")) == 3
    assert await listed(bus, window=window, agent="front") == []


async def test_a_letter_is_found_by_its_number_and_by_the_names_of_its_message(bus: TestBus) -> None:
    await ground(bus)
    wanted = await ground(bus, "bob")
    assert wanted.header is not None
    for name in (2, wanted.header.id, wanted.header.digest):
        found = await letters(bus, window=1).find_letter(name, first=1, last=2)
        assert (found.sequence, found.payload) == (2, wanted.payload)
        assert found.message is not None
        assert found.message.body == b'{"item_id":"1","quantity":1}'
    for missing in (3, bytes(16), bytes(32)):
        with pytest.raises(ConfigurationError, match="there is no dead letter"):
            await letters(bus).find_letter(missing, first=1, last=2)


async def test_what_somebody_else_stored_is_not_believed(bus: TestBus) -> None:
    """A captured message in the name of another agent than it was for, changed bytes, and no message at all."""
    genuine = await ground(bus)
    assert genuine.envelope is not None
    stored = bus.stored("DEAD")[0]
    body = genuine.envelope.body
    for subject, payload in (
        ("dead.front.grind", stored.payload),
        ("dead.mill.grind", stored.payload.replace(body, body.replace(b"1", b"2"))),
        ("dead.mill.grind", b"junk"),
        ("dead.we!rd", stored.payload),
    ):
        bus.broker.inject(subject, payload, stored.header_block)
    found = await listed(bus)
    assert [one.refused for one in found] == ["wrong_audience", "malformed", "bad_digest", "wrong_audience", ""]
    for one in found[:-1]:
        letter = await letters(bus).find_letter(one.sequence, first=1, last=5)
        with pytest.raises(EnvelopeError) as refused:
            again(letter, bus, unverified=True, without_user=True)
        assert refused.value.code == one.refused
    # A reason is that of the agent under whose name the letter stands, or none.
    assert [one.death is not None for one in found] == [False, False, True, False, True]


async def test_a_retry_is_a_new_task_of_who_sends_it_that_names_the_dead_one(bus: TestBus, mill: Mill) -> None:
    letter = await ground(bus, None, grants=["mill.grind"])
    dead = letter.header
    assert dead is not None
    message = again(letter, bus)
    assert message.draft.ancestors == ()
    mill.broken = False
    operator = await bus.client("operator")
    posted = await operator.node.outbox.publish(message)
    await bus.idle()
    new = posted.sealed.header
    assert new.iss == bus.names.id_of("operator")
    assert (new.re, new.par, new.ctx) == (dead.digest, None, None)
    assert (new.to, new.aud, new.dig, new.typ, new.grt) == (dead.to, dead.aud, dead.dig, dead.typ, dead.grt)
    assert (new.exp - new.iat, new.end) == (dead.exp - dead.iat, new.iat + (dead.end or 0) - dead.iat)
    assert new.id != dead.id
    assert [ctx.user for ctx in mill.seen] == [None, None]
    # Decided anew, and recorded; the dead message's decision stays.
    decisions = await bus.decisions("mill.grind")
    assert [parse_header(one.header).digest for one in decisions] == [dead.digest, new.digest]


async def test_under_once_two_retries_have_one_effect_and_so_has_its_senders_own(bus: TestBus) -> None:
    letter = await ground(bus, None)
    assert letter.header is not None
    assert again(letter, bus).draft.idm == again(letter, bus).draft.idm == letter.header.digest.hex()
    assert again(letter, bus, "shop-web").draft.idm == letter.header.idm


async def test_the_user_goes_along_only_as_the_context_allows_it_again(bus: TestBus, mill: Mill) -> None:
    letter = await ground(bus)
    envelope = letter.envelope
    assert envelope is not None
    assert envelope.context is not None
    context = parse_payload(envelope.context.payload)

    with pytest.raises(ConfigurationError, match="minted for another workload"):
        again(letter, bus)
    assert again(letter, bus, without_user=True).draft.context is None

    sender = again(letter, bus, "shop-web")
    assert (sender.draft.context, sender.end_at, sender.not_before) == (envelope.context, context.end, context.iat)
    mill.broken = False
    await (await bus.client("shop-web")).node.outbox.publish(sender)
    await bus.idle()
    user = mill.seen[-1].user
    assert user is not None
    assert user.sub == "alice"

    own = bus.names.id_of("shop-web")
    assert sent_again(letter, own, now=context.exp - 1).draft.context is not None
    with pytest.raises(ConfigurationError, match="may no longer start a chain"):
        sent_again(letter, own, now=context.exp)


async def test_what_followed_from_another_message_starts_no_chain_for_its_user(bus: TestBus) -> None:
    client = await bus.client("shop-web")
    grants = ["mill.*", "store.*"]
    await client.submit("front.pass_on", Update(item_id="1"), user=bus.user("alice", "shop-web"), grants=grants)
    await bus.idle()
    letter = await last(bus)
    for name in ("operator", "front", "shop-web"):
        with pytest.raises(ConfigurationError, match="followed from another message"):
            again(letter, bus, name)
        assert again(letter, bus, name, without_user=True).draft.grt == ("mill.grind", "store.a.*")


async def test_an_event_is_not_sent_again(bus: TestBus) -> None:
    await (await bus.client("front")).emit("ready", Update(item_id="1"))
    await bus.idle()
    letter = await last(bus)
    assert letter.refused == ""
    with pytest.raises(ConfigurationError, match="is an event"):
        again(letter, bus)


async def test_a_key_that_is_unknown_by_now_has_to_be_said(bus: TestBus) -> None:
    await ground(bus, None)
    letter = await last(bus, TrustBundles({}))
    assert (letter.refused, letter.message, letter.death) == ("unknown_trust_domain", None, None)
    with pytest.raises(EnvelopeError) as refused:
        again(letter, bus)
    assert refused.value.code == Code.UNKNOWN_TRUST_DOMAIN
    assert again(letter, bus, unverified=True).draft.to == "task.mill.grind"


async def test_a_drop_is_said_and_then_done(bus: TestBus) -> None:
    letter = await ground(bus)
    assert letter.header is not None
    asked: list[tuple[str, bytes, int]] = []
    answer = b'{"success":true}'

    async def server(subject: str, payload: bytes) -> bytes:
        asked.append((subject, payload, len(bus.stored("EVENTS"))))
        return answer

    operator = (await bus.client("operator")).node
    before = len(bus.stored("EVENTS"))
    await drop(letter, operator.outbox, server, operator.token)
    assert asked == [("$JS.API.STREAM.MSG.DELETE.DEAD", b'{"seq": 1}', before + 1)]
    event = bus.stored("EVENTS")[-1]
    assert event.subject == "event.operator.dropped"
    envelope = parse_envelope(event.payload)
    header = parse_header(envelope.header)
    assert (header.iss, header.re) == (bus.names.id_of("operator"), letter.header.digest)
    said = json.loads(envelope.body)
    assert (said["sequence"], said["subject"], said["message"]) == (1, "dead.mill.grind", letter.header.id.hex())

    answer = b'{"success":false}'
    with pytest.raises(BusUnavailable, match="does not say"):
        await drop(letter, operator.outbox, server, operator.token)
    no_message = replace(letter, header=None, envelope=None, payload=b"junk")
    answer = b'{"success":true}'
    await drop(no_message, operator.outbox, server, operator.token)
    assert parse_header(parse_envelope(bus.stored("EVENTS")[-1].payload).header).re is None


async def test_without_the_event_nothing_is_deleted(bus: TestBus) -> None:
    letter = await ground(bus)

    async def server(subject: str, payload: bytes) -> bytes:
        raise AssertionError("deleted without a word")

    operator = (await bus.client("operator")).node
    bus.broker.fail("EVENTS", StreamRefused("EVENTS: maximum bytes exceeded", 10_077))
    with pytest.raises(BusUnavailable):
        await drop(letter, operator.outbox, server, operator.token)


@pytest.mark.parametrize(
    ("chain", "common"),
    [
        ([None], None),
        ([None, None], None),
        ([("a.b",), None], ("a.b",)),
        ([None, ("a.*",)], ("a.*",)),
        ([("a.*",), ("a.b", "c.d")], ("a.b",)),
        ([("a.b", "c.d"), ("a.*",)], ("a.b",)),
        ([("a.b.*",), ("a.*",)], ("a.b.*",)),
        ([("a.*",), ("a.*",)], ("a.*",)),
        ([("ab.*",), ("a.*",)], ()),
        ([("a",), ("a.*",)], ()),
        ([("a.*",), ("a",)], ()),
        ([("a.*", "b.*"), ("a.x", "b.*"), ("b.y.*",)], ("b.y.*",)),
        ([(), ("a.*",)], ()),
    ],
)
async def test_grants_of_a_chain_are_what_all_of_it_allow(
    bus: TestBus, chain: list[tuple[str, ...] | None], common: tuple[str, ...] | None
) -> None:
    header: Header | None = (await ground(bus, None)).header
    assert header is not None
    assert common_grants(header._replace(grt=grants) for grants in chain) == common
