"""A log whose notary asks witnesses: what they cosign, what they do not, and that the log goes on either way."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from support.notary import ORIGIN, SIGNER, Bench, own_records
from support.witness_site import WitnessSite, witness_keys

from sealbus.agents.control.notary import cosigning
from sealbus.agents.control.notary.cosigning import ANSWER_BYTES, load_policy
from sealbus.agents.control.notary.log.folder_store import CHECKPOINT, COSIGNED
from sealbus.agents.control.notary.notary import NotaryOptions
from sealbus.envelopes.errors import ConfigurationError
from sealbus.envelopes.log.checkpoint import SignedCheckpoint
from sealbus.envelopes.log.note import NoteSigner, base64_text, parse_note
from sealbus.envelopes.log.witness_policy import WitnessPolicy, open_cosigned
from sealbus.envelopes.records.notary import CheckpointRecord

LOGS = {ORIGIN: SIGNER.verifier.text}
QUORUM = "group both all w1 w2\nquorum both\n"


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cosigning, "WITHIN", 0.2)
    monkeypatch.setattr(cosigning, "LATEST", 0.4)
    monkeypatch.setattr(cosigning, "AGAIN", 0.2)


def policy_text(folder: Path, url: str, rest: str = QUORUM) -> str:
    """Return a policy of the two keys of the witness in `folder`, each as a witness of its own at `url`."""
    first, second = [signer.verifier.text for signer in witness_keys(folder)]
    return f"log {SIGNER.verifier.text}\nwitness w1 {first} {url}\nwitness w2 {second} {url}\n{rest}"


def options(bench: Bench, text: str) -> NotaryOptions:
    return replace(bench.options(), witnesses=WitnessPolicy.parse(text.encode()))


def cosigned(bench: Bench, text: str, name: str = COSIGNED) -> SignedCheckpoint | None:
    """Return a checkpoint of the log's folder with its cosignatures."""
    path = bench.folder / name
    if not path.exists():
        return None
    return open_cosigned(path.read_bytes(), ORIGIN, [SIGNER.verifier], WitnessPolicy.parse(text.encode()))


def covers(bench: Bench, text: str) -> Callable[[], bool]:
    """Return whether the published checkpoint has the quorum, which is stored as the last with one before."""

    def holds() -> bool:
        last, published = cosigned(bench, text), cosigned(bench, text, CHECKPOINT)
        return last is not None and last == published and last.cosigners == ("w1", "w2")

    return holds


async def test_each_checkpoint_is_cosigned_and_a_log_goes_on_from_one(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "log")
    async with WitnessSite.open(tmp_path, LOGS) as site:
        text = policy_text(tmp_path, f"http://127.0.0.1:{site.server.port}")
        for count in (3, 600):
            bench.record(count)
            async with bench.running(options=options(bench, text)) as notary:
                await bench.sealed(bench.stored())
                await bench.until(covers(bench, text))
                await bench.until(lambda: "quorum" not in notary.note)
    published = [
        one.note for one in own_records(bench.broker.streams["AUDIT"].stored) if isinstance(one, CheckpointRecord)
    ]
    assert published
    assert all(len(parse_note(note).signatures) == 1 for note in published)
    assert len(published) == len(set(published))


async def test_without_witnesses_the_log_goes_on_and_says_so(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "log")
    async with WitnessSite.open(tmp_path, LOGS) as site:
        port = site.server.port
    text = policy_text(tmp_path, f"http://127.0.0.1:{port}")
    async with bench.running(options=options(bench, text)) as notary:
        bench.record(3)
        await bench.sealed(3)
        await bench.until(lambda: "quorum of witnesses" in notary.note)
        assert not (bench.folder / COSIGNED).exists()
        assert len(parse_note((bench.folder / CHECKPOINT).read_bytes()).signatures) == 1
        bench.record(2)
        await bench.sealed(5)


async def test_one_of_two_is_published_and_is_no_quorum(tmp_path: Path) -> None:
    bench, other = Bench(tmp_path / "log"), tmp_path / "other"
    other.mkdir()
    async with WitnessSite.open(tmp_path, LOGS) as site:
        first, _ = policy_text(tmp_path, f"http://127.0.0.1:{site.server.port}", "").split("witness w2")
        away = policy_text(other, "http://127.0.0.1:1", QUORUM).partition("witness w2")[2]
        text = f"{first}witness w2{away}"
        async with bench.running(options=options(bench, text)) as notary:
            bench.record(3)

            def published() -> bool:
                last = cosigned(bench, text, CHECKPOINT)
                return last is not None and last.cosigners == ("w1",) and last.checkpoint.size > 3

            await bench.until(published)
            await bench.until(lambda: "quorum of witnesses" in notary.note)
            assert not (bench.folder / COSIGNED).exists()


