"""Connections replaced under load: no publish fails, nothing is lost or doubled, none outlives its certificate."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from support.lab import QUICK, Lab, make_stream, outgoing, running, until
from support.x509 import ThrowawayCa

from sealbus.bus.nats.connection.connection import Connection
from sealbus.bus.nats.connection.link import Link
from sealbus.bus.nats.consumer import NatsPull
from sealbus.bus.nats.transport import NatsTransport
from sealbus.bus.ports import Delivery, PubAck
from sealbus.envelopes.errors import BusUnavailable
from sealbus.envelopes.trust.spiffe_id import SpiffeId, TrustDomain

pytestmark = pytest.mark.nats


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    async with running(tmp_path / "nats", "a", "b") as started:
        yield started


class Load:
    """Publishes, sends, listens and pulls without a pause, and counts."""

    def __init__(self, sender: NatsTransport, receiver: NatsTransport) -> None:
        self.sender = sender
        self.receiver = receiver
        self.stop = False
        self.published = 0
        self.sent = 0
        self.failed: list[Exception] = []
        self.heard: dict[str, list[int]] = {"all": [], "group": []}
        self.pulled: list[int] = []
        self.live = asyncio.Event()

    def has_sent(self, count: int) -> bool:
        return self.sent >= count

    async def publish(self) -> None:
        while not self.stop:
            batch = [outgoing(self.published + number, size=200) for number in range(20)]
            self.published += len(batch)
            answers = await self.sender.publish(batch, deadline=60.0)
            self.failed += [answer for answer in answers if not isinstance(answer, PubAck)]

    async def send(self) -> None:
        """Core messages, numbered, each as an agent's calls are sent: at any moment."""
        await self.live.wait()
        while not self.stop:
            self.sender.send([outgoing(self.sent, "call.b.run")])
            self.sent += 1
            await asyncio.sleep(0.0005)

    async def listen(self, queue: str) -> None:
        heard = self.heard["group" if queue else "all"]
        deliveries = self.receiver.listen("call.b.>", queue=queue)
        async with contextlib.aclosing(deliveries) as batches:
            async for batch in batches:
                heard += [number(delivery) for delivery in batch]

    async def pull(self) -> None:
        pull = self.receiver.pull("TASKS", "b", ["task.>"], batch=50, ack_wait=30.0, max_ack_pending=1000)
        async for batch in pull.batches():
            pull.ack(batch)
            self.pulled += [number(delivery) for delivery in batch]


def rotated(connection: Connection, times: int) -> bool:
    return connection.counters.value("sealbus_bus_rotations_total") == times


def number(delivery: Delivery) -> int:
    return int(delivery.payload)


async def test_no_publish_fails_and_nothing_is_lost_or_doubled(lab: Lab) -> None:
    sender_identity, receiver_identity = lab.identity("a"), lab.identity("b")
    async with (
        lab.connection("a", identity=sender_identity) as sender,
        lab.connection("b", identity=receiver_identity) as receiver,
    ):
        await make_stream(sender)
        load = Load(NatsTransport(sender), NatsTransport(receiver))
        listeners = [asyncio.ensure_future(load.listen(queue)) for queue in ("", "group", "group")]
        puller = asyncio.ensure_future(load.pull())
        await until(lambda: len(receiver._attachments) == 4)
        await receiver.link.flush(60.0)
        load.live.set()
        senders = [asyncio.ensure_future(run()) for run in (load.publish, load.publish, load.send)]
        for turn in range(1, 9):
            sender_identity.rotate()
            receiver_identity.rotate()
            await until(partial(rotated, sender, turn))
            await until(partial(rotated, receiver, turn))
            await until(partial(load.has_sent, load.sent + 100))
        load.stop = True
        await asyncio.gather(*senders)
        await until(lambda: len(load.heard["all"]) >= load.sent and len(load.heard["group"]) >= load.sent)
        await until(lambda: len(load.pulled) >= load.published)
        for task in (*listeners, puller):
            task.cancel()
        await asyncio.gather(*listeners, puller, return_exceptions=True)
        assert load.failed == []
        assert load.heard["all"] == list(range(load.sent))
        assert sorted(load.heard["group"]) == list(range(load.sent))
        assert sorted(load.pulled) == list(range(load.published))
        for connection in (sender, receiver):
            assert connection.counters.value("sealbus_bus_connections_total") == 9
            assert connection.counters.value("sealbus_bus_reconnects_total") == 0
            assert connection.counters.value("sealbus_bus_dropped_total") == 0


