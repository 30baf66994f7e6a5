"""Pods and containers as a deployment's YAML describes them, before anything is run: values without behavior."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["Container", "Deployed", "Files", "Mount", "Pod", "Probe", "Scratch", "WorkloadApi"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Files:
    """Files that are there before the container is: a config map, a secret, or something of the repository.

    `public` ones are text that may name services and paths; others are left as they are. `own`: they belong to the pod's
    user, otherwise to root and the pod's group.
    """

    content: Mapping[str, bytes]
    public: bool = True
    mode: int = 0o644
    own: bool = False


@dataclass(frozen=True, slots=True)
class Scratch:
    """An empty folder: of one pod, or with `shared` of all that name it."""

    name: str
    shared: bool = False


@dataclass(frozen=True, slots=True)
class WorkloadApi:
    """The folder of SPIRE's socket, which is called `socket` in it."""

    socket: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """`source` at `path`; with `file` only this one of its files, which then is `path`."""

    path: str
    source: Files | Scratch | WorkloadApi
    file: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """A readiness probe: a GET of `path` at the container's `port`, or a command."""

    port: int = 0
    path: str = ""
    command: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    """One container. `command` is in place of the image's own program, `sidecar` is an init container that stays."""

    name: str
    image: str
    arguments: tuple[str, ...]
    environment: Mapping[str, str]
    mounts: tuple[Mount, ...]
    command: tuple[str, ...] = ()
    ready: Probe | None = None
    sidecar: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Pod:
    """One pod: what runs first, one after the other, and what runs then.

    `once`: it ends by itself. `after`: pods that must be ready, or have ended, before. `uid` is 0 where the YAML leaves
    it to us. Lives are in seconds.
    """

    name: str
    spiffe_id: str
    dns: tuple[str, ...]
    first: tuple[Container, ...]
    containers: tuple[Container, ...]
    x509_ttl: int = 3_600
    jwt_ttl: int = 300
    uid: int = 0
    once: bool = False
    after: tuple[str, ...] = ()

    def container(self, name: str) -> Container:
        """Return the container `name`."""
        return next(one for one in (*self.first, *self.containers) if one.name == name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployed:
    """All pods; `services` says by host and port which pod answers there, at which of its ports."""

    pods: tuple[Pod, ...]
    services: Mapping[tuple[str, int], tuple[str, int]] = field(default_factory=dict)

    def pod(self, name: str) -> Pod:
        """Return the pod `name`."""
        return next(one for one in self.pods if one.name == name)
