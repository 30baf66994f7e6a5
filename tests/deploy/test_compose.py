"""What stands in compose.yaml is run: every service with its command, environment and files, on real SPIRE, NATS and OPA.

What is not as the file says stands in `support.places`, with the reasons.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx2
import pytest
from stack.keys import write_new_key
from stack.metrics import counter
from stack.program import output_of
from stack.site import SEALBUS
from stack.spire import open_spire
from stack.spire_entry import Entry
from support.compose_yaml import deployed_by_compose
from support.issuer import TRUSTS_NOBODY
from support.node import Node, entries
from support.opa import require_opa
from support.pods import Deployed
from support.ports import held_port
from support.spire import require_spire
from support.workload_api import short_folder

from sealbus import Client, Denied
from sealbus.agents.dev.environment import starter_policy
from sealbus.agents.dev.idp.server import DevelopmentIdp
from sealbus.agents.examples import inventory, pricing
from sealbus.agents.runtime.settings.settings import load_settings
from sealbus.envelopes.trust.spiffe_id import SpiffeId, TrustDomain
from sealbus.policies.opa.process import MutualTls, server_arguments

COMPOSE = Path(__file__).parents[2] / "deploy" / "compose"
TRUST_DOMAIN = TrustDomain("example.org")
RESOURCE = "http://127.0.0.1:8080"
PUSHED = "pushed"
WAITING = ("policy", "inventory-fetch")
"""Services that fail until a policy was pushed; here they are started after that."""


async def secrets_in(folder: Path) -> Path:
    """Make what README.md has people make by hand."""
    for name in ("keys", "serve", "opa", "bootstrap"):
        (folder / name).mkdir(parents=True)
    write_new_key(private=folder / "platform.pem", public=folder / "keys" / "platform.pub")
    write_new_key(private=folder / "serve" / "serve.pem", public=folder / "serve.pub")
    await output_of([SEALBUS, "control", "keygen", str(folder / "callout")])
    bundle = str(folder / "bootstrap" / "bundle.tar.gz")
    await output_of([SEALBUS, "policy", "build", str(starter_policy()), "--serial", "1", "--output", bundle])
    await output_of([SEALBUS, "policy", "sign", bundle, "--name", "platform", "--key", str(folder / "platform.pem")])
    config = await output_of(
        [
            SEALBUS, "policy", "opa-config", "--url", "https://policy:8182", "--signer", str(folder / "serve.pub"),
            "--certificate", "/run/opa/svid/svid.pem", "--private-key", "/run/opa/svid/svid.key",
            "--trust-bundle", "/run/opa/svid/bundle.pem",
        ]
    )  # fmt: skip
    (folder / "opa" / "opa.json").write_bytes(config)
    return folder


async def services(folder: Path, issuer: str = "https://idp") -> Deployed:
    """Return what compose.yaml describes, with new keys in `folder`."""
    variables = {
        "SEALBUS_RESOURCE": RESOURCE,
        "SEALBUS_ISSUERS": json.dumps([{"issuer": issuer, "algorithms": ["ES256"]}]),
    }
    found = deployed_by_compose(COMPOSE / "compose.yaml", variables, await secrets_in(folder))
    return replace(
        found,
        pods=tuple(replace(one, after=(*one.after, PUSHED)) if one.name in WAITING else one for one in found.pods),
    )


@pytest.fixture
def folder() -> Iterator[Path]:
    require_spire()
    require_opa()
    with short_folder() as path:
        path.chmod(0o711)
        (path / "pods").mkdir(mode=0o711)
        yield path


@pytest.mark.spire
@pytest.mark.opa
@pytest.mark.nats
@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="a user for each service takes root: run the tests as root")
async def test_what_compose_starts_runs_and_decides(folder: Path) -> None:
    people = [
        Entry(spiffe_id=SpiffeId(f"spiffe://example.org/agent/{name}"), uid=0, x509_ttl=600, jwt_ttl=300)
        for name in ("operator", "shop-web")
    ]
    async with DevelopmentIdp(audience=RESOURCE) as idp:
        pods = await services(folder / "secrets", idp.issuer)
        async with (
            open_spire(
                folder / "spire", trust_domain=TRUST_DOMAIN, port=held_port(), refresh=2,
                entries=[*entries(pods), *people],
            ) as spire,
            Node(pods, folder / "pods", spire) as node,
        ):  # fmt: skip
            await node.ready("streams")
            policy = folder / "policy"
            shutil.copytree(starter_policy(), policy)
            await output_of(
                [SEALBUS, "policy", "push", str(policy), "--key", str(folder / "secrets" / "platform.pem")],
                environment=node.environment("streams", "streams"),
                within=60,
            )
            node.done(PUSHED)
            await node.ready()
            assert await counter(node.places.port("streams-exporter", 9100), "sealbus_stream_limit_bytes") > 0
            async with Client("shop-web", settings=load_settings(environment=node.environment("edge", "edge"))) as bus:
                assert (await bus.call(pricing.quote, pricing.Quote(item_id="42"))).cents == 1_999
                alice = await bus.user_context(idp.token("alice"))
                handle = await bus.submit("inventory.update", inventory.Update(item_id="42", quantity=3), user=alice)
                assert (await handle.result(returns=inventory.Stock)).quantity == 3
                carol = await bus.user_context(idp.token("carol"))
                with pytest.raises(Denied) as denied:
                    await bus.call(inventory.read, inventory.Read(item_id="42"), user=carol)
                assert "not_owner" in denied.value.reasons
            edge = f"http://127.0.0.1:{node.places.port('edge', 8080)}"
            async with httpx2.AsyncClient(base_url=edge, trust_env=False, verify=TRUSTS_NOBODY, timeout=60) as web:
                fields = {"Authorization": f"Bearer {idp.token('alice')}"}
                item = await web.post("/v1/calls/inventory/read", json={"item_id": "42"}, headers=fields)
                assert (item.status_code, item.json()["quantity"]) == (200, 3)


@pytest.mark.slow
async def test_each_opa_is_started_as_everywhere(tmp_path: Path) -> None:
    pods = await services(tmp_path / "secrets")
    beside = pods.pod("inventory-opa").container("inventory-opa")
    assert list(beside.arguments) == server_arguments(
        socket=Path("/run/opa/opa.sock"),
        bundle=Path("/var/lib/sealbus/policy/inventory/composed/bundle.tar.gz"),
    )
    svid = Path("/run/opa/svid")
    tls = MutualTls(
        address="0.0.0.0:8181", certificate=svid / "svid.pem", key=svid / "svid.key",
        trust_bundle=svid / "bundle.pem", system=Path("/etc/opa/system"),
    )  # fmt: skip
    assert list(pods.pod("opa").container("opa").arguments) == server_arguments(
        socket=Path("/run/opa/opa.sock"), config=Path("/etc/opa/opa.json"), tls=tls
    )


def test_the_image_is_of_locked_packages_and_for_nobody_in_particular() -> None:
    text = (COMPOSE / "Dockerfile").read_text()
    installs = re.findall(r"pip install (.*)", text)
    assert len(installs) == 3
    assert all("--require-hashes" in one or ("--no-index" in one and "--no-deps" in one) for one in installs)
    assert re.search(r"^USER 10001:10001$", text, re.MULTILINE)
    assert "://" not in text
