"""What Helm renders is run: every container with its arguments, environment and files, on real SPIRE, NATS and OPA.

What is not as the YAML says stands in `support.node`, with the reasons; what cannot be run without a cluster is in
deploy/kubernetes/README.md.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import shutil
import ssl
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest
import yaml
from stack.keys import write_new_key
from stack.metrics import counter
from stack.program import output_of
from stack.site import SEALBUS
from stack.spire import open_spire
from stack.spire_entry import Entry
from support.helm import CHART, require_helm
from support.kubernetes_yaml import deployed
from support.network_policies import Network
from support.node import Node, entries, in_order, numbered
from support.opa import require_opa
from support.ports import held_port
from support.spire import require_spire
from support.workload_api import short_folder
from support.x509 import ThrowawayCa

from sealbus import Client, Denied
from sealbus.agents.dev.environment import starter_policy
from sealbus.agents.dev.idp.server import DevelopmentIdp
from sealbus.agents.examples import inventory, pricing
from sealbus.agents.runtime.settings.settings import load_settings
from sealbus.envelopes.trust.spiffe_id import SpiffeId, TrustDomain
from sealbus.policies.opa.process import MutualTls, server_arguments

ROOT = Path(__file__).parents[2]
NATS = ROOT / "deploy" / "kubernetes" / "nats"
TRUST_DOMAIN = TrustDomain("example.org")
RESOURCE = "https://api.example.org"
PUSHED = "pushed"
SERVERS = ("nats-0", "nats-1", "nats-2")
ORDER = {
    "nats": (),
    "callout": ("nats",),
    "streams-1": ("callout",),
    "opa": ("policy",),
    "edge": ("opa",),
    "pricing": ("opa",),
}
"""What is started after what; all others once a policy was pushed."""
HERE = ("operator", "shop-web")
"""Whose commands the test gives, as root."""


async def render(folder: Path, *, issuer: str, public_key: Path, opa_config: str, replicas: int = 1) -> str:
    """Render the chart as README.md says."""
    (folder / "opa.json").write_text(opa_config)
    values = {
        "edge": {"issuers": [{"issuer": issuer, "algorithms": ["ES256"]}], "resource": RESOURCE},
        "notary": {"origin": "log.example.org/audit"},
        "monitoring": {"podMonitor": True},
        "streams": {"replicas": replicas},
        # As of each Deployment, one pod is run.
        "callout": {"replicas": 1},
    }
    (folder / "values.json").write_text(json.dumps(values))
    return (
        await output_of(
            [
                require_helm(), "template", "sealbus", str(CHART), "--namespace", "sealbus",
                "--values", str(folder / "values.json"),
                "--set-file", rf"policy.keys.platform\.pub={public_key}",
                "--set-file", f"opa.config={folder / 'opa.json'}",
            ],
        )
    ).decode()  # fmt: skip


@dataclass(frozen=True, slots=True)
class Cluster:
    """What runs, and who may log in."""

    node: Node
    idp: DevelopmentIdp
    policy: Path
    signing_key: Path
    network: Network
    authority: bytes
    """Of the edge's certificate, PEM."""


async def keys_of(folder: Path, policy: Path, ca: ThrowawayCa) -> dict[str, dict[str, bytes]]:
    """Make what README.md has people make by hand: keys, the first bundle, a certificate; by the names of the objects."""
    await output_of([SEALBUS, "control", "keygen", str(folder / "callout")])
    await output_of([SEALBUS, "notary", "keygen", "log.example.org/audit", str(folder / "notary.key")])
    bundle = folder / "bundle.tar.gz"
    await output_of([SEALBUS, "policy", "build", str(policy), "--serial", "1", "--output", str(bundle)])
    await output_of(
        [SEALBUS, "policy", "sign", str(bundle), "--name", "platform", "--key", str(folder / "platform.pem")]
    )
    certificate = ca.issue("", uris=(), addresses=("127.0.0.1",))
    public = dict(line.split("=", 1) for line in (folder / "callout" / "public.env").read_text().split())
    return {
        "sealbus-callout": {one.name: one.read_bytes() for one in (folder / "callout").glob("*.seed")},
        "sealbus-callout-public": {name: value.encode() for name, value in public.items()},
        "sealbus-policy-bootstrap": {"bundle.tar.gz": bundle.read_bytes()},
        "sealbus-policy-serve": {"serve.pem": (folder / "serve.pem").read_bytes()},
        "sealbus-notary": {"notary.key": (folder / "notary.key").read_bytes()},
        "sealbus-edge-tls": {"tls.crt": certificate.cert_pem, "tls.key": certificate.key_pem},
    }


