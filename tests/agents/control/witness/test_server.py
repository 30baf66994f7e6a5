"""The witness on a socket: cosignatures, the checkpoint for monitors, what is too large or slow, and two at once."""

from __future__ import annotations

import asyncio
import os
from hashlib import sha256
from pathlib import Path

import pytest
from support.plain_log import PlainLog, leaf
from support.settings import SMALLEST, load
from support.witness_site import NAME, WitnessSite, settings_text, witness_keys

from sealbus.agents.control.witness import server
from sealbus.agents.control.witness.server import open_witness
from sealbus.agents.control.witness.submission import SUBMISSION_BYTES
from sealbus.bus.clocks import wall_clock
from sealbus.bus.telemetry import Counters
from sealbus.envelopes.errors import ConfigurationError
from sealbus.envelopes.log.checkpoint import Checkpoint, sign_checkpoint
from sealbus.envelopes.log.cosignature import verify_cosignatures
from sealbus.envelopes.log.note import NoteSigner, parse_note, verify_note
from sealbus.envelopes.log.tree_builder import TreeBuilder

SEALBUS = NoteSigner("log.example.org/audit", bytes(32))
PLAIN = PlainLog(NoteSigner("sum.example.com", bytes([1]) * 32), [leaf(n) for n in range(30)], "a plain log")
LOGS = {SEALBUS.verifier.name: SEALBUS.verifier.text, PLAIN.origin: PLAIN.signer.verifier.text}
HASH = sha256(PLAIN.origin.encode()).hexdigest()


async def test_a_log_of_sealbus_and_a_plain_log(tmp_path: Path) -> None:
    tree = TreeBuilder()
    for number in range(7):
        tree.append(leaf(number))
    ours = sign_checkpoint(Checkpoint(SEALBUS.verifier.name, 7, tree.root()), [SEALBUS])
    async with WitnessSite.open(tmp_path, LOGS) as site:
        verifiers = [signer.verifier for signer in witness_keys(tmp_path)]
        for request, note in ((b"old 0\n\n" + ours, ours), (PLAIN.request(0, 9), PLAIN.note(9))):
            before = wall_clock() // 1_000_000
            answer = await site.add(request)
            assert (answer.status_code, answer.headers["content-type"]) == (200, "text/plain; charset=utf-8")
            assert all(line.startswith(f"\u2014 {NAME} ") for line in answer.text.splitlines())
            times = verify_cosignatures(parse_note(note + answer.content), verifiers)
            assert list(times) == verifiers
            assert all(before <= time <= wall_clock() // 1_000_000 for time in times.values())
        answer = await site.add(PLAIN.request(9, 30))
        assert answer.status_code == 200
        text = site.counters.render()
        assert 'sealbus_witness_answers_total{origin="a plain log",status="200"} 2' in text
        assert 'sealbus_witness_cosigned_entries{origin="a plain log"} 30' in text
        assert f'sealbus_witness_cosigned_entries{{origin="{SEALBUS.verifier.name}"}} 7' in text


async def test_monitors_get_the_last_checkpoint_with_the_signatures_of_both(tmp_path: Path) -> None:
    async with WitnessSite.open(tmp_path, LOGS) as site:
        url = f"/{HASH}/checkpoint"
        assert (await site.client.get(url)).status_code == 404
        cosigned = await site.add(PLAIN.request(0, 9))
        answer = await site.client.get(url)
        assert (answer.status_code, answer.headers["content-type"]) == (200, "text/plain; charset=utf-8")
        assert answer.content == PLAIN.note(9) + cosigned.content
        assert verify_note(answer.content, [PLAIN.signer.verifier]).text == PLAIN.text(9)
        assert (await site.add(PLAIN.request(8, 30))).status_code == 409
        assert (await site.client.get(url)).content == answer.content
        for other in (HASH.upper(), HASH[:-1], sha256(b"another").hexdigest()):
            assert (await site.client.get(f"/{other}/checkpoint")).status_code == 404
        assert (await site.client.post(url)).status_code == 405
        assert (await site.client.get("/add-checkpoint")).status_code == 405
    async with WitnessSite.open(tmp_path, LOGS) as site:
        assert (await site.client.get(url)).content == answer.content, "it remembers"
        assert (await site.add(PLAIN.request(0, 30))).text == "9\n"


async def test_what_is_huge_or_slow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "BODY_SECONDS", 0.05)
    async with WitnessSite.open(tmp_path, LOGS) as site:
        assert (await site.add(bytes(SUBMISSION_BYTES + 1))).status_code == 413
        assert (await site.add(bytes(SUBMISSION_BYTES))).status_code == 400

        async def endless() -> bytes:
            reader, writer = await asyncio.open_connection("127.0.0.1", site.server.port)
            writer.write(b"POST /add-checkpoint HTTP/1.1\r\nhost: w\r\ncontent-length: 99\r\n\r\nold ")
            answer = await reader.read()
            writer.close()
            return answer

        assert (await endless()).startswith(b"HTTP/1.1 408 ")
        assert (await site.add(PLAIN.request(0, 9))).status_code == 200


