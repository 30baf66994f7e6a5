"""What the chart makes of values: another deployment's names, its agents, what an operator may set, and what is refused."""

from __future__ import annotations

import asyncio
import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.helm import CHART, require_helm
from support.settings import smallest_environment

from sealbus.agents.runtime.settings.settings import load_settings

ROOT = Path(__file__).parents[2]
PEM = "  -----BEGIN PUBLIC KEY-----\n'\"{{ x }}: #\n-----END PUBLIC KEY-----\n"
"""It begins with spaces, and holds what YAML and templates have signs for."""
SELECTED = {
    "Deployment": ["edge", "inventory", "opa", "policy", "pricing"],
    "StatefulSet": ["callout", "notary"],
    "Service": ["callout", "edge", "opa", "policy"],
    "PodDisruptionBudget": ["callout", "edge", "inventory", "opa", "policy", "pricing"],
}
"""What releases of the chart have by these names: a selector, which an upgrade cannot change."""
BANK = """
trustDomain: bank.example
notary: {origin: log.bank.example/audit, storageClassName: fast}
streams: {replicas: 3, maxBytes: {tasks: 8GiB, audit: 100GiB}}
imagePullSecrets: [registry]
console: {enabled: true, url: "https://console.bank.example", issuer: "https://idp.bank.example"}
edge: {resource: "https://api.bank.example", issuers: [{issuer: "https://idp.bank.example"}], actions: ["payments.*"]}
monitoring: {podMonitor: true}
settings: |
  [worker]
  concurrency = 128
agents:
  inventory: null
  pricing: null
  payments:
    target: bank.payments:agent
    engine: sidecar
    image: registry.bank.example/payments:7
    resources: {requests: {cpu: 500m, memory: 256Mi}, limits: {memory: 1Gi}}
    autoscaling: {min: 2, max: 10, cpu: 70}
    tolerations: [{key: dedicated, operator: Exists}]
    env: {BANK_DATABASE: "postgres://x"}
"""


async def helm(folder: Path, values: str) -> tuple[int, str, str]:
    """Render the chart with `values`; return its exit code and what it said."""
    (folder / "values.yaml").write_text(values)
    (folder / "platform.pub").write_text(PEM)
    (folder / "opa.json").write_text("{}")
    process = await asyncio.create_subprocess_exec(
        require_helm(), "template", "sealbus", str(CHART), "--namespace", "bank", "--values", str(folder / "values.yaml"),
        "--set-file", rf"policy.keys.platform\.pub={folder / 'platform.pub'}",
        "--set-file", f"opa.config={folder / 'opa.json'}",
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, error = await process.communicate()
    return process.returncode or 0, out.decode(), error.decode()


async def rendered(folder: Path, values: str) -> dict[tuple[str, str], dict[str, Any]]:
    code, out, error = await helm(folder, values)
    assert code == 0, error
    return {(one["kind"], one["metadata"]["name"]): one for one in yaml.safe_load_all(out) if one}


async def test_the_settings_are_those_of_every_other_deployment(tmp_path: Path) -> None:
    found = await rendered(tmp_path, "notary: {origin: log.example.org/audit}")
    said = tomllib.loads(found["ConfigMap", "sealbus-settings"]["data"]["sealbus.toml"])
    assert said["streams"].pop("replicas") == 1
    assert said == tomllib.loads((ROOT / "deploy" / "local" / "sealbus.toml").read_text())


async def test_consumers_have_the_replicas_of_their_streams_if_that_is_said(tmp_path: Path) -> None:
    found = await rendered(tmp_path, "streams: {replicas: 3, replicatedConsumers: true}")
    said = tomllib.loads(found["ConfigMap", "sealbus-settings"]["data"]["sealbus.toml"])
    assert (said["streams"]["replicas"], said["streams"]["replicated_consumers"]) == (3, True)


async def test_a_key_arrives_as_it_was_given(tmp_path: Path) -> None:
    found = await rendered(tmp_path, "{}")
    assert found["ConfigMap", "sealbus-policy-keys"]["data"] == {"platform.pub": PEM}


async def test_what_a_release_cannot_change_stays(tmp_path: Path) -> None:
    found = await rendered(tmp_path, "notary: {origin: log.example.org/audit}")
    for kind, names in SELECTED.items():
        assert sorted(name for of, name in found if of == kind) == names
        for name in names:
            selector = found[kind, name]["spec"]["selector"]
            labels = {"app.kubernetes.io/name": name, "app.kubernetes.io/instance": "sealbus"}
            assert selector == (labels if kind == "Service" else {"matchLabels": labels})
    for name, size in (("notary", "10Gi"), ("callout", "1Gi")):
        [claim] = found["StatefulSet", name]["spec"]["volumeClaimTemplates"]
        assert claim["spec"] == {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}}


