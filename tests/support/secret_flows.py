"""What users, clients, backends and attackers do with secrets: logins, tokens in wrong places, calls that fail."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import re
import sys
from collections.abc import Awaitable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import httpx2
from support.backstage import in_development
from support.dpop import Holder
from support.idp import Browser, Pkce
from support.loose_agent import Told, Wanted
from support.secret_search import Group, Kept, Place
from support.secret_sources import Secrets
from support.witness import as_a_browser

from sealbus.agents.cli.main import EXIT_DENIED
from sealbus.agents.dev.demo.stage import STRANGER, Stage
from sealbus.agents.dev.idp.access import ScriptAccess, fetch_token, read_access
from sealbus.agents.examples.inventory import Update
from sealbus.agents.sdk.token_exchange import TokenExchange
from sealbus.envelopes.errors import ConfigurationError, SealbusError

__all__ = ["at_the_door", "at_the_other_doors", "backends", "commands", "log_ins", "on_the_bus"]

_SEALBUS = str(Path(sys.executable).parent / "sealbus")
_FORM = {"Content-Type": "application/x-www-form-urlencoded"}
_JSON = {"Content-Type": "application/json"}
_FREE: Mapping[str, str] = MappingProxyType({})
_SCRIPTS = "urn:x-sealbus:development-only:user"


async def log_ins(stage: Stage, secrets: Secrets) -> str:
    """Log in with a browser and with a device, rightly and wrongly; return an access token that works."""
    idp = in_development(stage).environment.idp
    pkce, other = Pkce(), Pkce()
    secrets.add("PKCE verifier", pkce.verifier)
    secrets.add("PKCE verifier", other.verifier)
    with as_a_browser():
        async with httpx2.AsyncClient(trust_env=False, timeout=60, follow_redirects=False) as http:
            browser = Browser(idp, http)
            code = await browser.code(pkce)
            given = (await browser.exchange(code, pkce)).json()
            assert (await browser.exchange(code, pkce)).status_code == 400
            assert (await browser.exchange(await browser.code(pkce), other)).status_code == 400
            # In the query, twice, with a client that has none, and in what is no form: where codes are logged by mistake.
            code = await browser.code(pkce)
            assert (await browser.get("token", code=code, code_verifier=pkce.verifier)).status_code == 405
            twice = await http.post(f"{idp.issuer}/token", content=f"code={code}&code={code}", headers=_FORM)
            assert twice.status_code == 400
            assert (await browser.post("token", code=code, client_secret=pkce.verifier)).status_code == 400
            assert (await http.post(f"{idp.issuer}/token", json={"code": code})).status_code == 400
            page = await browser.page(browser.asked(pkce))
            assert (await browser.post("authorize", request=page, deny="yes")).status_code == 303
            assert (await browser.post("authorize", request=page, user="alice")).status_code == 400
            assert (await browser.post("authorize", {"Origin": "http://evil.example"}, request=page)).status_code == 400

            device = (await browser.post("device_authorization", client_id="shop-web", scope="openid")).json()
            assert (await browser.poll(device["device_code"])).status_code == 400
            shown = await browser.get("device", user_code=device["user_code"])
            assert shown.status_code == 200
            assert (await browser.post("device", user_code=device["user_code"], user="alice")).status_code == 200
            assert (await browser.poll(device["device_code"], client_id="sealbus-cli")).status_code == 400
            assert (await browser.poll(device["device_code"])).status_code == 200
            assert (await browser.poll(device["device_code"])).status_code == 400
            basic = base64.b64encode(f"sealbus-token:{pkce.verifier}".encode()).decode()
            for header in (f"Basic {basic}", f"Basic {basic}x", f"Bearer {given['access_token']}"):
                refused = await browser.post("token", {"Authorization": header}, grant_type=_SCRIPTS, user="alice")
                assert refused.status_code in (400, 401)
    return str(given["access_token"])


async def at_the_door(stage: Stage, secrets: Secrets, token: str) -> None:
    """Call the edge with the token where it belongs, and in every place where it does not."""
    resource = in_development(stage).environment.edge.front.resource
    refused = _refused(stage, secrets, token)
    good = {"item_id": "42", "quantity": 3}
    told = {"text": secrets.add("body", Pkce().verifier, Kept.BODY)}
    async with httpx2.AsyncClient(base_url=resource, trust_env=False, timeout=60) as http:

        async def post(
            path: str, status: int, *, bearer: str = token, headers: Mapping[str, str] = _FREE, **options: Any
        ) -> None:
            bearing = {"Authorization": f"Bearer {bearer}"} if bearer else {}
            with as_a_browser():
                answer = await http.post(path, headers={**bearing, **headers}, **options)
            assert answer.status_code == status, (path, answer.text)
            for held in (bearer, token, told["text"]):
                assert status == 200 or not held or held not in answer.text

        await post("/v1/calls/inventory/read", 200, json={"item_id": "42"})
        for one in refused:
            await post("/v1/calls/inventory/read", 401, bearer=one, json={"item_id": "42"})
            await post("/v1/tasks/inventory/update", 401, bearer=one, json=good)
        holder, url = Holder(), f"{resource}/v1/calls/inventory/read"
        for one in (holder.proof(token, "POST", url), holder.proof(token, "GET", url), f"x.y.{Pkce().verifier}"):
            secrets.add_token("proof of possession", one)
            shown = {"Authorization": f"DPoP {token}", "DPoP": one}
            await post("/v1/calls/inventory/read", 401, bearer="", headers=shown, json=good)
        await post("/v1/calls/inventory/read", 401, bearer="", params={"access_token": token}, json=good)
        await post("/v1/calls/inventory/read", 401, bearer="", data={"access_token": token})
        await post(f"/v1/calls/inventory/{token}", 404, json=good)
        await post(f"/{token}", 404, json=good)
        await post("/v1/calls/inventory/read", 422, json=told)
        await post("/v1/calls/inventory/read", 400, content=told["text"].encode(), headers=_JSON)
        await post("/v1/calls/inventory/read", 415, content=token.encode())
        await post(f"/v1/calls/{STRANGER}/echo", 200, json=told)
        await post(f"/v1/calls/{STRANGER}/burst", 502, json=told)
        await post(f"/v1/calls/{STRANGER}/misfit", 502, json=told)
        await post(f"/v1/calls/{STRANGER}/lost", 503, json=told)
        await post(f"/v1/calls/{STRANGER}/gone", 404, json=told)
        await post(f"/v1/tasks/{STRANGER}/explode", 202, json=told)


async def at_the_other_doors(stage: Stage, secrets: Secrets, token: str) -> None:
    """Ask by MCP and by A2A with tokens that are good, bad and misplaced, and with bodies that do not fit."""
    told = secrets.add("body", Pkce().verifier, Kept.BODY)
    door, refused = stage.door, _refused(stage, secrets, token)
    wrong: dict[str, Any] = {"item_id": "42", "quantity": told}
    answer, _ = await door.tool("inventory_update", wrong, token)
    assert answer["isError"]
    assert "COMPLETED" not in str(await door.message("inventory.update", wrong, token))
    push = {"url": "https://127.0.0.1:1/", "token": told, "authentication": {"scheme": "Bearer", "credentials": told}}
    pushed = {"method": "CreateTaskPushNotificationConfig", "params": {"taskId": "0" * 32, **push}}
    async with httpx2.AsyncClient(
        base_url=in_development(stage).environment.edge.front.resource, trust_env=False
    ) as http:
        for path in ("/mcp", "/a2a/inventory/rpc"):
            for one in refused:
                bearing = {"Authorization": f"Bearer {one}"}
                assert (await http.post(path, headers=bearing, json={"method": told})).status_code == 401
            with as_a_browser():
                assert (await http.post(path, params={"access_token": token}, json={})).status_code == 401
            bearing = {"Authorization": f"Bearer {token}"}
            for content in (told.encode(), json.dumps({"jsonrpc": "2.0", "id": told, "method": told}).encode()):
                assert token not in (await http.post(path, headers={**bearing, **_JSON}, content=content)).text
            for named in ("Mcp-Session-Id", "A2A-Version", "Mcp-Name", "Last-Event-ID"):
                assert token not in (await http.post(path, headers={**bearing, named: token}, json={})).text
        bearing = {"Authorization": f"Bearer {token}", "A2A-Version": "1.0"}
        answered = await http.post("/a2a/inventory/rpc", headers=bearing, json={"jsonrpc": "2.0", "id": 1, **pushed})
        assert "error" in answered.json()
        assert told not in answered.text


def _refused(stage: Stage, secrets: Secrets, token: str) -> list[str]:
    """Return tokens that no door takes."""
    idp = in_development(stage).environment.idp
    header, claims, signature = token.split(".")
    return [
        idp.token("alice", expires_in=-1),
        idp.token("alice", audience="https://other.example.org"),
        f"{header}.{claims}.{secrets.add('forged signature', signature[:-20] + 'A' * 20)}",
        f"{_text({'alg': 'none', 'typ': 'at+jwt'})}.{claims}.",
        secrets.add("opaque token", f"opaque-{Pkce().verifier}"),
        secrets.add("token in no form", f"{Pkce().verifier}.{Pkce().verifier}"),
    ]


def _text(header: dict[str, str]) -> str:
    return base64.urlsafe_b64encode(json.dumps(header).encode()).rstrip(b"=").decode()


async def backends(stage: Stage, secrets: Secrets, token: str) -> None:
    """Exchange tokens: a good one, refused ones, and at a service that does not answer."""
    client, idp = stage.clients["pricing"], in_development(stage).environment.idp
    await client.user_context(token)
    junk = secrets.add("opaque token", Pkce().verifier)
    for refused in (idp.token("alice", expires_in=-1), idp.token("alice", audience="urn:other"), junk, token + "x"):
        await _fails(client.user_context(refused))
    port = in_development(stage).environment.nats.url.rpartition(":")[2]
    for url in ("https://127.0.0.1:1", f"https://127.0.0.1:{port}"):
        async with TokenExchange(url, identity=client.node.identity, edges=client.node.deployment.minters) as nowhere:
            await _fails(nowhere.user_context(token, within=2.0))


async def on_the_bus(stage: Stage, secrets: Secrets, token: str) -> None:
    """Call and submit what fails in each layer, with a body that nobody may repeat."""
    body = Told(text=secrets.add("body", Pkce().verifier, Kept.BODY))
    shop, stranger = stage.clients["shop-web"], stage.clients[STRANGER]
    user = await shop.user_context(token)
    for action in ("burst", "misfit", "lost", "gone"):
        await _fails(shop.call(f"{STRANGER}.{action}", body, returns=Told))
    assert (await shop.call(f"{STRANGER}.echo", body, returns=Told)) == body
    await _fails(shop.call(f"{STRANGER}.echo", body, returns=Wanted))
    await _fails(shop.call("inventory.read", body, returns=Told, user=user))
    # Denied; nobody there; nobody's name; no life.
    await _fails(shop.call("planner.plan", body, returns=Told))
    await _fails(shop.call("nobody.echo", body, returns=Told, timeout=0.5))
    await _fails(shop.submit(f"no.body.{body.text}", body))
    await _fails(shop.submit(f"{STRANGER}.noted", body, life=-1.0))
    # Refused, and so without an answer.
    await _fails(stranger.call("inventory.read", body, returns=Told, user=user, timeout=0.5))
    for action in (f"{STRANGER}.explode", "inventory.update"):
        handle = await shop.submit(action, body, user=user)
        await _fails(handle.result(Told, timeout=10.0))
    handle = await shop.submit("inventory.update", Update(item_id="42", quantity=3), user=user)
    await handle.result(dict[str, object], timeout=60)


async def commands(stage: Stage, secrets: Secrets) -> list[Place]:
    """Run commands as another process; return what they print, but for the one whose output is a token."""
    settings = ("--config", str(in_development(stage).environment.settings_file))
    access = read_access(in_development(stage).environment.settings_file.parent / "idp.json")
    body = json.dumps({"text": secrets.add("body", Pkce().verifier, Kept.BODY)})
    wrong = ScriptAccess(issuer=access.issuer, secret=secrets.add("wrong script secret", Pkce().verifier))
    with contextlib.suppress(ConfigurationError):
        await asyncio.to_thread(fetch_token, wrong, {"user": "alice"})
    given = await _command(0, "token", "--user", "alice", *settings)
    assert re.fullmatch(rb"[\w-]+\.[\w-]+\.[\w-]+\n", given[1].content)
    meant = await _command(0, "token", "--user", "alice", "--json", *settings)
    done = await asyncio.gather(
        _command(1, "token", "--user", "nobody", "--json", *settings),
        _command(1, "call", f"{STRANGER}.burst", body, "--json", *settings),
        _command(1, "call", "inventory.read", body, "--user", "alice", "--json", *settings),
        _command(EXIT_DENIED, "pub", "task.inventory.update", '{"item_id": "42", "quantity": 3}', "--wait", *settings),
        _command(0, "pub", f"task.{STRANGER}.explode", body, "--json", *settings),
        _command(0, "identity", "show", "--json", *settings),
        _command(0, "doctor", "--json", *settings),
        _command(0, "streams", "plan", "--json", *settings),
        _command(0, "audit", "replay", "--json", *settings),
    )
    return [given[0], meant[0], *(place for places in done for place in places)]


async def _command(code: int, *arguments: str) -> tuple[Place, Place]:
    process = await asyncio.create_subprocess_exec(
        _SEALBUS, *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    output, errors = await process.communicate()
    assert process.returncode == code, (arguments, errors, output[:300])
    name = " ".join(arguments[:2])
    return Place(Group.OUTPUT, f"errors of {name}", errors), Place(Group.OUTPUT, f"output of {name}", output)


async def _fails(asked: Awaitable[object]) -> None:
    try:
        await asked
    except SealbusError:
        return
    raise AssertionError("it should have failed")
