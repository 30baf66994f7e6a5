#!/usr/bin/env python3
"""Verify an export with both verifiers, tamper with copies of it, and show what each of the two finds.

    python scripts/show_tampering.py EXPORT ROOT

Fails if the original export does not verify, or if a verifier misses one of the changes.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

REPOSITORY = Path(__file__).parent.parent
SEALBUS = Path(sys.executable).parent / "sealbus"
INDEPENDENT = REPOSITORY / "tests" / "independent" / "verify_export.py"


def verifiers(folder: Path, root: Path) -> dict[str, list[str]]:
    """Return the command of each verifier."""
    return {
        "sealbus audit verify": [str(SEALBUS), "audit", "verify", str(folder), "--root", str(root)],
        "the independent one": [sys.executable, str(INDEPENDENT), str(folder), "--root", str(root)],
    }


def flipped(folder: Path) -> None:
    """Change one bit in the middle of the messages."""
    path = max((folder / "messages").iterdir(), key=lambda one: one.stat().st_size)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut_off(folder: Path) -> None:
    """Leave the last tenth of the messages out."""
    path = max((folder / "messages").iterdir(), key=lambda one: one.name)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 9 // 10])


def signed_otherwise(folder: Path) -> None:
    """Change one character of the checkpoint's signature."""
    path = folder / "checkpoint"
    text = path.read_bytes()
    place = len(text) - 10
    path.write_bytes(text[:place] + (b"A" if text[place : place + 1] != b"A" else b"B") + text[place + 1 :])


CHANGES: dict[str, Callable[[Path], None] | None] = {
    "as it was exported": None,
    "with one bit flipped": flipped,
    "with its end cut off": cut_off,
    "with another signature": signed_otherwise,
}


def main(arguments: list[str]) -> int:
    """Show each change and what was found; return 0 if every result is as expected."""
    export, root = Path(arguments[0]), Path(arguments[1])
    well = True
    for name, change in CHANGES.items():
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place) / "export"
            shutil.copytree(export, folder)
            if change is not None:
                change(folder)
            for verifier, command in verifiers(folder, root).items():
                done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603  ours
                expected = 0 if change is None else 4
                well = well and done.returncode == expected
                said = (done.stdout + done.stderr).strip().splitlines()
                verdict = "verifies" if done.returncode == 0 else "does not verify"
                mark = "ok  " if done.returncode == expected else "FAIL"
                print(f"{mark} {name}, {verifier}: {verdict}; {said[0] if said else done.returncode}")  # noqa: T201  its purpose
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
