"""Generated operations on streams and consumers, done to a real nats-server and to the model: both must answer alike.

A sequence of operations follows from its seed: the settings of a stream and its consumers, and what is done to them. Time
goes in rounds. All operations of a round take place in its first quarter, and every time limit ends between the quarters of
two rounds, so that the server and the model agree on what is over, whatever their clocks say in between. A sequence that
leaves its quarter, or that runs while the server's timers are late, says nothing: it is late, counted, and thrown away.

`python -m support.jetstream_operations --operations 20000` in the folder tests, or `make model-operations`. A seed that is
printed makes its sequence again: `--seed N --sequences 1`.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import random
import sys
import tempfile
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

from nats.aio.client import Client
from nats.errors import Error
from support.plain_servers import plain_client

from sealbus.agents.dev.memory.jetstream import (
    EXPECTED_OF_SUBJECT,
    MESSAGE_ID,
    Consumer,
    ConsumerConfig,
    Delivered,
    PublishRefused,
    Stream,
    StreamConfig,
)
from sealbus.envelopes.limits import SECOND

__all__ = ["Comparison", "compare", "plan"]

ROUND: Final = 2.0
"""Seconds of a round."""
QUARTER: Final = 0.25
"""The part of a round in which its operations take place."""
BETWEEN: Final = 0.4
"""Where in a round time limits end that began at the start of a round; those that began later end until 0.65."""
TARDY: Final = 0.25
"""Seconds by which a timer of the server may be late. The server looks for old messages every 350 ms at most."""
PATIENCE: Final = 0.02
"""Seconds for which a pull request waits for more."""
ANSWER_SECONDS: Final = 30.0
AT_ONCE: Final = 48
"""Sequences that run side by side."""
LOGGED: Final = 15
"""Operations that a difference shows."""
NO_MESSAGE: Final = "404"
NO_MESSAGE_FOUND: Final = 10_037

Operation = Literal["publish", "take", "ack", "nak", "delay", "working", "term", "read", "count", "inspect"]
_WEIGHTS: Final[dict[Operation, int]] = {
    "publish": 9,
    "take": 6,
    "ack": 4,
    "nak": 2,
    "delay": 2,
    "working": 1,
    "term": 1,
    "read": 2,
    "count": 1,
    "inspect": 2,
}


class Late(Exception):
    """The sequence was too late for an operation, so that it says nothing."""


class Different(Exception):
    """The server and the model do not answer alike."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The settings of one sequence. Times are microseconds."""

    stream: StreamConfig
    consumers: tuple[ConsumerConfig, ...]
    rounds: int
    direct: bool
    """Whether the last message of a subject is read from the stream directly."""


@dataclass(slots=True)
class Comparison:
    """What was found. `differences` hold the seed, and what differs after which operations."""

    operations: Counter[str] = field(default_factory=Counter)
    sequences: int = 0
    late: int = 0
    """Sequences that were thrown away."""
    differences: list[tuple[int, str]] = field(default_factory=list)


def limit(rounds: int) -> int:
    """Return the microseconds of a time limit that ends between two rounds."""
    return int((rounds + BETWEEN) * ROUND * SECOND)


