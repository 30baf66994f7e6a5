"""OPA's configuration for bundles from the policy server: the address, the certificates and the trusted signers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sealbus.envelopes.trust.keys import PublicKey, key_id, public_pem


@dataclass(frozen=True, slots=True, kw_only=True)
class OpaFiles:
    """OPA's own SVID with its key, and the trust domain's X.509 bundle, all PEM; OPA reloads them by itself."""

    certificate: Path
    key: Path
    bundle: Path


def opa_config(
    url: str,
    signers: Sequence[PublicKey],
    files: OpaFiles,
    *,
    scope: str = "sealbus",
    wait: int = 30,
    persist: Path | None = None,
) -> str:
    """Return the configuration, JSON, for the policy server at `url` (`https://host:port`) that signs by one of `signers`.

    Give several signers while one replaces another: OPA then uses the key that a bundle's signature names. OPA compares the
    host with the certificate, so the server's SVID must have the host as a DNS name or an address. `wait` is the duration of
    one long poll in seconds. With a folder `persist`, OPA can start with its last bundle while the server is unavailable. It
    verifies this bundle again.
    """
    bundle: dict[str, object] = {
        "service": "sealbus",
        "resource": f"/bundles/{scope}.tar.gz",
        "polling": {"min_delay_seconds": 1, "max_delay_seconds": 5, "long_polling_timeout_seconds": wait},
        "signing": {"scope": scope, **({"keyid": key_id(signers[0])} if len(signers) == 1 else {})},
    }
    config: dict[str, object] = {
        "services": {
            "sealbus": {
                "url": url,
                "response_header_timeout_seconds": wait + 10,
                "tls": {"ca_cert": str(files.bundle)},
                "credentials": {
                    "client_tls": {
                        "cert": str(files.certificate),
                        "private_key": str(files.key),
                        "cert_reread_interval_seconds": 5,
                    }
                },
            }
        },
        "keys": {key_id(signer): {"algorithm": "ES256", "key": public_pem(signer)} for signer in signers},
        "bundles": {scope: bundle},
        # Without this, /v1/status does not say why a bundle was refused.
        "status": {"prometheus": True},
    }
    if persist is not None:
        bundle["persist"] = True
        config["persistence_directory"] = str(persist)
    return json.dumps(config, indent=2) + "\n"
