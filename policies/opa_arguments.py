"""How an OPA is started: beside a worker on a unix socket, or as a central one that is asked over mutual TLS."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sealbus.envelopes.errors import ConfigurationError
from sealbus.policies.opa_wire import SYSTEM

__all__ = ["MutualTls", "server_arguments"]


@dataclass(frozen=True, slots=True, kw_only=True)
class MutualTls:
    """An address where OPA is asked over mutual TLS 1.3, with the files that it reads again within a second of a change.

    `certificate` and `key` are OPA's X.509-SVID, PEM. `trust_bundle` is the X.509 bundle, PEM, of the one trust domain
    whose workloads may come at all: with two, either's certificate authority could name a client for the other.
    `system` is the folder of the policy bundle that says which of them may ask what, named `system` as its one root.
    """

    address: str
    certificate: Path
    key: Path
    trust_bundle: Path
    system: Path

    def __post_init__(self) -> None:
        if self.system.name != SYSTEM:
            raise ConfigurationError(f"{self.system}: the folder of the bundle that guards OPA must be called {SYSTEM}")


def server_arguments(
    *, socket: Path, bundle: Path | None = None, config: Path | None = None, tls: MutualTls | None = None
) -> list[str]:
    """Return what `opa` is started with: a server that decides by the bundle file `bundle`, which it watches.

    Or by the bundles that its configuration file `config` tells it to take from elsewhere (`opa_config`). It is asked
    on the unix socket; with `tls` at that address, and the socket tells health and metrics only.
    """
    if (bundle is None) == (config is None):
        raise ConfigurationError("OPA decides by a bundle file, or by what its configuration file names: say one")
    address = ["--addr", f"unix://{socket}"]
    bundles = ["--bundle", str(bundle), "--watch"] if bundle is not None else ["--config-file", str(config)]
    if tls is not None:
        address = [
            "--addr", tls.address, "--diagnostic-addr", f"unix://{socket}",
            "--authentication", "tls", "--authorization", "basic", "--min-tls-version", "1.3",
            "--tls-cert-file", str(tls.certificate), "--tls-private-key-file", str(tls.key),
            "--tls-ca-cert-file", str(tls.trust_bundle), "--tls-cert-refresh-period", "1s",
        ]  # fmt: skip
        bundles[2:2] = [str(tls.system)] if bundle is not None else ["--bundle", str(tls.system)]
    return [
        "run", "--server", *address, *bundles, "--unix-socket-perm", "600", "--skip-version-check",
        # Without it OPA converts the whole of the data at each question.
        "--optimize-store-for-read-speed",
        # What became of a replaced bundle is told at this level; requests would be as well.
        "--log-format", "json", "--log-level", "info", "--log-level-request", "debug",
    ]  # fmt: skip
