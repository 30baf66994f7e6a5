"""Small policies for tests of engines: the answers stand in the data, by the action's name."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec

from sealbus.envelopes.encoding.strict_json import Json
from sealbus.envelopes.trust.keys import SigningKey
from sealbus.policies.bundle.format import Bundle, Manifest, pack_bundle, read_bundle
from sealbus.policies.decision.documents import InputDocument, checked_document
from sealbus.policies.decision.request import Caller, Request, Resource, input_document

__all__ = ["ALLOW", "DENY", "SCRIPTED", "bundle", "document", "eventually", "folder", "put", "signing_key"]

SCRIPTED = """package sealbus.authz

decision := decide(input)

batch := [decide(request) | some request in input.batch]

decide(request) := data.answers[request.action.name] if request.action.name != "fails"

decide(request) := concat("", [request.context.kind]) if request.action.name == "fails"
"""
"""Answers with what the data says; an action that it does not know is undefined, `fails` an error of a builtin, because
`document` makes a kind that is no text: nothing that a gate asks about can fail."""

ALLOW: dict[str, Json] = {"allow": True, "reasons": [], "obligations": [], "policy": "scripted"}
DENY: dict[str, Json] = {"allow": False, "reasons": ["no"], "obligations": [{"notify": "owner"}], "policy": "scripted"}


def bundle(
    answers: Mapping[str, Json] | None = None,
    *,
    revision: str = "r1",
    policy: str = SCRIPTED,
    data: Json = None,
    serial: int = 0,
) -> Bundle:
    """Return a bundle of `policy` with `answers`, or other `data`; nothing is checked."""
    document: Json = data if data is not None else {"answers": dict(answers or {"yes": ALLOW, "no": DENY})}
    assert isinstance(document, dict)
    # A central OPA takes a bundle beside the one that guards it only if it says its roots.
    manifest = Manifest(revision=revision, roots=("sealbus", *document), serial=serial)
    return read_bundle(pack_bundle({"authz.rego": policy.encode()}, document, manifest))


def document(action: str = "yes", *, properties: Mapping[str, object] | None = None) -> InputDocument:
    """Return the input document of a task of the planner for `action`."""
    made = input_document(
        Request(
            caller=Caller(
                subject="spiffe://example.org/agent/planner",
                trust_domain="example.org",
                chain=("spiffe://example.org/agent/planner",),
            ),
            action=action,
            properties=properties or {},
            resource=Resource(type="item", id="42", properties={"owner": "u-1001"}),
            time=1_795_528_800_000_000,
            nats_subject="task.inventory.update",
            kind="task",
            message_id="0" * 32,
        )
    )
    return checked_document(made.replace(b'"kind":"task"', b'"kind":1')) if action == "fails" else made


def signing_key() -> SigningKey:
    """Return a new key."""
    return SigningKey(ec.generate_private_key(ec.SECP256R1()))


def put(raw: bytes, file: Path) -> None:
    """Put bytes in the place of a bundle file by rename, whatever they are."""
    new = file.with_name(".new")
    new.write_bytes(raw)
    new.replace(file)


async def eventually(holds: Callable[[], Awaitable[bool]], *, within: float = 60.0) -> None:
    """Wait until `holds`, for what tells nobody when it happens."""
    async with asyncio.timeout(within):
        while True:
            if await holds():
                return
            await asyncio.sleep(0.01)


def folder(path: Path, files: Mapping[str, str | dict[str, Json]]) -> Path:
    """Write a policy folder; objects are written as JSON."""
    for name, content in files.items():
        file = path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content if isinstance(content, str) else json.dumps(content))
    return path
