"""Two judges that share no code with ours take our receipts, and refuse each one that is altered."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from support.log_world import entry_of
from support.receipts import ROOT, WORLD, message_ids, receipts_of

from sealbus.envelopes.export.receipt import RecordReceipt, check_receipt
from sealbus.envelopes.log.cose_receipt import sign_cose_receipt
from sealbus.envelopes.log.note import NoteSigner, keep_signatures
from sealbus.envelopes.log.receipt import encode_receipt

pytestmark = [pytest.mark.judges, pytest.mark.slow]

FOLDER = Path(__file__).parents[2]
JUDGES = FOLDER / ".tools" / "receipts"
KEY = WORLD.keys[0]
ALTERED = 10_000


def answers(judge: str, key: str, entry: bytes, receipts: list[bytes]) -> list[bool]:
    """Return which of `receipts` the judge accepts; without it skip the test, or fail it in CI."""
    if not (JUDGES / ".ready").exists():
        problem = "the judges of receipts are not there: make tools"
        if os.environ.get("CI"):
            pytest.fail(problem)
        pytest.skip(problem)
    question = {
        "judge": judge,
        "key": key,
        "origin": ROOT.origin,
        "entry": entry.hex(),
        "receipts": [receipt.hex() for receipt in receipts],
    }
    program = FOLDER / "deploy" / "tools" / "receipts" / "judge.py"
    ran = subprocess.run(
        [sys.executable, "-I", "-S", program, JUDGES],
        input=json.dumps(question),
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    answered: list[bool] = json.loads(ran.stdout)
    return answered


def altered(data: bytes) -> Iterator[bytes]:
    """Yield `data` with each bit of each byte turned, each byte left out, doubled, and set, and each cut."""
    for at, byte in enumerate(data):
        for other in sorted({byte ^ 1 << bit for bit in range(8)} | {*range(0, 256, 12)}):
            yield data[:at] + bytes([other]) + data[at + 1 :]
        yield data[:at] + data[at + 1 :]
        yield data[:at] + bytes([byte]) + data[at:]
        yield data[:at]


@pytest.mark.parametrize("judge", ["proofbundle", "scitt-cose"])
def test_ours_is_accepted_and_no_altered_one(judge: str) -> None:
    _, receipt = receipts_of(message_ids()[3])[0]
    shown = RecordReceipt.parse(receipt)
    entry, leaf = entry_of(WORLD.frames[shown.message.index]), check_receipt(receipt, ROOT).leaf
    if judge == "proofbundle":
        # As C2SP says, this judge ignores signatures by other keys, so altered ones would pass.
        log = replace(shown.log, note=keep_signatures(shown.log.note, [KEY]))
        data, key = encode_receipt(log), KEY.vkey
    else:
        signer = NoteSigner(KEY.name, KEY.private.private_bytes_raw())
        data = sign_cose_receipt(shown.log, leaf, origin=ROOT.origin, signer=signer).encode()
        public = KEY.private.public_key()
        key = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    assert answers(judge, key, entry, [data]) == [True]
    others = sorted({*altered(data)} - {data})
    assert len(others) >= ALTERED
    accepted = [other for other, taken in zip(others, answers(judge, key, entry, others), strict=True) if taken]
    assert accepted == []