async def test_what_the_callout_keeps_outlives_its_pod(tmp_path: Path) -> None:
    """A pod that begins with the bootstrap knows of no denial that came later."""
    found = await rendered(tmp_path, "callout: {storage: 2Gi, storageClassName: fast}")
    callout = found["StatefulSet", "callout"]["spec"]
    [container] = callout["template"]["spec"]["containers"]
    [cache] = [one["value"] for one in container["env"] if one["name"] == "SEALBUS_POLICY__CACHE"]
    [mount] = [one["name"] for one in container["volumeMounts"] if one["mountPath"] == cache]
    [claim] = callout["volumeClaimTemplates"]
    assert claim["metadata"]["name"] == mount
    assert claim["spec"]["storageClassName"] == "fast"
    assert claim["spec"]["resources"] == {"requests": {"storage": "2Gi"}}


async def test_another_deployment_has_nothing_of_ours(tmp_path: Path) -> None:
    _, out, _ = await helm(tmp_path, BANK)
    assert "example.org" not in out
    found = await rendered(tmp_path, BANK)
    settings_file = tmp_path / "sealbus.toml"
    settings_file.write_text(found["ConfigMap", "sealbus-settings"]["data"]["sealbus.toml"])
    environment = {name: value for name, value in smallest_environment().items() if name != "SEALBUS_TRUST_DOMAIN"}
    settings = load_settings(settings_file, environment=environment)
    assert settings.names.id_of("payments").value == "spiffe://bank.example/agent/payments"
    assert (settings.streams.replicas, settings.max_bytes["AUDIT"], settings.worker.concurrency) == (3, 100 << 30, 128)
    assert settings.edge.actions == ("payments.*", "console.*")
    callers = json.loads(found["ConfigMap", "sealbus-opa"]["data"]["callers.json"])
    assert callers["spiffe://bank.example/agent/payments"] == {"authz": True}
    assert callers["spiffe://bank.example/control"] == {"authz": True, "connect": True}


async def test_an_agent_is_what_its_values_say(tmp_path: Path) -> None:
    found = await rendered(tmp_path, BANK)
    assert ("Deployment", "inventory") not in found
    deployment = found["Deployment", "payments"]["spec"]
    assert "replicas" not in deployment
    pod = deployment["template"]["spec"]
    [worker] = pod["containers"]
    assert worker["image"] == "registry.bank.example/payments:7"
    assert worker["resources"]["limits"] == {"memory": "1Gi"}
    assert {"name": "BANK_DATABASE", "value": "postgres://x"} in worker["env"]
    assert pod["tolerations"] == [{"key": "dedicated", "operator": "Exists"}]
    scaled = found["HorizontalPodAutoscaler", "payments"]["spec"]
    assert (scaled["minReplicas"], scaled["maxReplicas"]) == (2, 10)
    assert ("PodDisruptionBudget", "payments") in found
    for (kind, _), one in found.items():
        if kind in ("Deployment", "StatefulSet", "Job"):
            assert one["spec"]["template"]["spec"]["imagePullSecrets"] == [{"name": "registry"}]


async def test_console_and_monitoring_open_the_doors_that_they_need(tmp_path: Path) -> None:
    found = await rendered(tmp_path, BANK)
    [console] = found["Deployment", "console"]["spec"]["template"]["spec"]["containers"]
    variables = {one["name"]: one["value"] for one in console["env"]}
    assert variables["SEALBUS_CONSOLE__URL"] == "https://console.bank.example"
    assert variables["SEALBUS_CONSOLE__EDGE"] == "https://api.bank.example"
    assert found["NetworkPolicy", "sealbus-console"]["spec"]["ingress"] == [
        {"ports": [{"port": 8445, "protocol": "TCP"}]}
    ]
    [door] = found["NetworkPolicy", "sealbus-metrics"]["spec"]["ingress"]
    assert [one["port"] for one in door["ports"]] == [9100, 8282]
    assert door["from"]
    plain = await rendered(tmp_path, "{}")
    asked_for = {
        ("Deployment", "console"), ("PodMonitor", "sealbus"), ("NetworkPolicy", "sealbus-metrics"),
        ("Deployment", "streams-exporter"),
    }  # fmt: skip
    assert asked_for <= found.keys()
    assert not asked_for & plain.keys()


