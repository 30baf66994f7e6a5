"""Where the paths, ports and services of a deployment are on this machine, and their files: what a kubelet would mount.

The list of all that is not as the YAML says, and why:

- A pod's user and group are of its own, where the chart gives all pods one: SPIRE tells processes of one machine apart by
  their users, in a cluster by their pods. Entries are made for what the ClusterSPIFFEIDs say.
- Paths of mounts become folders below one of ours, in arguments, environment and configuration files: there is no mount
  namespace. So nothing here is read-only, and what a container has of its image is this machine's.
- `0.0.0.0:<port>` (`127.0.0.1:<port>` in a probe) becomes a free port of loopback, and so do the ports of nats-server,
  which are numbers in its chart.
- A service with its port becomes `localhost` and such a port, and certificates get `localhost` as a further name. That the
  service exists, leads to a port of a pod, and that its name is one of that pod's certificate, is checked before it is
  replaced.
- The program is ours in place of the image's. Each pod runs once, whatever `replicas` says; of a stateful set each
  replica does.
- Pods start after those that they need. A cluster starts all at once and tries again and again, which on two cores takes
  minutes.
- Readiness is asked more often than the probe says, and a container that ends is started again within 2 s.
"""

from __future__ import annotations

import contextlib
import os
import re
import threading
from pathlib import Path
from typing import Final

from support.pods import Container, Deployed, Files, Mount, Pod, Scratch, WorkloadApi
from support.ports import held_port

__all__ = ["Places"]

_SERVICE: Final = re.compile(
    r"(?:(?P<scheme>[a-z-]+)://)?(?P<host>(?:[a-z0-9-]+\.){2,3}svc|[a-z][a-z0-9-]*):(?P<port>\d{4,5})\b"
)
_LISTEN: Final = re.compile(r"\b0\.0\.0\.0:(\d{4,5})\b")
_NUMBER: Final = re.compile(r'"(port|http_port)": (\d+)')
_TLS: Final = ("tls", "https", "nats-route")


class Places:
    """Of `pods`, below `folder`; `socket` is SPIRE's."""

    def __init__(self, pods: Deployed, folder: Path, socket: Path) -> None:
        self.connections: Final[set[tuple[str, str, int]]] = set()
        """Who was told to connect to which pod, at which of its ports."""
        self._pods = pods
        self._folder = folder
        self._socket = socket
        self._ports: dict[tuple[str, int], int] = {}
        self._allocating = threading.Lock()

    def home(self, pod: Pod) -> Path:
        """Return the folder of a pod."""
        return self._folder / pod.name

    def port(self, pod: str, port: int) -> int:
        """Return the port of this machine that is the pod's `port`."""
        # Containers are prepared in threads.
        with self._allocating:
            found = self._ports.get((pod, port))
            if found is None:
                found = self._ports[pod, port] = held_port()
            return found

    def environment(self, pod: Pod, container: Container) -> dict[str, str]:
        """Return what the container finds in its environment."""
        return {name: self.rewritten(value, pod, container) for name, value in container.environment.items()}

    def materialize(self, pod: Pod, container: Container) -> None:
        """Make folders and files of the container's mounts. Blocks."""
        for mount in container.mounts:
            place = self._place(pod, container, mount)
            if isinstance(mount.source, Scratch):
                place.mkdir(mode=0o700, exist_ok=True)
                os.chown(place, pod.uid, pod.uid)
            elif isinstance(mount.source, WorkloadApi):
                place.mkdir(mode=0o755, exist_ok=True)
                with contextlib.suppress(FileExistsError):
                    (place / mount.source.socket).symlink_to(self._socket)
            else:
                wanted = {place: mount.file} if mount.file else {place / name: name for name in mount.source.content}
                for path, name in wanted.items():
                    self._write(path, mount.source, name, pod, container)

    def rewritten(self, text: str, pod: Pod, container: Container) -> str:
        """Return what a container is told, with the places of this machine."""
        paths = self._paths(pod, container)
        if paths:
            # In one pass: what is put in must not be taken for a path of the container again.
            one_of = "|".join(map(re.escape, sorted(paths, key=len, reverse=True)))
            text = re.sub(rf"(?<![\w.-])(?:{one_of})(?=[/\"',;\s]|$)", lambda found: str(paths[found[0]]), text)
        text = _LISTEN.sub(lambda found: f"127.0.0.1:{self.port(pod.name, int(found[1]))}", text)
        text = _NUMBER.sub(lambda found: f'"{found[1]}": {self.port(pod.name, int(found[2]))}', text)
        return _SERVICE.sub(lambda found: self._service(found, pod), text)

    def _service(self, found: re.Match[str], pod: Pod) -> str:
        host, port = found["host"], int(found["port"])
        if (host, port) not in self._pods.services:
            assert not host.endswith(".svc"), f"no service {host} has port {port}"
            return found[0]
        name, target = self._pods.services[host, port]
        if name != pod.name:
            self.connections.add((pod.name, name, target))
        scheme = found["scheme"] or ""
        if scheme in _TLS:
            assert host in self._pods.pod(name).dns, f"the certificate of {name} does not have the name {host}"
        local = f"{'localhost' if scheme in _TLS else '127.0.0.1'}:{self.port(name, target)}"
        return f"{scheme}://{local}" if scheme else local

    def _place(self, pod: Pod, container: Container, mount: Mount) -> Path:
        if isinstance(mount.source, Scratch):
            return (self._folder if mount.source.shared else self.home(pod)) / f"volume-{mount.source.name}"
        if isinstance(mount.source, WorkloadApi):
            return self._folder / "workload-api"
        return self.home(pod) / f"files-{container.name}" / mount.path.strip("/")

    def _paths(self, pod: Pod, container: Container) -> dict[str, Path]:
        """Return where each path of the container is; with a single file its folders are ours, too."""
        found: dict[str, Path] = {}
        for mount in container.mounts:
            place = self._place(pod, container, mount)
            found[mount.path] = place
            if mount.file:
                # Not the root and not what stands in it: that is the image's.
                for up, folder in zip(list(Path(mount.path).parents)[:-2], place.parents, strict=False):
                    found[str(up)] = folder
        return found

    def _write(self, path: Path, files: Files, name: str, pod: Pod, container: Container) -> None:
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        content = files.content[name]
        # A bundle names neither services nor paths.
        if files.public and not name.endswith(".gz"):
            content = self.rewritten(content.decode(), pod, container).encode()
        path.write_bytes(content)
        path.chmod(files.mode)
        os.chown(path, pod.uid if files.own else 0, pod.uid)
