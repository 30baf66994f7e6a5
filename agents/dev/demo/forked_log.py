"""A scene with two histories: a notary shows each of two parties another log under one key, and a witness finds out."""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import httpx2

from sealbus.agents.control.witness.keys import make_witness_key
from sealbus.agents.control.witness.server import open_witness
from sealbus.agents.dev.demo.people import decision_of
from sealbus.agents.dev.demo.scene import Outcome, Scene
from sealbus.agents.dev.demo.stage import Stage
from sealbus.agents.runtime.settings.settings import load_settings
from sealbus.bus.telemetry import Counters
from sealbus.envelopes.errors import Code
from sealbus.envelopes.export.latest import encode_latest
from sealbus.envelopes.log.checkpoint import Checkpoint, sign_checkpoint
from sealbus.envelopes.log.cosignature import CosignatureType, CosignatureVerifier
from sealbus.envelopes.log.note import KEY_BYTES, NoteSigner
from sealbus.envelopes.log.tree_builder import TreeBuilder
from sealbus.envelopes.log.witness_policy import WitnessPolicy, open_cosigned
from sealbus.envelopes.records.decision import DecisionRecord
from sealbus.envelopes.trust.merkle import leaf_hash

_ORIGIN: Final = "shop.example/decisions"
_SETTINGS: Final = """trust_domain = "partner.example"
nats = ["tls://nats.partner.example:4222"]
[policy]
engine = "sidecar"
[control.witness]
address = "127.0.0.1:0"
folder = "cosigned"
signing_keys = ["witness.key"]
[[control.witness.logs]]
origin = "{origin}"
keys = ["{key}"]
"""


@asynccontextmanager
async def _witness(
    folder: Path, notary: NoteSigner
) -> AsyncGenerator[tuple[httpx2.AsyncClient, CosignatureVerifier], None]:
    """Run a witness of the notary's log in another trust domain; yield a client of it, and its key."""
    key = make_witness_key(folder / "witness.key", "witness.partner.example/w1", CosignatureType.ML_DSA_44)
    (folder / "sealbus.toml").write_text(_SETTINGS.format(origin=_ORIGIN, key=notary.verifier.text), encoding="utf-8")
    settings = load_settings(folder / "sealbus.toml", environment={})
    async with (
        open_witness(settings, counters=Counters()) as server,
        httpx2.AsyncClient(base_url=f"http://127.0.0.1:{server.port}", trust_env=False) as client,
    ):
        yield client, key.verifier


def _note(decisions: Sequence[DecisionRecord], notary: NoteSigner) -> bytes:
    """Return the checkpoint of a log of `decisions`."""
    tree = TreeBuilder()
    for decision in decisions:
        tree.append(leaf_hash(decision.encode()))
    return sign_checkpoint(Checkpoint(_ORIGIN, tree.size, tree.root()), [notary])


async def _two_histories(stage: Stage) -> Outcome:
    """Have two histories of the scenes' decisions cosigned: in the second, the first denial is an approval.

    The outcome is what the witness answers to the second, and why the party that is shown it refuses it.
    """
    notary = NoteSigner(_ORIGIN, secrets.token_bytes(KEY_BYTES))
    decisions = [decision_of(entry) for entry in stage.entries if isinstance(entry.record, DecisionRecord)]
    denial = [decision.allow for decision in decisions].index(False)
    forged = decisions[denial]._replace(allow=True, code=None, reasons=())
    first, second = _note(decisions, notary), _note([*decisions[:denial], forged, *decisions[denial + 1 :]], notary)
    with tempfile.TemporaryDirectory(prefix="sealbus-witness-") as name:
        async with _witness(Path(name), notary) as (client, key):
            policy = WitnessPolicy.parse(
                f"log {notary.verifier.text}\nwitness partner {key.text}\nquorum partner\n".encode()
            )
            answer = await client.post("/add-checkpoint", content=encode_latest(0, (), first))
            shown = open_cosigned(first + answer.content, _ORIGIN, [notary.verifier], policy)
            if not policy.has_quorum(shown.cosigners):
                return Outcome(got="error", code=str(Code.NO_QUORUM))
            answer = await client.post("/add-checkpoint", content=encode_latest(len(decisions), (), second))
            lines = answer.content if answer.status_code == 200 else b""
            shown = open_cosigned(second + lines, _ORIGIN, [notary.verifier], policy)
            believed = policy.has_quorum(shown.cosigners)
        kept = [path.read_bytes() for path in sorted((Path(name) / "cosigned").glob("*.refused"))]
    if kept != [second]:
        return Outcome(got="error", code="no_proof")
    return Outcome(got=answer.status_code, code="" if believed else str(Code.NO_QUORUM))


FORKED_LOG: Final = (
    Scene(
        name="two histories of one log",
        actor="notary", attempt="a second log under its key, in which a denial is an approval, for a partner with a witness",
        expected=Outcome(got=422, code=str(Code.NO_QUORUM)), play=_two_histories,
    ),
)  # fmt: skip