async def test_of_many_at_once_one_is_cosigned(tmp_path: Path) -> None:
    """All come from the same size: after the first the others are told the new one."""
    async with WitnessSite.open(tmp_path, LOGS) as site:
        await site.add(PLAIN.request(0, 9))
        answers = await asyncio.gather(*(site.add(PLAIN.request(9, size)) for size in range(10, 26)))
        cosigned = [size for size, answer in zip(range(10, 26), answers, strict=True) if answer.status_code == 200]
        assert len(cosigned) == 1
        assert {answer.text for answer in answers if answer.status_code != 200} == {f"{cosigned[0]}\n"}


async def test_what_cannot_be_kept_is_not_cosigned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with WitnessSite.open(tmp_path, LOGS) as site:
        await site.add(PLAIN.request(0, 9))
        with monkeypatch.context() as broken:

            def full(descriptor: int) -> None:
                raise OSError(28, "No space left on device")

            broken.setattr(os, "fsync", full)
            answer = await site.add(PLAIN.request(9, 12))
            assert (answer.status_code, answer.json()["code"]) == (503, "state_unavailable")
            assert "No space left" in site.server.problem
        assert (await site.add(PLAIN.request(9, 30))).status_code == 200
        assert site.server.problem == ""


async def test_a_rate_for_each_address(tmp_path: Path) -> None:
    async with WitnessSite.open(tmp_path, LOGS, rate=1) as site:
        answers = [await site.client.get(f"/{HASH}/checkpoint") for _ in range(5)]
        assert [answer.status_code for answer in answers[:2]] == [404, 404]
        assert 429 in [answer.status_code for answer in answers]


async def test_what_its_settings_lack(tmp_path: Path) -> None:
    witness_keys(tmp_path)
    text = settings_text(LOGS)
    for other, problem in (
        (SMALLEST, r"control\.witness\.folder is not set"),
        (settings_text({}), r"control\.witness\.logs is not set"),
        (text.replace(PLAIN.origin, SEALBUS.verifier.name), "one origin is listed twice"),
        (text.replace("+A", "+B"), "the key's type"),
        (
            text.replace('signing_keys = ["ED25519.key", "ML_DSA_44.key"]', ""),
            r"control\.witness\.signing_keys is not set",
        ),
        (text.replace("ML_DSA_44.key", "ED25519.key"), "one key is listed twice"),
        (text.replace("ML_DSA_44.key", "absent.key"), "absent.key cannot be read"),
        (text.replace("127.0.0.1:0", "0.0.0.0:0"), "certificate"),
    ):
        with pytest.raises(ConfigurationError, match=problem):
            async with open_witness(load(tmp_path, other), counters=Counters()):
                pass
