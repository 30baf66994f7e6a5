"""Judges receipts by a tool that shares no code with sealbus. It reads one question.

Run it as `python -I -S judge.py FOLDER`, with the folder of the packages. The question is JSON on standard input: `judge`
(`proofbundle` or `scitt-cose`), `key`, `origin`, `entry` in hex, and `receipts`, each in hex. The answer is a JSON array,
true for each receipt that the judge accepts.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable

__all__ = ["main"]

SIZE = -65538


def proofbundle_of(key: str, origin: str, entry: bytes) -> Callable[[bytes], bool]:
    """Return the judge of C2SP tlog-proof; `key` is a vkey."""
    from proofbundle.tlogproof import verify_tlog_proof

    def accepts(receipt: bytes) -> bool:
        try:
            text = receipt.decode()
        except UnicodeDecodeError:
            return False
        return bool(verify_tlog_proof(text, entry, key, expected_origin=origin)["ok"])

    return accepts


def scitt_cose_of(key: str, origin: str, entry: bytes) -> Callable[[bytes], bool]:
    """Return the judge of RFC 9942; `key` is a PEM. Origin and size are compared, as SPEC.md section 13 demands."""
    from scitt_cose.receipt import verify_receipt

    def accepts(receipt: bytes) -> bool:
        result = verify_receipt(receipt, leaf_entry_hex=entry.hex(), log_public_key_pem=key)
        if not result.ok:
            return False
        return result.issuer == origin and result.protected_header_ext.get(SIZE) == result.tree_size

    return accepts


def main() -> None:
    """Answer the question."""
    sys.path.insert(0, sys.argv[1])
    question = json.load(sys.stdin)
    judge = {"proofbundle": proofbundle_of, "scitt-cose": scitt_cose_of}[question["judge"]]
    accepts = judge(question["key"], question["origin"], bytes.fromhex(question["entry"]))
    json.dump([accepts(bytes.fromhex(receipt)) for receipt in question["receipts"]], sys.stdout)


if __name__ == "__main__":
    main()
