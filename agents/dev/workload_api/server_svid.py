"""Server SVIDs as files, for servers that do not speak SPIFFE: nats-server reads them, and reloads on a signal."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from sealbus.agents.dev.workload_api.authority import DevelopmentAuthority
from sealbus.agents.files import PRIVATE, PUBLIC, replace_file
from sealbus.agents.identity.svid_files.files import pem_certificates, pem_key
from sealbus.envelopes.trust.spiffe_id import SpiffeId


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSvidFiles:
    """The files of a server SVID, all as PEM: the chain with the leaf first, the key (0600), and the trust bundle.

    `not_after` is that of the leaf, in microseconds: before it, the caller writes a new SVID and reloads the server.
    """

    certificate: Path
    key: Path
    bundle: Path
    not_after: int


def write_server_svid(
    folder: Path,
    authority: DevelopmentAuthority,
    spiffe_id: SpiffeId,
    *,
    dns: Iterable[str] = ("localhost",),
    ttl: int = 86_400,
) -> ServerSvidFiles:
    """Issue an X.509-SVID that lives `ttl` seconds and write it to `folder` as svid.pem, svid.key and bundle.pem.

    `dns` names (or IP addresses) are for peers that check host names, such as other nats-servers; sealbus checks the SPIFFE
    ID instead. Each file is replaced whole. The key is written before the certificate: a server that reloads in between
    refuses the pair, which does not match, and keeps its old pair.
    """
    svid = authority.issue_x509(spiffe_id, dns_names=dns, ttl=ttl)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    files = ServerSvidFiles(
        certificate=folder / "svid.pem",
        key=folder / "svid.key",
        bundle=folder / "bundle.pem",
        not_after=svid.not_after,
    )
    replace_file(files.key, pem_key(svid.key), mode=PRIVATE)
    replace_file(files.certificate, pem_certificates(svid.chain), mode=PUBLIC)
    replace_file(files.bundle, pem_certificates(authority.x509_bundle()), mode=PUBLIC)
    return files