def plan(seed: int, *, replicas: int = 1) -> Plan:
    """Return the settings of the sequence of `seed`."""
    chosen = random.Random(f"plan {seed}")  # noqa: S311  it decides what is tried
    name = f"S{seed}"
    window = chosen.choice([0, 1, 2])
    # A server refuses a window that is longer than the age.
    age = chosen.choice([None, None, 2, 3])
    stream = StreamConfig(
        name=name,
        subjects=(f"{name}.>",),
        max_bytes=chosen.choice([-1, -1, 3_000, 1_200, 400]),
        max_age=0 if age is None else limit(age),
        per_subject=chosen.choice([-1, -1, 1, 1, 3]),
        discard=chosen.choice(["new", "new", "old"]),
        window=limit(window),
        replicas=replicas,
    )
    filters = [(f"{name}.>",), (f"{name}.a",), (f"{name}.a", f"{name}.b.*"), (f"{name}.b.x", f"{name}.c")]
    consumers = tuple(
        ConsumerConfig(
            name=f"c{number}",
            filters=chosen.choice(filters),
            ack_wait=limit(chosen.choice([0, 1, 2])),
            max_ack_pending=chosen.choice([2, 5, 1_000]),
            start=chosen.choice([1, 1, 1, 4]) if replicas == 1 else 1,
        )
        for number in range(chosen.choice([1, 2, 3]))
    )
    # Directly, any replica answers, and some may not have the message yet.
    direct = replicas == 1 and chosen.random() < 0.5
    return Plan(stream=stream, consumers=consumers, rounds=chosen.randrange(3, 7), direct=direct)


async def compare(
    client: Client,
    seeds: Iterable[int],
    *,
    replicas: int = 1,
    operations: int = sys.maxsize,
    at_once: int = AT_ONCE,
    on_difference: Callable[[int, str], None] = lambda seed, text: None,
) -> Comparison:
    """Compare the sequences of `seeds`, `at_once` side by side, until so many `operations` were compared."""
    comparison = Comparison()
    waiting = iter(seeds)

    async def work(watch: _Watch) -> None:
        for seed in waiting:
            sequence = _Sequence(client, watch, seed, plan(seed, replicas=replicas))
            try:
                await sequence.run()
            except Late:
                comparison.late += 1
            except Different as difference:
                comparison.differences.append((seed, str(difference)))
                on_difference(seed, str(difference))
            else:
                comparison.sequences += 1
                comparison.operations.update(sequence.done)
            if comparison.operations.total() >= operations:
                return

    async with _watching(client) as watch, asyncio.TaskGroup() as group:
        for _ in range(at_once):
            group.create_task(work(watch))
    return comparison


class _Watch:
    """Measures by a pull request that nothing answers how late the server's timers, and this process, are."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self.late = 0.0
        """The monotonic time at which something was last found to be late."""
        self._looked = asyncio.Condition()

    async def run(self) -> None:
        """Measure until it is canceled."""
        name = "WATCH"
        await _api(self._client, f"STREAM.CREATE.{name}", {"name": name, "subjects": [name]})
        config = {"durable_name": "watch", "ack_policy": "explicit"}
        await _api(self._client, f"CONSUMER.DURABLE.CREATE.{name}.watch", {"stream_name": name, "config": config})
        request = json.dumps({"batch": 1, "expires": int(PATIENCE * 1e9)}).encode()
        while True:
            began = time.monotonic()
            with suppress(TimeoutError):
                await self._client.request(f"$JS.API.CONSUMER.MSG.NEXT.{name}.watch", request, timeout=ANSWER_SECONDS)
            ended = time.monotonic()
            if ended - began - PATIENCE > TARDY:
                self.late = ended
            async with self._looked:
                self._looked.notify_all()
            await asyncio.sleep(PATIENCE)

    async def was_late(self, since: float) -> bool:
        """Return, once measured again, whether something was late after the monotonic time `since`."""
        async with self._looked:
            for _ in range(2):
                await self._looked.wait()
        return self.late > since


@asynccontextmanager
async def _watching(client: Client) -> AsyncIterator[_Watch]:
    watch = _Watch(client)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(watch.run())
        yield watch
        running.cancel()


class _Clock:
    """The rounds of one sequence: what the time is to the model, and until when the server may be asked."""

    def __init__(self) -> None:
        self._began = 0.0
        self._round = 0

    def start(self) -> None:
        """Begin the first round now."""
        self._began = time.monotonic()

    @property
    def now(self) -> int:
        """The model's time in microseconds, the same in a whole round."""
        return int(self._round * ROUND * SECOND)

    @property
    def left(self) -> float:
        """The seconds that are left for operations of this round."""
        return self._began + (self._round + QUARTER) * ROUND - time.monotonic()

    async def pass_rounds(self, rounds: int) -> None:
        """Wait for the start of a later round."""
        self._round += rounds
        await asyncio.sleep(self._began + self._round * ROUND - time.monotonic())


