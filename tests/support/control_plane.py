"""A control plane of Kubernetes for tests, as real as one can be had without containers.

etcd, API server, controllers and scheduler are the programs themselves. For the nodes answers kwok: it says of every pod
that is bound to one that it runs and is ready, and of every job's that it is done. Nothing is run, mounted or probed.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest
import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from stack.probes import http_well, listens
from stack.program import Program, output_of
from stack.site import SEALBUS
from support.helm import require_helm
from support.ports import held_port

from sealbus.envelopes.errors import ConfigurationError

__all__ = ["ControlPlane", "control_plane", "require_control_plane"]

_BUILT: Final = Path(__file__).parents[2] / ".tools" / "kubernetes"
# The last one is kwok's behavior.
_PARTS: Final = (
    "server", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubectl", "kwok", "stages.yaml",
)  # fmt: skip


def require_control_plane() -> None:
    """Skip the test if a program is missing, and name it."""
    require_helm()
    missing = [name for name in _PARTS if not (_BUILT / name).exists()]
    if missing:
        pytest.skip(f"there is no {', '.join(missing)} in .tools/kubernetes: `make tools-kubernetes` builds it")


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlPlane:
    """What runs. `environment` is its administrator's, with `kubectl`, `helm` and `sealbus` on the path."""

    environment: Mapping[str, str]

    async def kubectl(self, *arguments: str, stdin: str = "", within: float = 60.0) -> str:
        """Run kubectl to its end; return what it printed."""
        command = [str(_BUILT / "kubectl"), *arguments]
        return (await output_of(command, stdin=stdin.encode(), environment=self.environment, within=within)).decode()

    async def helm(self, *arguments: str, within: float = 120.0) -> str:
        """Run Helm to its end; return what it printed."""
        command = [require_helm(), *arguments]
        return (await output_of(command, environment=self.environment, within=within)).decode()

    @asynccontextmanager
    async def started(self, *arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
        """Start kubectl, whose output and errors are its `stdout`; it is killed at the end, if it has not ended."""
        process = await asyncio.create_subprocess_exec(
            _BUILT / "kubectl", *arguments,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, env=self.environment,
        )  # fmt: skip
        try:
            yield process
        finally:
            if process.returncode is None:
                process.kill()
            await process.communicate()


@asynccontextmanager
async def control_plane(folder: Path) -> AsyncIterator[ControlPlane]:
    """Run one in `folder`, without nodes; whoever makes nodes has kwok answer for them."""
    storage, peers, api, controllers, scheduler, kwok = (held_port() for _ in range(6))
    etcd, server = f"http://127.0.0.1:{storage}", f"https://127.0.0.1:{api}"
    kubeconfig = folder / "kubeconfig"
    token = secrets.token_hex(16)
    kubeconfig.write_text(json.dumps(_kubeconfig(server, folder / "certs" / "apiserver.crt", token)))
    (folder / "tokens.csv").write_text(f"{token},admin,admin,system:masters\n")
    _service_account_keys(folder)
    (folder / "stages.yaml").write_text(_stages())
    path = os.pathsep.join(
        [str(_BUILT), str(Path(require_helm()).parent), str(Path(SEALBUS).parent), os.environ["PATH"]]
    )
    environment = {"PATH": path, "HOME": str(folder), "KUBECONFIG": str(kubeconfig)}
    plane = ControlPlane(environment=environment)

    async def answers() -> bool:
        try:
            await plane.kubectl("get", "--raw=/readyz", "--request-timeout=2s")
        except ConfigurationError:
            return False
        return True

    async with AsyncExitStack() as stack:

        async def start(name: str, healthy: Callable[[], Awaitable[bool]], **options: object) -> None:
            arguments = [f"--{option.replace('_', '-')}={value}" for option, value in options.items()]
            program = Program(
                [str(_BUILT / name), *arguments], log=folder / f"{name}.log", healthy=healthy, environment=environment
            )
            stack.push_async_callback(program.kill9)
            await program.start()

        client = {"kubeconfig": kubeconfig}
        await start(
            "server", http_well(storage, "/health"),
            data_dir=folder / "etcd", listen_client_urls=etcd, advertise_client_urls=etcd,
            listen_peer_urls=f"http://127.0.0.1:{peers}", initial_advertise_peer_urls=f"http://127.0.0.1:{peers}",
            initial_cluster=f"default=http://127.0.0.1:{peers}", unsafe_no_fsync="true",
        )  # fmt: skip
        await start(
            "kube-apiserver", answers,
            etcd_servers=etcd, bind_address="127.0.0.1", secure_port=api, cert_dir=folder / "certs",
            advertise_address="127.0.0.1", endpoint_reconciler_type="none", service_cluster_ip_range="10.0.0.0/24",
            service_account_key_file=folder / "accounts.pub", service_account_signing_key_file=folder / "accounts.key",
            service_account_issuer="https://kubernetes.default.svc", token_auth_file=folder / "tokens.csv",
            authorization_mode="RBAC",
        )  # fmt: skip
        await start(
            "kube-controller-manager", listens(controllers),
            **client, bind_address="127.0.0.1", secure_port=controllers, cert_dir=folder / "controllers",
            service_account_private_key_file=folder / "accounts.key", use_service_account_credentials="true",
            leader_elect="false", horizontal_pod_autoscaler_sync_period="1s",
        )  # fmt: skip
        await start(
            "kube-scheduler", listens(scheduler),
            **client, bind_address="127.0.0.1", secure_port=scheduler, cert_dir=folder / "scheduler",
            leader_elect="false",
        )  # fmt: skip
        await start(
            "kwok", http_well(kwok, "/healthz"),
            **client, config=folder / "stages.yaml", manage_all_nodes="true", server_address=f"127.0.0.1:{kwok}",
        )  # fmt: skip
        yield plane


def _kubeconfig(server: str, authority: Path, token: str) -> dict[str, object]:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "here", "cluster": {"server": server, "certificate-authority": str(authority)}}],
        "users": [{"name": "admin", "user": {"token": token}}],
        "contexts": [{"name": "here", "context": {"cluster": "here", "user": "admin"}}],
        "current-context": "here",
    }


def _stages() -> str:
    """Return kwok's behavior, but that a pod takes a second to end.

    If it took none, its successor of the same name would be there before the controller of disruption budgets saw it go,
    which would then wait two minutes for that to go, too.
    """
    stages = list(yaml.safe_load_all((_BUILT / "stages.yaml").read_text()))
    ending = next(one for one in stages if one["metadata"]["name"] == "pod-delete")
    ending["spec"]["delay"] = {"durationMilliseconds": 1_000}
    return yaml.safe_dump_all(stages)


def _service_account_keys(folder: Path) -> None:
    key = rsa.generate_private_key(public_exponent=65_537, key_size=2_048)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    (folder / "accounts.key").write_bytes(private)
    (folder / "accounts.pub").write_bytes(public)