@asynccontextmanager
async def cluster(
    folder: Path, *, nats: str = "rendered.yaml", order: Mapping[str, tuple[str, ...]] = ORDER, others: str = PUSHED
) -> AsyncIterator[Cluster]:
    """Run NATS as `nats` has it, and our chart: pods in `order` after what it says, the others after `others`."""
    write_new_key(private=folder / "platform.pem", public=folder / "platform.pub")
    write_new_key(private=folder / "serve.pem", public=folder / "serve.pub")
    opa_config = await output_of(
        [
            SEALBUS, "policy", "opa-config", "--url", "https://policy.sealbus.svc:8182",
            "--signer", str(folder / "serve.pub"), "--certificate", "/run/opa/svid/svid.pem",
            "--private-key", "/run/opa/svid/svid.key", "--trust-bundle", "/run/opa/svid/bundle.pem",
        ]
    )  # fmt: skip
    ca = ThrowawayCa("web")
    policy = folder / "policy"
    shutil.copytree(starter_policy(), policy)
    async with DevelopmentIdp(audience=RESOURCE) as idp:
        chart = await render(
            folder, issuer=idp.issuer, public_key=folder / "platform.pub", opa_config=opa_config.decode(),
            replicas=1 if nats == "rendered.yaml" else len(SERVERS),
        )  # fmt: skip
        servers = (NATS / nats).read_text()
        network = Network(servers, chart, namespaces=("nats", "sealbus"))
        pods = numbered(
            deployed(
                servers, chart,
                namespaces=("nats", "sealbus"), trust_domain=TRUST_DOMAIN.name, socket="spire-agent.sock",
                secrets=await keys_of(folder, policy, ca),
            )
        )  # fmt: skip
        pods = in_order(pods, order, (others,))
        people = [
            Entry(spiffe_id=SpiffeId(f"spiffe://example.org/agent/{name}"), uid=0, x509_ttl=600, jwt_ttl=300)
            for name in HERE
        ]
        async with (
            open_spire(
                folder / "spire", trust_domain=TRUST_DOMAIN, port=held_port(), refresh=2,
                entries=[*entries(pods), *people],
            ) as spire,
            Node(pods, folder / "pods", spire) as node,
        ):  # fmt: skip
            yield Cluster(node, idp, policy, folder / "platform.pem", network, ca.cert_pem)


async def push(running: Cluster) -> None:
    """Push the policy as an operator does, once somebody answers for connections."""
    environment = running.node.environment("streams-1", "streams")
    command = [SEALBUS, "policy", "push", str(running.policy), "--key", str(running.signing_key)]
    await output_of(command, environment=environment, within=60)


@pytest.fixture
def folder() -> Iterator[Path]:
    require_spire()
    require_opa()
    require_helm()
    with short_folder() as path:
        path.chmod(0o711)
        (path / "pods").mkdir(mode=0o711)
        yield path


@pytest.mark.parametrize(
    ("rendered", "values", "included"),
    [
        ("rendered.yaml", ["values.yaml"], {"sealbus.conf": "nats.conf"}),
        (
            "rendered-three.yaml",
            ["values.yaml", "values-three.yaml"],
            {"sealbus.conf": "nats.conf", "cluster.conf": "cluster.conf"},
        ),
    ],
)
def test_the_nats_server_that_is_run_is_what_its_values_give(
    rendered: str, values: list[str], included: dict[str, str]
) -> None:
    """The official chart is not in this repository; what it made of our values is, with their hash."""
    text = (NATS / rendered).read_text()
    for name in values:
        digest = hashlib.sha256((NATS / name).read_bytes()).hexdigest()
        assert f"{name}: sha256 {digest}" in text, "render it again: deploy/kubernetes/README.md"
    config = next(one for one in yaml.safe_load_all(text) if one and one["metadata"]["name"] == "nats-config")
    for name, shared in included.items():
        assert config["data"][name].strip() == (ROOT / "deploy" / "local" / "nats" / shared).read_text().strip()


async def chart(folder: Path) -> str:
    (folder / "platform.pub").write_text("PEM")
    return await render(folder, issuer="https://idp", public_key=folder / "platform.pub", opa_config="{}")


async def test_every_container_is_shut_in(tmp_path: Path) -> None:
    """Nobody is root, nothing is written but to volumes, nobody has Kubernetes' token, and memory is bounded."""
    texts = [await chart(tmp_path), (NATS / "rendered.yaml").read_text()]
    documents = [one for text in texts for one in yaml.safe_load_all(text) if one]
    specs = [one["spec"]["template"]["spec"] for one in documents if "template" in one.get("spec", {})]
    assert len(specs) == 10
    for spec in specs:
        assert spec["automountServiceAccountToken"] is False
        assert spec["securityContext"]["runAsNonRoot"] is True
        for container in (*spec.get("initContainers", ()), *spec["containers"]):
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert container["resources"]["limits"]["memory"]
            assert all("hostPath" not in volume for volume in spec["volumes"])


async def test_nobody_is_reached_but_through_the_doors(tmp_path: Path) -> None:
    network = Network((NATS / "rendered.yaml").read_text(), await chart(tmp_path), namespaces=("nats", "sealbus"))
    assert network.allows("pricing", "nats", 4222)
    for source, target, port in [
        ("pricing", "inventory", 9100),
        ("pricing", "callout", 9100),
        ("pricing", "policy", 8182),
        ("pricing", "nats", 8222),
        ("inventory", "opa", 8282),
        ("opa", "nats", 6222),
        ("nats", "opa", 8181),
    ]:
        assert not network.allows(source, target, port), (source, target, port)
    three = Network((NATS / "rendered-three.yaml").read_text(), await chart(tmp_path), namespaces=("nats", "sealbus"))
    assert three.allows("nats-0", "nats-1", 6222)
    assert not [name for name in ("callout", "opa", "pricing") if three.allows(name, "nats-0", 6222)]