class _Wait(NamedTuple):
    """When a wait for an acknowledgement began and ends, and how many began before it."""

    began: int
    number: int
    due: int

    def precedes(self, other: _Wait) -> bool:
        """Return whether it certainly ends before `other`, which lasts as long as itself."""
        return self.began == other.began and self.number < other.number


class _Tried:
    """A consumer of the model, with what is known of it from the server."""

    def __init__(self, stream: Stream, config: ConsumerConfig) -> None:
        self.config = config
        self.model = Consumer(stream, config)
        self.replies: list[tuple[int, str]] = []
        """The sequence and the reply subject of each delivery."""
        self._waits: dict[int, _Wait] = {}
        self._count = 0

    def wait(self, sequence: int, now: int, length: int) -> None:
        """Note that a message is delivered again in `length` microseconds."""
        self._waits[sequence] = _Wait(now, self._count, now + length)
        self._count += 1

    def expire(self, now: int) -> int | None:
        """Queue what is overdue; return how much was queued before, if the server may queue the rest in another order.

        What the model has due at one time is due at slightly different times. The server queues it by time, or by sequence
        if its timer is late. Both are the same only if the waits began in the order of the sequences, in one round.
        """
        before = len(self.model.queued)
        self.model.expire(now)
        waits = [self._waits[sequence] for sequence in self.model.queued[before:]]
        certain = all(one.due != other.due or one.precedes(other) for one, other in pairwise(waits))
        return None if certain else before


