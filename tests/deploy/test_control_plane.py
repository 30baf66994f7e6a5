"""The chart on a real control plane, for `make kubernetes-test`: what an API server, controllers and a scheduler make of it.

It is installed with the commands of deploy/kubernetes/README.md, in namespaces that admit only `restricted` pods. What only a
kubelet shows is not here, since kwok runs nothing: `test_kubernetes` runs every container as a process.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.control_plane import ControlPlane, control_plane, require_control_plane
from support.helm import CHART
from support.howto import commands_of, files_of
from support.workload_api import short_folder
from support.x509 import ThrowawayCa

from sealbus.agents.dev.environment import starter_policy
from sealbus.envelopes.errors import ConfigurationError

ROOT = Path(__file__).parents[2]
KUBERNETES = ROOT / "deploy" / "kubernetes"
README = (KUBERNETES / "README.md").read_text()
NODES = ("node-0", "node-1", "node-2")
CLASSES = ("standard", "fast")
DRAIN = ("--ignore-daemonsets", "--delete-emptydir-data", "--timeout=120s")
WATCHED = (
    "{.type} {.object.metadata.labels.app\\.kubernetes\\.io/name} {.object.metadata.name}"
    ' {.object.status.conditions[?(@.type=="Ready")].status} {.object.metadata.deletionTimestamp}{"\\n"}'
)
"""One line for each event of a pod."""


def kinds_of_others() -> Iterator[dict[str, Any]]:
    """Yield in place of SPIRE's and Prometheus' definitions, whose charts are not here, some that take anything."""
    for group, version, kind, scope in (
        ("spire.spiffe.io", "v1alpha1", "ClusterSPIFFEID", "Cluster"),
        ("monitoring.coreos.com", "v1", "PodMonitor", "Namespaced"),
        ("monitoring.coreos.com", "v1", "PrometheusRule", "Namespaced"),
    ):
        name = kind.lower()
        schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
        yield {
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": f"{name}s.{group}"},
            "spec": {
                "group": group, "scope": scope,
                "names": {"kind": kind, "plural": f"{name}s", "singular": name},
                "versions": [{"name": version, "served": True, "storage": True, "schema": schema}],
            },
        }  # fmt: skip


def machines() -> Iterator[dict[str, Any]]:
    """Yield nodes, two classes of storage, of which the first is the default, and volumes that wait to be claimed."""
    for node in NODES:
        yield {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": node, "labels": {"kubernetes.io/hostname": node}},
        }
    for name in CLASSES:
        default = {"storageclass.kubernetes.io/is-default-class": str(name == CLASSES[0]).lower()}
        yield {
            "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass",
            "metadata": {"name": name, "annotations": default},
            "provisioner": "kubernetes.io/no-provisioner", "volumeBindingMode": "WaitForFirstConsumer",
        }  # fmt: skip
        for number in range(6):
            yield {
                "apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": f"{name}-{number}"},
                "spec": {
                    "storageClassName": name, "capacity": {"storage": "10Gi"}, "accessModes": ["ReadWriteOnce"],
                    "hostPath": {"path": "/nowhere"},
                },
            }  # fmt: skip


@pytest.fixture
async def plane() -> AsyncIterator[ControlPlane]:
    """A cluster with nodes, and what README.md has one make before the charts."""
    require_control_plane()
    with short_folder() as folder:
        async with control_plane(folder) as running:
            await running.kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all(kinds_of_others()))
            await running.kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all(machines()))
            yield running


@pytest.fixture
async def prepared(plane: ControlPlane, tmp_path: Path) -> Path:
    """The folder in which somebody gave README's commands."""
    shutil.copytree(starter_policy(), tmp_path / "my-policy")
    certificate = ThrowawayCa("web").issue("", uris=(), addresses=("127.0.0.1",))
    (tmp_path / "edge.crt").write_bytes(certificate.cert_pem)
    (tmp_path / "edge.key").write_bytes(certificate.key_pem)
    given = await asyncio.create_subprocess_exec(
        "sh", "-ec", "".join(commands_of(README)), cwd=tmp_path, env=plane.environment,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    said, _ = await given.communicate()
    assert given.returncode == 0, said.decode()
    return tmp_path


def chart_before(folder: Path) -> Path:
    """Return the chart 0.1.0, out of this repository's history."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("there is no git with this repository's history, which has the chart 0.1.0")
    file = (CHART / "Chart.yaml").relative_to(ROOT)
    log = ["git", "log", "-1", "--format=%H", "-Sversion: 0.1.0", "--", str(file)]
    changed = subprocess.run(log, cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()
    if not changed:
        pytest.skip("there is no whole history of git, which has the chart 0.1.0: git fetch --unshallow")
    kept = folder / "chart.tar"
    parts = ["deploy/kubernetes/sealbus", "deploy/local"]
    subprocess.run(["git", "archive", f"--output={kept}", f"{changed}^", *parts], cwd=ROOT, check=True)
    shutil.unpack_archive(kept, folder / "before", filter="tar")
    return folder / "before" / "deploy" / "kubernetes" / "sealbus"


async def deploy(plane: ControlPlane, chart: Path, prepared: Path, values: dict[str, Any]) -> None:
    """Install the chart or upgrade it, as README.md says; return once all of it is ready."""
    (prepared / "values.json").write_text(json.dumps(values))
    await plane.helm(
        "upgrade", "--install", "sealbus", str(chart), "--namespace", "sealbus", "--wait", "--wait-for-jobs",
        "--timeout", "90s", "--values", str(prepared / "values.json"),
        "--set-file", rf"policy.keys.platform\.pub={prepared / 'platform.pub'}",
        "--set-file", f"opa.config={prepared / 'opa.json'}",
    )  # fmt: skip
    # Helm does not mind a field that nobody knows. In no namespace of ours, since one object of the release is in NATS'.
    known = ("apply", "--dry-run=server", "--validate=strict", "-f", "-")
    await plane.kubectl(*known, stdin=await plane.helm("get", "manifest", "sealbus", "-n", "sealbus"))
    await settled(plane)


async def deploy_nats(plane: ControlPlane, rendered: str) -> None:
    await plane.kubectl("apply", "--namespace=nats", "-f", str(KUBERNETES / "nats" / rendered))
    await settled(plane)


async def settled(plane: ControlPlane) -> None:
    """Wait until every pod that is wanted is there and ready, and no other."""
    for namespace in ("nats", "sealbus"):
        for kind in ("deployment", "statefulset"):
            for name in (await plane.kubectl("get", kind, "-n", namespace, "-o", "name")).split():
                await plane.kubectl("rollout", "status", name, "-n", namespace, "--timeout=90s", within=100)


def own_values() -> dict[str, Any]:
    """Return the values of README.md's deployment of one's own."""
    values: dict[str, Any] = yaml.safe_load(files_of(README)["values.yaml"])
    return values


async def objects(plane: ControlPlane, kind: str, namespace: str) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = json.loads(await plane.kubectl("get", kind, "-n", namespace, "-o", "json"))["items"]
    return items


async def pods_at(plane: ControlPlane, namespace: str, node: str) -> list[dict[str, Any]]:
    return [one for one in await objects(plane, "pods", namespace) if one["spec"].get("nodeName") == node]


async def claims(plane: ControlPlane) -> dict[str, tuple[str, str]]:
    """Return class and phase of each claim of storage."""
    found = [*await objects(plane, "pvc", "nats"), *await objects(plane, "pvc", "sealbus")]
    return {one["metadata"]["name"]: (one["spec"]["storageClassName"], one["status"]["phase"]) for one in found}


async def expect_admitted(plane: ControlPlane) -> None:
    """Expect that no pod was refused, in namespaces that refuse what is not `restricted`."""
    for namespace in ("nats", "sealbus"):
        with pytest.raises(ConfigurationError, match='violates PodSecurity "restricted'):
            await plane.kubectl("run", "open", "--image=any", "-n", namespace)
        assert await plane.kubectl("get", "events", "-n", namespace, "--field-selector=reason=FailedCreate") == ""


async def expect_mountable(plane: ControlPlane, without: set[str]) -> None:
    """Expect that what a kubelet would mount is there, but for `without`."""
    wanted: set[str] = set()
    for one in await objects(plane, "pods", "sealbus"):
        for volume in one["spec"]["volumes"]:
            wanted |= {
                volume[kind][name] for kind, name in (("secret", "secretName"), ("configMap", "name")) if kind in volume
            }
    found = [*await objects(plane, "secrets", "sealbus"), *await objects(plane, "configmaps", "sealbus")]
    assert wanted - {one["metadata"]["name"] for one in found} == without


@asynccontextmanager
async def fewest_ready(plane: ControlPlane) -> AsyncIterator[dict[str, int]]:
    """Give how many pods of each name were ready at least, while it is open."""
    ready: defaultdict[str, set[str]] = defaultdict(set)
    fewest: dict[str, int] = {}

    async def follow(lines: asyncio.StreamReader) -> None:
        async for line in lines:
            event, name, pod, state, leaves = line.decode().rstrip("\n").split(" ")
            if event != "DELETED" and state == "True" and not leaves:
                ready[name].add(pod)
            else:
                ready[name].discard(pod)
            if event != "ADDED":
                fewest[name] = min(fewest.get(name, len(ready[name])), len(ready[name]))

    arguments = ("get", "pods", "-A", "--watch", "--output-watch-events", "-o", f"jsonpath={WATCHED}")
    async with plane.started(*arguments) as watch, asyncio.TaskGroup() as group:
        assert watch.stdout is not None
        following = group.create_task(follow(watch.stdout))
        yield fewest
        following.cancel()


async def until(lines: asyncio.StreamReader, words: str) -> None:
    """Read lines up to the first that has `words`."""
    said = []
    async for line in lines:
        said.append(line.decode())
        if words in said[-1]:
            return
    raise AssertionError(f"it ended without {words!r}: {said}")


@pytest.mark.kubernetes
async def test_the_chart_before_is_upgraded_to_a_deployment_of_ones_own(plane: ControlPlane, prepared: Path) -> None:
    await deploy_nats(plane, "rendered.yaml")
    await deploy(plane, chart_before(prepared), prepared, {"notary": {"origin": "log.example.org/audit"}})
    await expect_mountable(plane, without=set())
    before = await claims(plane)
    assert before == dict.fromkeys(("nats-js-nats-0", "log-notary-0"), ("standard", "Bound"))
    callouts = dict.fromkeys(("policy-callout-0", "policy-callout-1"), ("standard", "Bound"))
    values = own_values()
    # One server keeps one, and the notary's storage stays what it is.
    del values["streams"]["replicas"], values["notary"]["storageClassName"]
    await deploy(plane, CHART, prepared, values)
    await expect_admitted(plane)
    await expect_mountable(plane, without={"sealbus-console-tls"})
    assert await claims(plane) == before | callouts
    agents = {one["metadata"]["name"] for one in await objects(plane, "deployments", "sealbus")}
    assert agents & {"inventory", "pricing", "payments"} == {"payments"}
    # No StatefulSet takes another, and Helm would learn that from the API server in the middle of an upgrade.
    values["notary"]["storageClassName"] = "fast"
    with pytest.raises(ConfigurationError, match=r'notary\.storageClassName: .* has ""'):
        await deploy(plane, CHART, prepared, values)
    history = json.loads(await plane.helm("history", "sealbus", "-n", "sealbus", "-o", "json"))
    assert [one["status"] for one in history] == ["superseded", "deployed"]


@pytest.mark.kubernetes
async def test_nodes_are_drained_under_a_deployment_of_ones_own(plane: ControlPlane, prepared: Path) -> None:
    await deploy_nats(plane, "rendered-three.yaml")
    await deploy(plane, CHART, prepared, own_values())
    await expect_admitted(plane)
    servers = dict.fromkeys([f"nats-js-nats-{number}" for number in range(3)], ("standard", "Bound"))
    callouts = dict.fromkeys(("policy-callout-0", "policy-callout-1"), ("standard", "Bound"))
    assert await claims(plane) == {**servers, **callouts, "log-notary-0": ("fast", "Bound")}
    scaled = ("deployment/payments", "-n", "sealbus", "--for=jsonpath={.status.readyReplicas}=2", "--timeout=60s")
    await plane.kubectl("wait", *scaled)
    budgets = ("pdb", "--all", "-A", "--for=jsonpath={.status.disruptionsAllowed}=1", "--timeout=60s")
    await plane.kubectl("wait", *budgets)
    async with fewest_ready(plane) as fewest:
        [moved] = [one["metadata"]["name"] for one in await pods_at(plane, "nats", "node-0")]
        await plane.kubectl("drain", "node-0", *DRAIN, within=150)
        # It has no place now, because no node may have two servers: the next drain has to wait for it.
        for condition in ("create", "condition=PodScheduled=False"):
            await plane.kubectl("wait", f"pod/{moved}", "-n", "nats", f"--for={condition}", "--timeout=30s")
        async with plane.started("drain", "node-1", *DRAIN) as second:
            assert second.stdout is not None
            await until(second.stdout, '-n "nats" (will retry')
            await plane.kubectl("uncordon", "node-0")
            rest, _ = await second.communicate()
            assert second.returncode == 0, rest.decode()
        await plane.kubectl("uncordon", "node-1")
        await settled(plane)
    assert fewest["nats"] == 2
    assert all(fewest[name] for name in ("callout", "policy", "opa", "edge", "payments"))