async def test_alerts_are_those_of_every_other_deployment_and_point_to_its_own_runbooks(tmp_path: Path) -> None:
    address = "https://wiki.bank.example/sealbus/alerts.html"
    found = await rendered(tmp_path, f"monitoring: {{prometheusRule: true, runbooks: '{address}'}}")
    groups = found["PrometheusRule", "sealbus"]["spec"]["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    addresses = [rule["annotations"].pop("runbook_url") for rule in rules if "alert" in rule]
    assert addresses == [f"{address}#{rule['alert'].lower()}" for rule in rules if "alert" in rule]
    ours = yaml.safe_load((ROOT / "deploy" / "prometheus" / "sealbus.rules.yaml").read_text())["groups"]
    for rule in (rule for group in ours for rule in group["rules"] if "alert" in rule):
        del rule["annotations"]["runbook_url"]
    assert groups == ours
    assert ("PrometheusRule", "sealbus") not in await rendered(tmp_path, BANK)


SHOP = """
agents:
  inventory: null
  pricing: null
  shop:
    target: shop.front:agent
    further: {stock: "shop.stock:agent", prices: "shop.prices:agent"}
    engine: sidecar
    replicas: 2
"""


async def test_several_agents_of_one_process_have_an_identity_each(tmp_path: Path) -> None:
    found = await rendered(tmp_path, SHOP)
    pod = found["Deployment", "shop"]["spec"]["template"]
    [worker] = pod["spec"]["containers"]
    # The first is the entry's own, whose folder OPA reads the policy from.
    targets = ["shop.front:agent", "shop.prices:agent", "shop.stock:agent"]
    assert worker["args"] == ["worker", "run", *targets, "--health", "0.0.0.0:9100"]
    [opa] = [one for one in pod["spec"]["initContainers"] if one["name"] == "opa"]
    assert "/var/lib/sealbus/policy/shop/composed/bundle.tar.gz" in opa["args"]
    others = found["Deployment", "edge"]["spec"]["template"]["metadata"]["labels"]
    for name in ("prices", "stock"):
        identity = found["ClusterSPIFFEID", f"bank-sealbus-agent-{name}"]["spec"]
        assert identity["spiffeIDTemplate"] == f"spiffe://{{{{ .TrustDomain }}}}/agent/{name}"
        assert identity["podSelector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
        assert not identity["podSelector"]["matchLabels"].items() <= others.items()
        assert identity["workloadSelectorTemplates"] == ["k8s:sa:shop"]
        assert identity["namespaceSelector"] == {"matchLabels": {"kubernetes.io/metadata.name": "bank"}}
        # No pod, account or budget of its own.
        assert not {kind for kind, other in found if other == name}
    callers = {one for text in found["ConfigMap", "sealbus-opa"]["data"].values() for one in text.split('"')}
    assert {f"spiffe://example.org/agent/{name}" for name in ("shop", "prices", "stock")} <= callers


@pytest.mark.parametrize("name", ["inventory", "stock"])
async def test_an_agent_is_in_one_process(tmp_path: Path, name: str) -> None:
    """Its pods would have two programs, and share the work of both."""
    other = f'  other: {{target: o:a, further: {{{name}: "o:b"}}, engine: embedded, replicas: 1}}\n'
    code, out, error = await helm(tmp_path, SHOP.replace("  inventory: null\n", "") + other)
    assert (code != 0, out) == (True, "")
    assert "agents: a name is there twice" in error


@pytest.mark.parametrize(
    "values",
    [
        "trustDomain: 'UPPER case'",
        "images: x",
        "streams: {replicas: 2}",
        "streams: {maxBytes: {audit: 10}}",
        "nats: {url: 'nats://plain:4222'}",
        "monitoring: {runbooks: docs/alerts.md}",
        "monitoring: {runbooks: 'https://bank.example/\"x'}",
        "edge: {resource: 'http://api.example.org'}",
        "edge: {actions: ['everything']}",
        "agents: {BAD_NAME: {target: a:b, engine: embedded, replicas: 1}}",
        "agents: {x: {target: a:b, engine: other, replicas: 1}}",
        "agents: {x: {target: a:b, engine: embedded}}",
        "agents: {x: {target: a:b, further: [a:c], engine: embedded, replicas: 1}}",
        "agents: {x: {target: a:b, further: {BAD_NAME: a:c}, engine: embedded, replicas: 1}}",
        "agents: {x: {target: a:b, further: {y: nothing}, engine: embedded, replicas: 1}}",
        "agents: {x: {target: a:b, engine: embedded, replicas: 1, autoscaling: {min: 1}}}",
    ],
)
async def test_what_cannot_be_right_is_refused_before_anything_is_changed(tmp_path: Path, values: str) -> None:
    code, out, error = await helm(tmp_path, values)
    assert code != 0
    assert out == ""
    assert "schema" in error