class _Sequence:
    """One sequence of operations, done to the server and the model in turns."""

    def __init__(self, client: Client, watch: _Watch, seed: int, planned: Plan) -> None:
        self.done: Counter[str] = Counter()
        self._client = client
        self._watch = watch
        self._random = random.Random(seed)  # noqa: S311  it decides what is tried
        self._plan = planned
        self._name = planned.stream.name
        self._subjects = [f"{self._name}.{subject}" for subject in ("a", "b.x", "b.y", "c")]
        self._log: deque[str] = deque(maxlen=LOGGED)
        self._stream = Stream(planned.stream, created=0)
        self._tried = [_Tried(self._stream, config) for config in planned.consumers]
        self._clock = _Clock()
        self._published = 0
        self._inbox = client.new_inbox()

    async def run(self) -> None:
        """Do all of it. Raises `Different` or `Late`."""
        began = time.monotonic()
        self._arrived = await self._client.subscribe(self._inbox)
        try:
            await self._create()
            self._clock.start()
            for operations in self._rounds():
                for operation in operations:
                    await self._do(operation)
                await self._pass_time()
        except Different as difference:
            if await self._watch.was_late(began):
                raise Late from None
            raise Different("\n    ".join([str(difference), str(self._plan), *self._log])) from None
        except (Error, TimeoutError) as error:
            raise Late from error
        finally:
            await self._arrived.unsubscribe()
            with suppress(Error, TimeoutError):
                await _api(self._client, f"STREAM.DELETE.{self._name}", {})
        if await self._watch.was_late(began):
            raise Late

    async def _create(self) -> None:
        config = self._plan.stream
        await _api(
            self._client,
            f"STREAM.CREATE.{self._name}",
            {
                "name": self._name,
                "subjects": list(config.subjects),
                "retention": "limits",
                "storage": "file",
                "discard": config.discard,
                "max_bytes": config.max_bytes,
                "max_age": config.max_age * 1_000,
                "max_msgs_per_subject": config.per_subject,
                "duplicate_window": config.window * 1_000,
                "num_replicas": config.replicas,
                "allow_direct": self._plan.direct,
            },
        )
        for consumer in self._plan.consumers:
            await self._create_consumer(consumer)

    async def _create_consumer(self, config: ConsumerConfig) -> None:
        single = len(config.filters) == 1
        wanted = {
            "durable_name": config.name,
            "ack_policy": "explicit",
            "ack_wait": config.ack_wait * 1_000,
            "max_ack_pending": config.max_ack_pending,
            "max_deliver": -1,
            **({"filter_subject": config.filters[0]} if single else {"filter_subjects": list(config.filters)}),
            **({"deliver_policy": "by_start_sequence", "opt_start_seq": config.start} if config.start > 1 else {}),
        }
        subject = f"CONSUMER.CREATE.{self._name}.{config.name}" + (f".{config.filters[0]}" if single else "")
        await _api(self._client, subject, {"stream_name": self._name, "config": {"name": config.name, **wanted}})

    def _rounds(self) -> Iterator[Iterable[Operation]]:
        for _ in range(self._plan.rounds):
            most = self._random.randrange(4, 40)
            yield self._random.choices(list(_WEIGHTS), list(_WEIGHTS.values()), k=most)

    async def _do(self, operation: Operation) -> None:
        match operation:
            case "publish":
                await self._publish()
            case "take":
                await self._take(self._random.choice(self._tried), self._random.randrange(1, 7))
            case "read":
                await self._read(self._random.choice(self._subjects))
            case "count":
                await self._count()
            case "inspect":
                await self._inspect(self._random.choice(self._tried))
            case _:
                await self._settle(operation, self._random.choice(self._tried))

    def _check(self, operation: Operation, details: str, server: object, model: object) -> None:
        """Note what both answered; raises `Late` or `Different`."""
        self.done[operation] += 1
        self._log.append(f"{self._clock.now / SECOND:g} s, {operation} {details}: {model}")
        if self._clock.left < 0:
            raise Late
        if server != model:
            raise Different(f"{operation} {details}: the server {server}, the model {model}")

    async def _pass_time(self) -> None:
        if self._clock.left < 0:
            raise Late
        await self._clock.pass_rounds(self._random.choice([1, 1, 1, 2]))
        self._stream.expire(self._clock.now)
        for tried in self._tried:
            if (certain := tried.expire(self._clock.now)) is not None:
                await self._take(tried, len(tried.model.queued), certain=certain)

    async def _publish(self) -> None:
        subject, headers = self._random.choice(self._subjects), dict[str, str]()
        if self._random.random() < 0.5:
            headers[MESSAGE_ID] = f"m{self._random.randrange(8)}"
        if self._random.random() < 0.4:
            last = self._stream.last_of(subject)
            headers[EXPECTED_OF_SUBJECT] = str(self._random.choice([0, last, last, last, self._stream.last]))
        self._published += 1
        payload = b"%d " % self._published + bytes(self._random.choice([0, 40, 40, self._random.randrange(300)]))
        answer = await _ask(self._client, subject, payload, headers)
        block = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        raw = f"NATS/1.0\r\n{block}\r\n".encode() if headers else b""
        model: object
        try:
            model = tuple(self._stream.publish(subject, raw, payload, headers, now=self._clock.now))
        except PublishRefused as refused:
            model = (refused.code, str(refused))
        server: object = (answer.get("seq"), answer.get("duplicate", False))
        if "error" in answer:
            server = (answer["error"]["err_code"], answer["error"]["description"])
        self._check("publish", f"{subject} {headers} {_text(payload)}", server, model)

    async def _take(self, tried: _Tried, most: int, *, certain: int | None = None) -> None:
        """Take deliveries; after the first `certain` ones their order is not compared."""
        if self._plan.stream.replicas > 1:
            # The consumer's leader may be behind the stream's, which has acknowledged what was published.
            await self._counted(tried)
        expected = tried.model.take(most, now=self._clock.now)
        model = [(one.message.sequence, one.count, one.message.payload) for one in expected]
        server = list[tuple[int, int, bytes]]()
        # The consumer may not know yet of what was published.
        while True:
            server += await self._pull(tried, most - len(server))
            if len(server) >= len(model) or self._clock.left < 0:
                break
        self._note(tried, expected, [sequence for sequence, _, _ in server])
        if certain is not None:
            server[certain:], model[certain:] = sorted(server[certain:]), sorted(model[certain:])
        self._check("take", f"{tried.config.name} {most}", _short(server), _short(model))

    def _note(self, tried: _Tried, expected: Sequence[Delivered], order: Sequence[int]) -> None:
        for sequence in order if len(order) == len(expected) else ():
            tried.wait(sequence, self._clock.now, tried.config.ack_wait)

    async def _pull(self, tried: _Tried, most: int) -> list[tuple[int, int, bytes]]:
        request = {"batch": most, "no_wait": True, "expires": int(PATIENCE * 1e9)}
        subject = f"$JS.API.CONSUMER.MSG.NEXT.{self._name}.{tried.config.name}"
        await self._client.publish(subject, json.dumps(request).encode(), reply=self._inbox)
        taken = list[tuple[int, int, bytes]]()
        while len(taken) < most:
            message = await self._arrived.next_msg(timeout=ANSWER_SECONDS)
            if not message.reply:
                break
            # $JS.ACK.<stream>.<consumer>.<delivered>.<stream sequence>.<consumer sequence>.<time>.<pending>
            count, sequence = map(int, message.reply.split(".")[4:6])
            taken.append((sequence, count, message.data))
            tried.replies.append((sequence, message.reply))
        return taken

    async def _settle(self, operation: Operation, tried: _Tried) -> None:
        if not tried.replies:
            return
        # The newest are more often pending.
        sequence, reply = self._random.choice(tried.replies[-self._random.choice([3, 10, 1_000]) :])
        delay, now, model = limit(self._random.choice([0, 1, 2])), self._clock.now, tried.model
        words = {"ack": b"+ACK", "nak": b"-NAK", "working": b"+WPI", "term": b"+TERM"}
        word = words.get(operation, b'-NAK {"delay": %d}' % (delay * 1_000))
        await self._client.request(reply, word, timeout=ANSWER_SECONDS)
        match operation:
            case "nak":
                model.nak(sequence, now=now)
            case "delay":
                model.nak(sequence, delay=delay, now=now)
                tried.wait(sequence, now, delay)
            case "working":
                model.working(sequence, now=now)
                tried.wait(sequence, now, tried.config.ack_wait)
            case _:
                model.ack(sequence)
        self._check(operation, f"{tried.config.name} {sequence} {word.decode()}", None, None)

    async def _read(self, subject: str) -> None:
        stored = self._stream.get(self._stream.last_of(subject))
        model = (stored.sequence, stored.subject, _text(stored.payload)) if stored else None
        read = self._read_directly if self._plan.direct else self._read_from_leader
        self._check("read", subject, await read(subject), model)

    async def _read_directly(self, subject: str) -> tuple[int, str, str] | None:
        answer = await self._client.request(f"$JS.API.DIRECT.GET.{self._name}.{subject}", b"", timeout=ANSWER_SECONDS)
        headers = answer.headers or {}
        if headers.get("Status") == NO_MESSAGE:
            return None
        return int(headers["Nats-Sequence"]), headers["Nats-Subject"], _text(answer.data)

    async def _read_from_leader(self, subject: str) -> tuple[int, str, str] | None:
        request = json.dumps({"last_by_subj": subject}).encode()
        answer = await _ask(self._client, f"$JS.API.STREAM.MSG.GET.{self._name}", request)
        if "error" in answer and answer["error"]["err_code"] == NO_MESSAGE_FOUND:
            return None
        message = answer["message"]
        return message["seq"], message["subject"], _text(base64.b64decode(message.get("data", "")))

    async def _count(self) -> None:
        stream = self._stream
        model = (len(stream), stream.bytes, stream.last, stream.first() if len(stream) else None)
        while True:
            state = (await _api(self._client, f"STREAM.INFO.{self._name}", {}))["state"]
            first = state["first_seq"] if state["messages"] else None
            server = (state["messages"], state["bytes"], state["last_seq"], first)
            if server == model or self._clock.left < PATIENCE:
                break
            await asyncio.sleep(PATIENCE / 5)
        self._check("count", "", server, model)

    async def _inspect(self, tried: _Tried) -> None:
        self._check("inspect", tried.config.name, *await self._counted(tried))

    async def _counted(self, tried: _Tried) -> tuple[object, object]:
        """Return what the server and the model count of a consumer, once both count alike or time is over.

        The server counts a message that is stored or removed a little later. Its floor may be lower than it could be, and is
        never above a message that is not acknowledged.
        """
        # A consumer that starts later counts what is stored below its start, until it has delivered all there is.
        counted = tried.config.start == 1
        model = (tried.model.undelivered if counted else None, tried.model.pending, True)
        while True:
            info = await _api(self._client, f"CONSUMER.INFO.{self._name}.{tried.config.name}", {})
            is_below = info["ack_floor"]["stream_seq"] <= tried.model.floor
            server = (info["num_pending"] if counted else None, info["num_ack_pending"], is_below)
            if server == model or self._clock.left < PATIENCE:
                return server, model
            await asyncio.sleep(PATIENCE / 5)


