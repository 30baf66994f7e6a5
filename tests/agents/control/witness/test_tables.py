"""The requests by which others test their witnesses, and what the specification answers to them.

The two tables follow torchwood (cmd/litewitness/testdata) and transparency-dev/witness (witness/http_test.go), with logs of
our own. Where these answer otherwise than tlog-witness of 2026-07-22 says, the row notes it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
from support.plain_log import PlainLog, body, leaf, signed
from support.witness_site import NAME, WitnessSite

from sealbus.envelopes.log.note import NoteSigner

LEAVES = [b"\x2a" + bytes([number]) + bytes(30) for number in range(8)]
"""The tree of torchwood's table has hashes of this form as leaves."""
LOG = PlainLog(NoteSigner("sigsum.example.org/v1/tree/4d6d", bytes(32)), LEAVES)
SUM = PlainLog(NoteSigner("sum.example.org", bytes([1]) * 32), [], "a sum database tree")
STRANGER = PlainLog(NoteSigner("sigsum.example.org/v1/tree/4d6e", bytes([2]) * 32), LEAVES)
LOGS = {log.origin: log.signer.verifier.text for log in (LOG, SUM)}


@dataclass(frozen=True)
class Row:
    """A request, and the status and the body of its answer; the body of 200 is a cosignature."""

    name: str
    request: bytes
    status: int
    answer: bytes = b""


LITEWITNESS = [
    Row("the first checkpoint", LOG.request(0, 1), 200),
    # One of its last bits is another, and the base64 is not canonical.
    Row("a signature that does not verify", LOG.request(1, 3, note=LOG.note(3)[:-3] + b"x=\n"), 403),
    # torchwood answers 403, as an earlier draft said.
    Row("an unknown log", STRANGER.request(1, 3), 404),
    Row("no proof", LOG.request(1, 3, path=[]), 422),
    Row("a wrong hash in the proof", LOG.request(1, 3, path=[*LOG.proof(1, 3)[:-1], bytes(32)]), 422),
    Row("three entries", LOG.request(1, 3), 200),
    Row("from an old size", LOG.request(1, 5), 409, b"3\n"),
    Row("five entries", LOG.request(3, 5), 200),
    Row("from the beginning, without a proof", LOG.request(0, 5), 409, b"5\n"),
    Row("the key has another name than the origin", body("old 0", [], SUM.note(35_225_469, leaf(0))), 200),
]

HTTP_HANDLER = [
    Row("no old size", body("10 stuff", [], LOG.note(5)), 400),
    Row("a proof that is not base64", b"old 5\nZ043\n423ed\n\n" + LOG.note(5), 400),
    # Without the empty line the first one is that before the signatures, and a signature line is no origin.
    Row("no empty line after the proof", body("old 5", [leaf(1)], LOG.note(5)).replace(b"\n\n", b"\n", 1), 404),
    Row("accepted", LOG.request(0, 5), 200),
    Row("stale", LOG.request(3, 5), 409, b"5\n"),
    Row("no valid signature", body("old 5", [], signed(LOG.text(5), STRANGER.signer)), 403),
    Row("an unknown log", STRANGER.request(0, 5), 404),
    Row("an invalid proof", LOG.request(5, 7, path=[leaf(1)]), 422),
    Row("an old size over the new", LOG.request(5, 3), 400),
    # transparency-dev/witness answered 409 without a body until July 2026.
    Row("another root of the same size", body("old 5", [], LOG.note(5, leaf(1))), 422),
    Row("the same again", LOG.request(5, 5), 200),
]


@pytest.mark.parametrize("rows", [LITEWITNESS, HTTP_HANDLER], ids=["litewitness", "http_test"])
async def test_table(rows: list[Row], tmp_path: Path) -> None:
    async with WitnessSite.open(tmp_path, LOGS) as site:
        for row in rows:
            answer = await site.add(row.request)
            assert answer.status_code == row.status, row.name
            if row.status == 200:
                assert answer.text.startswith(f"\u2014 {NAME} "), row.name
            elif row.status == 409:
                assert (answer.content, answer.headers["content-type"]) == (row.answer, "text/x.tlog.size"), row.name
            else:
                assert answer.headers["content-type"] == "application/problem+json", row.name
