"""Make the vectors: `cd tests && python -m vectors.make` writes them beside this file, the same bytes in every run.

What each file holds, and how a case is run, is in SPEC.md section 11. The private keys in `issuing.py` are test keys.
"""

from __future__ import annotations

import json
from pathlib import Path

from vectors import (
    accepted,
    archived,
    basics,
    cases,
    control_bodies,
    cron,
    exports,
    held,
    inputs,
    log,
    parts,
    refused_credential,
    refused_form,
    refused_live,
    refused_trust,
    results,
    revocations,
    state,
    witnessed,
)
from vectors.issuing import Json

__all__ = ["FOLDER", "build"]

FOLDER = Path(__file__).parent


def build() -> dict[str, str]:
    """Return the text of every file, by name."""
    live = [*refused_form.cases(), *refused_live.cases(), *refused_credential.cases(), *refused_trust.cases()]
    files: dict[str, Json] = {
        "world.json": cases.world(),
        "codec.json": basics.codec(),
        "names.json": basics.names(),
        "crypto.json": basics.crypto(),
        "accept_live.json": [*accepted.cases()],
        "accept_result.json": [*results.accepted()],
        "accept_archive.json": [*archived.accepted()],
        "reject_live.json": [*live],
        "reject_result.json": [*results.refused()],
        "reject_archive.json": [*archived.refused()],
        "control.json": control_bodies.control_bodies(),
        "cron.json": cron.cron(),
        "log.json": log.log(),
        "parts.json": parts.parts(),
        "state.json": state.state(),
        "held.json": held.held(),
        "inputs.json": inputs.inputs(),
        "revocations.json": revocations.revocations(),
        "exports.json": exports.exports(),
        "witnesses.json": witnessed.witnesses(),
    }
    return {name: json.dumps(content, indent=1) + "\n" for name, content in files.items()}


def main() -> None:
    """Write the files."""
    for name, text in build().items():
        (FOLDER / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