async def _ask(client: Client, subject: str, payload: bytes, headers: dict[str, str] | None = None) -> dict[str, Any]:
    answer = await client.request(subject, payload, timeout=ANSWER_SECONDS, headers=headers or None)
    parsed: dict[str, Any] = json.loads(answer.data)
    return parsed


async def _api(client: Client, subject: str, body: dict[str, object]) -> dict[str, Any]:
    answer = await _ask(client, f"$JS.API.{subject}", json.dumps(body).encode())
    if "error" in answer:
        raise RuntimeError(f"{subject}: {answer['error']}")
    return answer


def _text(payload: bytes) -> str:
    """Return the number that a payload begins with, and its length."""
    return f"{payload.split(b' ')[0].decode()}/{len(payload)}"


def _short(taken: Iterable[tuple[int, int, bytes]]) -> list[tuple[int, int, str]]:
    return [(sequence, count, _text(payload)) for sequence, count, payload in taken]


async def _run(given: argparse.Namespace) -> Comparison:
    with tempfile.TemporaryDirectory(prefix="operations-") as folder:
        async with plain_client(Path(folder), servers=given.replicas) as client:
            return await compare(
                client,
                range(given.seed, given.seed + given.sequences),
                replicas=given.replicas,
                operations=given.operations,
                at_once=given.at_once,
                on_difference=lambda seed, text: _say(f"seed {seed}: {text}"),
            )


def main(arguments: Sequence[str]) -> int:
    """Compare and print what was found; 1 where anything differs."""
    parser = argparse.ArgumentParser(prog="jetstream_operations", description=__doc__)
    parser.add_argument("--operations", type=int, default=20_000, help="how many to compare")
    parser.add_argument("--seed", type=int, default=0, help="the first seed")
    parser.add_argument("--sequences", type=int, default=1_000_000, help="how many at most")
    parser.add_argument("--replicas", type=int, default=1, choices=(1, 3), help="of each stream; 3 starts a cluster")
    parser.add_argument("--at-once", type=int, default=AT_ONCE, help="sequences side by side")
    given = parser.parse_args(arguments)
    began = time.monotonic()
    comparison = asyncio.run(_run(given))
    _say(f"{time.monotonic() - began:.0f} s, seeds from {given.seed} on, replicas {given.replicas}")
    _say(f"operations {comparison.operations.total()}: {dict(comparison.operations.most_common())}")
    _say(f"sequences {comparison.sequences}, late and thrown away {comparison.late}")
    _say(f"differences {len(comparison.differences)}")
    return 1 if comparison.differences else 0


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