async def test_a_second_history_is_not_cosigned(tmp_path: Path) -> None:
    """Two notaries with one key show two logs of one name: whoever shows one without the quorum is caught at once."""
    one, two = Bench(tmp_path / "one"), Bench(tmp_path / "two")
    async with WitnessSite.open(tmp_path, LOGS) as site:
        text = policy_text(tmp_path, f"http://127.0.0.1:{site.server.port}")
        one.record(5)
        async with one.running(options=options(one, text)):
            await one.until(covers(one, text))
        two.record(50)
        async with two.running(options=options(two, text)) as notary:
            await two.sealed(50)
            await two.until(lambda: "quorum of witnesses" in notary.note)
            await two.until(lambda: 'status="422"' in site.counters.render())
        assert not (two.folder / COSIGNED).exists()


@asynccontextmanager
async def answering(answer: Callable[[bytes], bytes | None], heads: list[bytes] | None = None) -> AsyncIterator[str]:
    """Answer each request with what `answer` makes of its body, or never; note its head in `heads`."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            if heads is not None:
                heads.append(head)
            length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
            said = answer(await reader.readexactly(length))
            if said is None:
                await reader.read()
            else:
                writer.write(said)
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


def http(status: int, body: bytes) -> bytes:
    return b"HTTP/1.1 %d X\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%b" % (status, len(body), body)


BAD: dict[str, Callable[[bytes], bytes | None]] = {
    "never": lambda _: None,
    "an end": lambda _: b"",
    "no HTTP": lambda _: b"garbage\r\n\r\n",
    "a redirect": lambda _: b"HTTP/1.1 307 X\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n",
    "nothing": lambda _: http(200, b""),
    "bytes": lambda _: http(200, b"\xff\n"),
    "the note again": lambda body: http(200, body.partition(b"\n\n")[2]),
    "too much": lambda _: http(200, bytes(ANSWER_BYTES + 1)),
    "an unknown log": lambda _: http(404, b""),
    "a later size": lambda _: http(409, b"99999\n"),
    "a size that is none": lambda _: http(409, b"-1\n"),
    "a long size": lambda _: http(409, b"1" * 30),
    "another size each time": lambda body: http(409, b"1\n" if body.startswith(b"old 0\n") else b"0\n"),
    "a fork": lambda _: http(422, b""),
}


def by_both(folder: Path, note: bytes) -> bytes:
    """Return the lines by which the keys of the witness in `folder` cosign `note`."""
    text = parse_note(note).text.encode()
    return "".join(signer.cosign(text, 1_790_000_000) for signer in witness_keys(folder)).encode()


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("name", ["the log's line", "a line in the log's name", "many lines", "another note"])
async def test_what_a_witness_answers_beside_its_line_does_not_spoil_the_log(
    tmp_path: Path, name: str, first: bool
) -> None:
    bench = Bench(tmp_path / "log")

    def answer(body: bytes) -> bytes:
        note = body.partition(b"\n\n")[2]
        own = note.partition(b"\n\n")[2]
        wrong = base64_text(SIGNER.verifier.key_id + bytes(64))
        garbage = f"\u2014 {SIGNER.verifier.name} {wrong}\n".encode()
        beside = {
            "the log's line": own,
            "a line in the log's name": garbage,
            "many lines": garbage * 40,
            "another note": note,
        }
        lines = [beside.get(name, note), by_both(tmp_path, note)]
        return http(200, b"".join(lines if first else reversed(lines)))

    async with answering(answer) as url:
        text = policy_text(tmp_path, url)
        for _ in range(2):
            # The second time it goes on from what the first has left.
            async with bench.running(options=options(bench, text)):
                bench.record(2)
                await bench.sealed(bench.stored())
                if name != "another note":
                    await bench.until(covers(bench, text))
    note = (bench.folder / CHECKPOINT).read_bytes()
    open_cosigned(note, ORIGIN, [SIGNER.verifier], WitnessPolicy.parse(text.encode()))


async def test_an_error_of_tls_does_not_end_the_notary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def post(*_: object) -> tuple[int, bytes]:
        raise ssl.SSLError("a bad record")

    monkeypatch.setattr(cosigning, "_post", post)
    bench = Bench(tmp_path / "log")
    async with bench.running(options=options(bench, policy_text(tmp_path, "https://w.example"))) as notary:
        bench.record(2)
        await bench.sealed(2)
        await bench.until(lambda: "quorum of witnesses" in notary.note)
        bench.record(2)
        await bench.sealed(4)


async def test_no_cookie_of_a_witness_is_sent(tmp_path: Path) -> None:
    bench, heads = Bench(tmp_path / "log"), list[bytes]()

    def answer(body: bytes) -> bytes:
        lines = by_both(tmp_path, body.partition(b"\n\n")[2])
        return http(200, lines).replace(b"connection: close", b"set-cookie: a=b\r\nconnection: close")

    async with answering(answer, heads) as url:
        text = policy_text(tmp_path, url)
        async with bench.running(options=options(bench, text)):
            for count in (2, 4):
                bench.record(2)
                await bench.sealed(count)
                await bench.until(covers(bench, text))
    assert len(heads) >= 4
    assert not any(b"cookie" in head.lower() for head in heads)


async def test_a_quorum_that_comes_later_is_published_too(tmp_path: Path) -> None:
    """One witness answers at first, and the other where it is asked again; then the first does not."""
    bench, other, asked = Bench(tmp_path / "log"), tmp_path / "other", list[bytes]()
    other.mkdir()

    def early(body: bytes) -> bytes:
        asked.append(body)
        return http(200, by_both(tmp_path, body.partition(b"\n\n")[2])) if len(asked) < 2 else http(503, b"")

    def late(body: bytes) -> bytes:
        return http(200, by_both(other, body.partition(b"\n\n")[2])) if len(asked) > 2 else http(503, b"")

    async with answering(early) as first, answering(late) as second:
        begin = policy_text(tmp_path, first, "").partition("witness w2")[0]
        text = f"{begin}witness w2{policy_text(other, second).partition('witness w2')[2]}"
        async with bench.running(options=options(bench, text)):
            await bench.until(covers(bench, text))
            last = cosigned(bench, text, CHECKPOINT)
            assert last is not None
            assert last.cosigners == ("w1", "w2")


async def test_a_wrong_size_is_not_believed_for_ever(tmp_path: Path) -> None:
    bench, asked = Bench(tmp_path / "log"), list[bytes]()

    def answer(body: bytes) -> bytes:
        asked.append(body)
        return http(409, b"99999\n") if len(asked) < 5 else http(200, by_both(tmp_path, body.partition(b"\n\n")[2]))

    async with answering(answer) as url:
        text = policy_text(tmp_path, url)
        async with bench.running(options=options(bench, text)):
            await bench.until(covers(bench, text))


@pytest.mark.parametrize("name", BAD)
async def test_a_witness_that_lies_holds_nothing_up(tmp_path: Path, name: str) -> None:
    bench = Bench(tmp_path / "log")
    async with answering(BAD[name]) as url:
        text = policy_text(tmp_path, url)
        async with bench.running(options=options(bench, text)) as notary:
            bench.record(2)
            await bench.sealed(2)
            await bench.until(lambda: "quorum of witnesses" in notary.note)
            assert not (bench.folder / COSIGNED).exists()
            assert len(parse_note((bench.folder / CHECKPOINT).read_bytes()).signatures) == 1


async def test_a_line_by_another_key_or_over_another_log_does_not_count(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "log")
    first, second = witness_keys(tmp_path)

    def forged(body: bytes) -> bytes:
        note = body.partition(b"\n\n")[2]
        text = parse_note(note).text
        other = text.replace("log.example", "lag.example").encode()
        return http(200, "".join(signer.cosign(other, 1_790_000_000) for signer in (first, second)).encode())

    async with answering(forged) as url:
        text = policy_text(tmp_path, url)
        async with bench.running(options=options(bench, text)) as notary:
            bench.record(2)
            await bench.sealed(2)
            await bench.until(lambda: "quorum of witnesses" in notary.note)
            assert len(parse_note((bench.folder / CHECKPOINT).read_bytes()).signatures) == 1


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda text: text.replace("quorum both\n", ""), "no quorum"),
        (
            lambda text: text.replace(SIGNER.verifier.text, NoteSigner(ORIGIN, bytes(32)).verifier.text),
            "logs of policy",
        ),
        (lambda text: text.replace("https://w.example", "http://w.example"), "w1 is not https"),
        (lambda text: text.replace("https://w.example", "ftp://w.example"), "w1 is not https"),
        (lambda text: text.replace("https://w.example", "https:///"), "w1 is not https"),
        (lambda text: text.replace("https://w.example", "https://w.example:99999"), "w1 is not https"),
        (lambda text: text.replace("https://w.example", "https://[w"), "w1 is not https"),
        (lambda text: text.replace("https://w.example", "https://a:b@w.example"), "w1 is not https"),
        (lambda text: text.replace("https://w.example/", "https://w.example/?a"), "w1 is not https"),
        (lambda text: text.replace("https://w.example/", "https://w.example/#a"), "w1 is not https"),
        (lambda text: text.replace(" https://w.example/", ""), "no quorum"),
    ],
)
def test_a_policy_that_cannot_be(tmp_path: Path, change: Callable[[str], str], says: str) -> None:
    path, text = tmp_path / "policy", policy_text(tmp_path, "https://w.example/")
    path.write_text(text)
    keys = (SIGNER.verifier,)
    assert load_policy(path, ORIGIN, keys) == WitnessPolicy.parse(text.encode())
    path.write_text(policy_text(tmp_path, "http://localhost:1/") if not says else change(text))
    with pytest.raises(ConfigurationError, match=says):
        load_policy(path, ORIGIN, keys)
    with pytest.raises(ConfigurationError, match="No such file"):
        load_policy(tmp_path / "none", ORIGIN, keys)
