"""Pods out of Kubernetes' YAML: what a cluster would make of it, as far as it says which processes run, how and as whom."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping
from typing import Any

import yaml
from support.pods import Container, Deployed, Files, Mount, Pod, Probe, Scratch, WorkloadApi

__all__ = ["deployed", "pod_names"]

_WORKLOADS = ("Deployment", "StatefulSet", "Job")
_SECONDS = {"s": 1, "m": 60, "h": 3_600}
_TEMPLATE = re.compile(r"\{\{ *(?:index )?\.([A-Za-z.]+)(?: \"([^\"]+)\")? *\}\}")

Document = Mapping[str, Any]


def deployed(
    *texts: str, namespaces: Iterable[str], trust_domain: str, socket: str, secrets: Mapping[str, Mapping[str, bytes]]
) -> Deployed:
    """Return the pods of what `texts` hold, each of a namespace; `secrets` are secrets and config maps by their names.

    Every pod is there once, but for the replicas of a stateful set, which have names of their own. A name that nobody has, or
    a pod that not exactly one ClusterSPIFFEID selects, is a KeyError or an AssertionError.
    """
    documents = [
        (one["metadata"].get("namespace", namespace), one)
        for text, namespace in zip(texts, namespaces, strict=True)
        for one in yaml.safe_load_all(text)
        if one
    ]
    reader = _Reader(documents, trust_domain, socket, secrets)
    workloads = [(namespace, one) for namespace, one in documents if one["kind"] in _WORKLOADS]
    return Deployed(
        pods=tuple(reader.pod(*one, name) for one in workloads for name in pod_names(one[1])),
        services=reader.services(workloads),
    )


def pod_names(workload: Document) -> tuple[str, ...]:
    """Return the names of the pods of `workload`: its own, or with a number for those of a stateful set that has several."""
    name = workload["metadata"]["name"]
    replicas = workload["spec"].get("replicas", 1) if workload["kind"] == "StatefulSet" else 1
    return tuple(f"{name}-{at}" for at in range(replicas)) if replicas > 1 else (name,)


class _Reader:
    def __init__(
        self,
        documents: list[tuple[str, Document]],
        trust_domain: str,
        socket: str,
        secrets: Mapping[str, Mapping[str, bytes]],
    ) -> None:
        self.documents = documents
        self.trust_domain = trust_domain
        self.socket = socket
        self.secrets = secrets

    def of_kind(self, kind: str) -> list[tuple[str, Document]]:
        return [(namespace, one) for namespace, one in self.documents if one["kind"] == kind]

    def services(self, workloads: list[tuple[str, Document]]) -> dict[tuple[str, int], tuple[str, int]]:
        found: dict[tuple[str, int], tuple[str, int]] = {}
        for namespace, service in self.of_kind("Service"):
            for place, workload in workloads:
                template = workload["spec"]["template"]
                if place != namespace or not _selects(service["spec"]["selector"], template["metadata"]["labels"]):
                    continue
                ports = {
                    port["name"]: port["containerPort"]
                    for container in template["spec"]["containers"]
                    for port in container.get("ports", ())
                }
                host = f"{service['metadata']['name']}.{namespace}.svc"
                names = pod_names(workload)
                for port in service["spec"]["ports"]:
                    target = ports[port["targetPort"]]
                    found[host, port["port"]] = names[0], target
                    if service["metadata"]["name"] == workload["spec"].get("serviceName"):
                        found |= {(f"{name}.{host}", port["port"]): (name, target) for name in names}
        return found

    def pod(self, namespace: str, workload: Document, name: str) -> Pod:
        template = workload["spec"]["template"]
        spec, labels = template["spec"], template["metadata"]["labels"]
        account = spec["serviceAccountName"]
        assert any(
            place == namespace and one["metadata"]["name"] == account for place, one in self.of_kind("ServiceAccount")
        ), f"there is no service account {account}"
        identity = self._identity(namespace, account, labels)
        values = {
            "TrustDomain": self.trust_domain,
            "PodSpec.ServiceAccountName": account,
            "PodMeta.Namespace": namespace,
            "PodMeta.Name": name,
        }

        def filled(text: str) -> str:
            return _TEMPLATE.sub(lambda found: labels[found[2]] if found[2] else values[found[1]], text)

        volumes = {one["name"]: one for one in spec["volumes"]}
        claims = {one["metadata"]["name"] for one in workload["spec"].get("volumeClaimTemplates", ())}

        def container(one: Document) -> Container:
            return self._container(one, volumes, claims, pod=name)

        return Pod(
            name=name,
            spiffe_id=filled(identity["spiffeIDTemplate"]),
            dns=tuple(filled(one) for one in identity.get("dnsNameTemplates", ())),
            x509_ttl=_seconds(identity.get("ttl", "1h")),
            jwt_ttl=_seconds(identity.get("jwtTtl", "5m")),
            first=tuple(container(one) for one in spec.get("initContainers", ())),
            containers=tuple(container(one) for one in spec["containers"]),
            once=workload["kind"] == "Job",
        )

    def _identity(self, namespace: str, account: str, labels: Mapping[str, str]) -> Document:
        found = [
            one["spec"]
            for _, one in self.of_kind("ClusterSPIFFEID")
            if _selects(one["spec"]["namespaceSelector"]["matchLabels"], {"kubernetes.io/metadata.name": namespace})
            and _selects(one["spec"]["podSelector"]["matchLabels"], labels)
            and all(said == f"k8s:sa:{account}" for said in one["spec"].get("workloadSelectorTemplates", ()))
        ]
        assert len(found) == 1, f"{len(found)} ClusterSPIFFEIDs select {namespace}/{account} {labels}"
        identity: Document = found[0]
        return identity

    def _container(self, one: Document, volumes: Mapping[str, Document], claims: set[str], *, pod: str) -> Container:
        environment: dict[str, str] = {}
        for source in one.get("envFrom", ()):
            content = self._content(source["configMapRef"]["name"])
            environment |= {key: value.decode() for key, value in content.items()}
        for entry in one.get("env", ()):
            if "valueFrom" in entry:
                assert entry["valueFrom"]["fieldRef"]["fieldPath"] == "metadata.name"
                environment[entry["name"]] = pod
            else:
                environment[entry["name"]] = re.sub(r"\$\((\w+)\)", lambda name: environment[name[1]], entry["value"])
        probe = one.get("readinessProbe", {}).get("httpGet")
        ports = {port["name"]: port["containerPort"] for port in one.get("ports", ())}
        return Container(
            name=one["name"],
            image=one["image"],
            command=tuple(one.get("command", ())),
            arguments=tuple(one.get("args", ())),
            environment=environment,
            mounts=tuple(
                Mount(
                    path=mount["mountPath"],
                    source=Scratch(mount["name"]) if mount["name"] in claims else self._source(volumes[mount["name"]]),
                    file=mount.get("subPath", ""),
                )
                for mount in one["volumeMounts"]
            ),
            ready=Probe(port=ports[probe["port"]], path=probe["path"]) if probe else None,
            sidecar=one.get("restartPolicy") == "Always",
        )

    def _source(self, volume: Document) -> Files | Scratch | WorkloadApi:
        if "csi" in volume:
            assert volume["csi"] == {"driver": "csi.spiffe.io", "readOnly": True}
            return WorkloadApi(self.socket)
        if "configMap" in volume:
            return Files(content=self._content(volume["configMap"]["name"]))
        if "secret" in volume:
            said = volume["secret"]
            return Files(content=self._content(said["secretName"]), public=False, mode=said["defaultMode"])
        assert "emptyDir" in volume, volume
        return Scratch(volume["name"])

    def _content(self, name: str) -> Mapping[str, bytes]:
        for _, one in self.of_kind("ConfigMap"):
            if one["metadata"]["name"] == name:
                binary = {key: base64.b64decode(value) for key, value in one.get("binaryData", {}).items()}
                return {key: value.encode() for key, value in one.get("data", {}).items()} | binary
        return self.secrets[name]


def _selects(selector: Mapping[str, str], labels: Mapping[str, str]) -> bool:
    return all(labels.get(name) == value for name, value in selector.items())


def _seconds(text: str) -> int:
    return int(text[:-1]) * _SECONDS[text[-1]]