async def test_short_lives_are_never_outlived(lab: Lab) -> None:
    """Certificates of 6 s, renewed at half life: whatever link is there has a certificate that is valid now."""
    identity = lab.identity("a", life=6.0)
    stop = asyncio.Event()

    async def renew() -> None:
        while not stop.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(3.0):
                    await stop.wait()
            identity.rotate(6.0, age=0.0)

    links: set[Link] = set()
    async with lab.connection(identity=identity, overlap=0.01, settle=1.0) as connection:
        renewing = asyncio.ensure_future(renew())
        while len(links) < 5:
            link = connection.link
            links.add(link)
            assert (await connection.request("$JS.API.INFO", b"", deadline=60.0)).payload
            now = time.time() * 1e6
            assert all(one.not_after > now for one in links if one.alive)
            await asyncio.sleep(0.01)
        stop.set()
        await renewing
    assert connection.counters.value("sealbus_bus_expired_total") == 0


async def test_without_a_newer_certificate_the_connection_ends_in_time(lab: Lab) -> None:
    identity = lab.identity("a", life=6.0)
    async with lab.connection(identity=identity, margin=3.0) as connection:
        link = connection.link
        await until(lambda: not link.alive)
        assert time.time() * 1e6 < link.not_after
        assert connection.counters.value("sealbus_bus_expired_total") == 1
        with pytest.raises(BusUnavailable, match="expires"):
            _ = connection.link
        await until(lambda: connection.counters.value("sealbus_bus_connect_failures_total") > 0)
        identity.rotate(3600.0)
        await connection.ready(60)


async def test_while_another_server_says_nothing_the_connection_ends_in_time(lab: Lab) -> None:
    identity = lab.identity("a", life=6.0)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        connection = Connection(
            [lab.server.url, f"tls://127.0.0.1:{silent.getsockname()[1]}"],
            identity=identity,
            server_ids=frozenset({SpiffeId.parse(lab.server.spiffe_id)}),
            inbox_prefix="_INBOX.a.",
            options=replace(QUICK, margin=3.0),
            random=lambda: 0.0,
        )
        async with connection:
            link = connection.link
            assert link.url == lab.server.url
            identity.rotate(3600.0)
            await until(lambda: not link.alive)
            assert time.time() * 1e6 < link.not_after
            await connection.ready(60)
            assert connection.link.url == lab.server.url


async def test_a_failed_rotation_keeps_the_old_connection_and_is_tried_again(lab: Lab) -> None:
    identity = lab.identity("a")
    async with lab.connection(identity=identity) as connection:
        kept = connection.link
        identity.ca = ThrowawayCa("example.org")
        identity.rotate()
        await until(lambda: connection.counters.value("sealbus_bus_connect_failures_total") >= 3)
        assert connection.link is kept
        await connection.request("$JS.API.INFO", b"", deadline=60.0)
        identity.ca = lab.ca
        identity.rotate()
        await until(lambda: connection.link is not kept)
        assert connection.counters.value("sealbus_bus_rotations_total") == 1


async def test_only_what_the_connection_stands_on_makes_it_new(lab: Lab) -> None:
    identity = lab.identity("a")
    async with lab.connection(identity=identity) as connection:
        link = connection.link
        identity.notify()
        identity.anchors[TrustDomain("other.org")] = (ThrowawayCa("other.org").cert_der,)
        material = identity.material
        assert material is not None
        identity.material = type(material)(
            spiffe_id=material.spiffe_id,
            chain=material.chain,
            key=material.key,
            bundles=dict(identity.anchors),
            not_before=material.not_before,
            not_after=material.not_after,
        )
        identity.notify()
        await connection.request("$JS.API.INFO", b"", deadline=60.0)
        assert connection.link is link
        identity.anchors[TrustDomain("example.org")] = (lab.ca.cert_der, ThrowawayCa("example.org").cert_der)
        identity.rotate()
        await until(lambda: connection.link is not link)


