"""Whether NetworkPolicies let one pod connect to another: the part of their rules that our chart uses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import yaml
from support.kubernetes_yaml import pod_names

__all__ = ["Network"]

NAMESPACE = "kubernetes.io/metadata.name"
Document = Mapping[str, Any]
Place = tuple[str, Mapping[str, str]]
"""A pod's namespace and labels."""


class Network:
    """The pods and policies of `texts`, each rendered for a namespace."""

    def __init__(self, *texts: str, namespaces: Sequence[str]) -> None:
        self._pods: dict[str, Place] = {}
        self._policies: list[tuple[str, Document]] = []
        for text, default in zip(texts, namespaces, strict=True):
            for one in yaml.safe_load_all(text):
                if not one:
                    continue
                namespace = one["metadata"].get("namespace", default)
                if one["kind"] == "NetworkPolicy":
                    self._policies.append((namespace, one["spec"]))
                elif "template" in one.get("spec", {}):
                    labels = one["spec"]["template"]["metadata"]["labels"]
                    self._pods |= dict.fromkeys(pod_names(one), (namespace, labels))

    def allows(self, source: str, target: str, port: int) -> bool:
        """Tell whether the pod `source` may connect to `port` of the pod `target`: both sides must let it."""
        one, other = self._pods[source], self._pods[target]
        return self._lets(one, "egress", "to", other, port) and self._lets(other, "ingress", "from", one, port)

    def _lets(self, pod: Place, direction: str, key: str, peer: Place, port: int) -> bool:
        selecting = [
            (namespace, spec)
            for namespace, spec in self._policies
            if namespace == pod[0]
            and _matches(spec["podSelector"], pod[1])
            and direction.capitalize() in spec["policyTypes"]
        ]
        # A pod that no policy selects is open, which is none of ours.
        return any(
            any(one["port"] == port for one in rule["ports"])
            and (key not in rule or any(self._is(namespace, one, peer) for one in rule[key]))
            for namespace, spec in selecting
            for rule in spec.get(direction, ())
        )

    @staticmethod
    def _is(namespace: str, selector: Document, peer: Place) -> bool:
        if "namespaceSelector" in selector:
            there = _matches(selector["namespaceSelector"], {NAMESPACE: peer[0]})
        else:
            there = peer[0] == namespace
        return there and _matches(selector.get("podSelector", {}), peer[1])


def _matches(selector: Document, labels: Mapping[str, str]) -> bool:
    assert selector.keys() <= {"matchLabels"}
    return all(labels.get(name) == value for name, value in selector.get("matchLabels", {}).items())