async def test_each_opa_is_started_as_everywhere(tmp_path: Path) -> None:
    pods = {
        one["metadata"]["name"]: one["spec"]["template"]["spec"]
        for one in yaml.safe_load_all(await chart(tmp_path))
        if one and one["kind"] == "Deployment"
    }
    beside = next(one for one in pods["inventory"]["initContainers"] if one["name"] == "opa")
    assert beside["args"] == server_arguments(
        socket=Path("/run/opa/opa.sock"),
        bundle=Path("/var/lib/sealbus/policy/inventory/composed/bundle.tar.gz"),
    )
    svid = Path("/run/opa/svid")
    tls = MutualTls(
        address="0.0.0.0:8181", certificate=svid / "svid.pem", key=svid / "svid.key",
        trust_bundle=svid / "bundle.pem", system=Path("/etc/opa/system"),
    )  # fmt: skip
    expected = server_arguments(socket=Path("/diagnostics"), config=Path("/etc/opa/opa.json"), tls=tls)
    # The kubelet reaches no unix socket.
    expected[expected.index("unix:///diagnostics")] = "http://0.0.0.0:8282"
    assert pods["opa"]["containers"][0]["args"] == expected


@pytest.mark.spire
@pytest.mark.opa
@pytest.mark.nats
@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="a user for each pod takes root: run the tests as root")
async def test_what_helm_renders_runs_and_decides(folder: Path) -> None:
    async with cluster(folder) as running:
        node = running.node
        await node.ready("nats", "callout", "streams-1")
        await push(running)
        node.done(PUSHED)
        await node.ready()
        told = node.places.connections
        assert ("nats", "callout", 9100) in told
        assert ("opa", "policy", 8182) in told
        assert [one for one in sorted(told) if not running.network.allows(*one)] == []
        assert await counter(node.places.port("streams-exporter", 9100), "sealbus_stream_limit_bytes") > 0
        environment = node.environment("edge", "edge")
        async with Client("shop-web", settings=load_settings(environment=environment)) as client:
            assert (await client.call(pricing.quote, pricing.Quote(item_id="42"))).cents == 1_999
            alice = await client.user_context(running.idp.token("alice"))
            handle = await client.submit("inventory.update", inventory.Update(item_id="42", quantity=3), user=alice)
            assert await handle.result(returns=inventory.Stock) == inventory.Stock(
                item_id="42", quantity=3, cents=3 * 1_999
            )
            carol = await client.user_context(running.idp.token("carol"))
            with pytest.raises(Denied) as denied:
                await client.call(inventory.read, inventory.Read(item_id="42"), user=carol)
            assert "not_owner" in denied.value.reasons
        trusted = ssl.create_default_context(cadata=running.authority.decode())
        edge = f"https://127.0.0.1:{node.places.port('edge', 8443)}"
        async with httpx2.AsyncClient(base_url=edge, trust_env=False, verify=trusted, timeout=60) as web:
            fields = {"Authorization": f"Bearer {running.idp.token('alice')}"}
            item = await web.post("/v1/calls/inventory/read", json={"item_id": "42"}, headers=fields)
            assert (item.status_code, item.json()["quantity"]) == (200, 3)
        await log_is_signed(node)


@pytest.mark.spire
@pytest.mark.nats
@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="a user for each pod takes root: run the tests as root")
async def test_three_servers_are_one_cluster_that_stands_without_one(folder: Path) -> None:
    order = {**dict.fromkeys(SERVERS, ()), "callout": SERVERS, "streams-1": ("callout",)}
    async with cluster(folder, nats="rendered-three.yaml", order=order, others="never") as running:
        node = running.node
        await node.ready(*order)
        told = node.places.connections
        assert {("nats-0", "nats-1", 6222), ("nats-2", "nats-0", 6222)} <= told
        assert [one for one in sorted(told) if not running.network.allows(*one)] == []
        monitor = f"http://127.0.0.1:{node.places.port('nats-0', 8222)}/jsz"
        async with httpx2.AsyncClient(trust_env=False, timeout=60) as web:
            answer = await web.get(monitor, params={"streams": "true", "config": "true"})
        [account] = [one for one in answer.json()["account_details"] if one["name"] == "APP"]
        assert {one["config"]["num_replicas"] for one in account["stream_detail"]} == {3}
        await node.stop("nats-2")
        await push(running)


async def log_is_signed(node: Node) -> None:
    """Wait until the notary's folder has a checkpoint of its log, which holds what was decided."""
    log = Path(node.environment("notary", "notary")["SEALBUS_CONTROL__NOTARY__FOLDER"]) / "checkpoint"
    async with asyncio.timeout(60):
        while not log.is_file() or int(log.read_text().splitlines()[1]) == 0:  # noqa: ASYNC110  files have no event
            await asyncio.sleep(0.1)
    assert log.read_text().startswith("log.example.org/audit\n")
