"""A run of what partners show, and of the way out, leaves no token, key or assertion where it does not belong.

So it is where everything fails.

As `test_no_secrets.py` does for the rest: every logger speaks at DEBUG, every exception in sealbus is noted, and what is in
streams, records and files is searched. Secrets are noted where they are made, or shown.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from joserfc import jwt
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from support.desk import OPERATIONS, Site, key_file, provided, site
from support.issuer import LoopbackIssuer, new_key
from support.legacy import ApiKeys, LegacyApi, OAuth
from support.oidc_provider import ES256_API, EXIT, LEGACY_API
from support.secret_search import Group, Kept, Place, Secret, search
from support.secret_sources import Secrets
from support.security_events import CLIENT_ID, EVENTS_URL, LOGOUT_URL, RECEIVER, event_token, logout_token, opaque
from support.token_site import TOKEN_ENDPOINT
from support.witness import Witness

from sealbus import Client, SealbusError
from sealbus.agents.runtime.open import open_audit_trail, open_connection, streams_of
from sealbus.agents.runtime.settings.schema import IssuerTable
from sealbus.bus.audit.trail import AuditEntry
from sealbus.bus.nats.transport import NatsTransport
from sealbus.envelopes.message.user_context import parse_payload
from sealbus.envelopes.records.work import OutcomeRecord

pytestmark = [pytest.mark.nats, pytest.mark.workload_api, pytest.mark.idp, pytest.mark.slow]

OLD_KEY, NEW_KEY = "old-key-0f6f1c0a52b84c0e", "new-key-7c7f3a1b9d2e4f60"


@dataclass
class Run:
    """What was made, and what was left."""

    secrets: Secrets = field(default_factory=Secrets)
    places: list[Place] = field(default_factory=list)
    planted: Secret | None = None
    outcomes: list[tuple[str, str]] = field(default_factory=list)
    """Actions, and the codes of their recorded outcomes."""


@pytest.fixture(scope="module")
def run() -> Run:
    import asyncio

    made, witness = Run(), Witness()
    with pytest.MonkeyPatch.context() as patch, witness.watching():
        made.secrets.watch(patch)
        _note_assertions(made, patch)
        asyncio.run(_play(made))
    made.places += witness.places()
    return made


def _note_assertions(run: Run, patch: pytest.MonkeyPatch) -> None:
    encode = jwt.encode

    def noting(*arguments: Any, **named: Any) -> str:
        token: str = encode(*arguments, **named)
        # A JWT-SVID names no issuer. It is a credential, which messages show.
        if "iss" in arguments[1]:
            run.secrets.add_token("client assertion", token)
        return token

    patch.setattr(jwt, "encode", noting)


async def _play(run: Run) -> None:
    async with (
        provided() as (provider, folder),
        LegacyApi(OAuth(issuer=provider.issuer, audience=LEGACY_API)) as modern,
        LegacyApi(ApiKeys({"old": OLD_KEY, "new": NEW_KEY})) as old,
        LoopbackIssuer() as partner,
    ):
        row = IssuerTable.model_validate(
            {
                "issuer": partner.issuer,
                "domain": "partner.example",
                "audiences": (),
                "assertion_audience": TOKEN_ENDPOINT,
                "event_audiences": (RECEIVER,),
                "logout_audiences": (CLIENT_ID,),
            }
        )
        for key in (OLD_KEY, NEW_KEY):
            run.secrets.add("API key", key)
        exit_key = key_file(folder / "exit.pem", provider.exit_key.as_pem(private=True).decode())
        shown = key_file(folder / "old.key", OLD_KEY)
        oauth = {
            "url": modern.url, "operations": OPERATIONS, "issuer": provider.issuer, "client": EXIT,
            "client_key": str(exit_key), "resource": LEGACY_API,
        }  # fmt: skip
        of_users = {**oauth, "users": [provider.issuer]}
        apis = {
            "exchanged": {**of_users, "grant": "token_exchange"},
            "asserted": {**of_users, "grant": "jwt_bearer"},
            "own": {**oauth, "grant": "client_credentials"},
            "keyed": {"url": old.url, "operations": OPERATIONS, "grant": "key", "key": str(shown)},
            # What cannot work: a server that is none, one that refuses, a service for others, nobody at all.
            "lost": {**oauth, "grant": "client_credentials", "token_endpoint": f"{modern.url}/nowhere"},
            "refused": {**of_users, "grant": "token_exchange", "resource": "https://other.example"},
            "other": {**of_users, "grant": "token_exchange", "resource": ES256_API},
            "gone": {**oauth, "grant": "client_credentials", "url": "http://127.0.0.1:1"},
        }
        async with site(folder, provider, apis, others=[row]) as running:
            alice = await provider.user_token("alice", ES256_API)
            run.secrets.add_token("user's token", alice)
            for api in ("exchanged", "asserted", "own", "keyed"):
                answer = await running.look("42", alice, api)
                assert (answer.status_code, answer.json()["status"]) == (200, 200), (api, answer.text)
            shown.write_text(NEW_KEY)
            assert (await running.look("42", alice, "keyed")).json()["status"] == 200
            assert (await running.look("42", alice, "other")).json()["status"] == 401
            for service, apis_of in ((modern, ("exchanged", "own")), (old, ("keyed",))):
                service.instead = _echo
                for api in apis_of:
                    assert (await running.look("42", alice, api)).status_code == 502
                service.instead = None
            for api in ("lost", "refused", "gone"):
                assert (await running.look("42", alice, api)).status_code == 502
            for service in (modern, old):
                for one in service.received:
                    for value in one.header("authorization"):
                        run.secrets.add_token("issued token", value)
            await _partners(run, running, partner)
            await _left(run, running, folder)


async def _partners(run: Run, running: Site, partner: LoopbackIssuer) -> None:
    """Exchange an assertion, once and twice, and report events and logouts, good and bad; nobody here publishes them."""
    header = {"typ": "authorization-grant+jwt"}
    good = partner.token(header=header, aud=TOKEN_ENDPOINT, life=60, sub="mia")
    foreign = partner.token(header=header, aud="https://other.example", life=60, sub="mia")
    async with Client("shop-web", settings=running.dev.settings) as backend:
        assert parse_payload((await backend.user_context(good, asserted=True)).payload).sub == "mia@partner.example"
        for refused in (good, foreign):
            with pytest.raises(SealbusError):
                await backend.user_context(refused, asserted=True)
    events = [event_token(partner, subject=opaque("s-1")), event_token(partner, subject=opaque("s-1"), key=new_key())]
    logouts = [logout_token(partner), logout_token(partner, nonce="x")]
    for token, status in zip(events, (503, 400), strict=True):
        answer = await running.http.post(
            EVENTS_URL, content=token, headers={"Content-Type": "application/secevent+jwt"}
        )
        assert answer.status_code == status, answer.text
    for token, status in zip(logouts, (503, 400), strict=True):
        answer = await running.http.post(LOGOUT_URL, data={"logout_token": token})
        assert answer.status_code == status, answer.text
    for name, tokens in (("assertion", (good, foreign)), ("event token", events), ("logout token", logouts)):
        for token in tokens:
            run.secrets.add_token(name, token)


async def _echo(request: Request) -> Response:
    return JSONResponse({"you": dict(request.headers)})


async def _left(run: Run, running: Site, folder: Path) -> None:
    """Read back what is stored, and plant a marker to be found."""
    settings = running.dev.settings
    async with open_connection("operator", settings) as (_, connection):
        for stream in streams_of(settings):
            found = bytearray()
            async for batch in NatsTransport(connection).read(stream.name, list(stream.subjects)):
                found += b"\n".join(one.subject.encode() + one.header_block + one.payload for one in batch)
            run.places.append(Place(Group.MESSAGES, f"stream {stream.name}", bytes(found)))
    documents: list[str] = []
    async with open_audit_trail("operator", settings) as trail:
        async for entry in trail.entries():
            assert isinstance(entry, AuditEntry)
            if isinstance(entry.record, OutcomeRecord) and entry.decision is not None:
                run.outcomes.append((entry.decision.action, str(entry.record.code or "")))
            documents += [json.dumps(entry.input), repr(entry.record)]
    run.places.append(Place(Group.RECORDS, "decoded", "\n".join(documents).encode()))
    meant = {"authority.json", "idp.json", "nats/tls/svid.key", "tokens.key"}
    for path in sorted((folder / "dev").rglob("*")):
        name = path.relative_to(folder / "dev").as_posix()
        if path.is_file() and not path.is_symlink() and name not in meant:
            group = Group.MESSAGES if name.startswith("nats/store") else Group.FILES
            run.places.append(Place(group, f"file {name}", path.read_bytes()))
    run.secrets.add("key of kept tokens", (folder / "dev" / "tokens.key").read_text().strip())
    planted = "planted-0b7a1c9e3f"
    run.planted = Secret("planted", Kept.SECRET, planted.encode())
    run.places.append(Place(Group.RECORDS, "planted", f"x {planted} y".encode()))


def test_the_run_was_whole(run: Run) -> None:
    failed = [(action, code) for action, code in run.outcomes if action.startswith("exit.") and code]
    assert failed == [
        *[(f"exit.{api}", "answer_refused") for api in ("exchanged", "own", "keyed")],
        *[(f"exit.{api}", "token_unavailable") for api in ("lost", "refused")],
        ("exit.gone", "api_unreachable"),
    ]
    wanted = {"API key", "client assertion", "user's token", "issued token", "key of kept tokens"}
    wanted |= {"assertion", "event token", "logout token"}
    assert run.secrets.kinds() >= wanted
    assert any(place.content for place in run.places if "STATE" in place.name)


def test_nothing_is_where_it_must_not_be(run: Run) -> None:
    assert search(run.secrets, run.places) == []


def test_a_planted_marker_is_found(run: Run) -> None:
    assert run.planted is not None
    assert search([run.planted], run.places) != []