async def test_the_old_connection_is_kept_until_its_answers_have_come(lab: Lab) -> None:
    identity = lab.identity("a")
    async with lab.connection(identity=identity, overlap=0.0, settle=60.0) as connection:
        old = connection.link
        waiting = Waiting()
        token = old.replies.expect(waiting, 0).decode()
        identity.rotate()
        await until(lambda: connection.link is not old)
        # A PubAck that is late: it still arrives on the link that its publish went out on.
        for _ in range(20):
            await connection.link.flush(60.0)
        assert old.alive
        connection.link.write(f"PUB {old.replies.inbox.decode()}{token} 2\r\nok\r\n".encode())
        await until(lambda: not old.alive)
        assert waiting.payloads == [b"ok"]
        assert waiting.errors == []


async def test_what_is_sent_after_a_rotation_is_held_until_the_server_has_what_was_sent_before(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    hold, follow = Link.hold, Link.follow

    def note_hold(self: Link) -> None:
        order.append("hold")
        hold(self)

    async def note_follow(self: Link, old: Link, seconds: float) -> None:
        order.append("sent before" if not old.replies.pending else "")
        self.write(b"PUB call.b.run 1\r\n1\r\n")
        assert bytes(self._held or b"") == b"PUB call.b.run 1\r\n1\r\n"
        await follow(self, old, seconds)
        assert self._held is None
        order.append("follow")

    monkeypatch.setattr(Link, "hold", note_hold)
    monkeypatch.setattr(Link, "follow", note_follow)
    identity = lab.identity("a")
    async with lab.connection("a", identity=identity) as connection:
        heard: list[Delivery] = []
        listening = NatsTransport(connection).listen("call.b.>")
        first = asyncio.ensure_future(anext(listening))
        await until(lambda: bool(connection._attachments))
        old = connection.link
        identity.rotate()
        await until(lambda: not old.alive)
        heard += await first
        assert order == ["hold", "sent before", "follow"]
        assert [number(delivery) for delivery in heard] == [1]
        await listening.aclose()


async def test_an_answer_that_never_comes_does_not_keep_it_for_ever(lab: Lab) -> None:
    identity = lab.identity("a")
    async with lab.connection(identity=identity, settle=0.3) as connection:
        old = connection.link
        waiting = Waiting()
        old.replies.expect(waiting, 0)
        identity.rotate()
        await until(lambda: not old.alive)
        assert [error.code for error in waiting.errors] == ["bus_unavailable"]


async def test_a_server_that_is_about_to_go_is_left(lab: Lab) -> None:
    async with lab.connection() as connection:
        old = connection.link
        await old._client._ps.parse(b'INFO {"server_id":"x","ldm":true}\r\n')
        await until(lambda: connection.link is not old)
        assert connection.counters.value("sealbus_bus_rotations_total") == 1


async def test_a_pull_with_nothing_to_do_moves_as_well(lab: Lab) -> None:
    identity = lab.identity("b")
    async with lab.connection("a") as sender, lab.connection("b", identity=identity) as receiver:
        await make_stream(sender)
        load = Load(NatsTransport(sender), NatsTransport(receiver))
        puller = asyncio.ensure_future(load.pull())
        await until(lambda: bool(waiting_pulls(receiver)))
        old = receiver.link
        identity.rotate()
        await until(lambda: not old.alive)
        answers = await load.sender.publish([outgoing(1)], deadline=60.0)
        assert [answer.sequence for answer in answers if isinstance(answer, PubAck)] == [1]
        await until(lambda: load.pulled == [1])
        puller.cancel()
        await asyncio.gather(puller, return_exceptions=True)


def waiting_pulls(connection: Connection) -> list[NatsPull]:
    """Return the pulls that have asked the server for messages."""
    pulls = [one for one in connection._attachments if isinstance(one, NatsPull)]
    return [pull for pull in pulls if pull._pulls.busy(connection.link)]


class Waiting:
    """Waits for one answer of the broker."""

    def __init__(self) -> None:
        self.payloads: list[bytes] = []
        self.errors: list[BusUnavailable] = []

    def subject_of(self, index: int) -> str:
        return f"task.a.{index}"

    def answered(self, index: int, block: bytes, payload: bytes) -> None:
        del index, block
        self.payloads.append(payload)

    def failed(self, index: int, error: BusUnavailable) -> None:
        del index
        self.errors.append(error)
