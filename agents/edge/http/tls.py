"""TLS of the edge's two listeners: a server context that is replaced when its certificate changes.

`ssl` can add to a context but remove nothing, and asyncio keeps the context that it was given. So the outer context makes a
new inner context whenever the certificate or key changes, and every handshake uses the newest inner context.
"""

from __future__ import annotations

import logging
import ssl
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Self

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm

from sealbus.agents.edge.http.reachable import is_loopback
from sealbus.agents.files import file_errors
from sealbus.agents.runtime.health import parse_address
from sealbus.agents.runtime.settings.schema import ConsoleTable, EdgeTable, LogServerTable, WitnessTable
from sealbus.bus.nats.connection.tls import server_context
from sealbus.bus.ports import Identity, X509Material
from sealbus.bus.telemetry import Counters
from sealbus.envelopes.errors import ConfigurationError, IdentityUnavailable
from sealbus.envelopes.trust.spiffe_id import TrustDomain

_logger: Final = logging.getLogger(__name__)


class RotatingContext(ssl.SSLContext):
    """The outer context for asyncio: each handshake uses the context that `current` returns at that moment."""

    _current: Callable[[], ssl.SSLContext]

    def __new__(cls, current: Callable[[], ssl.SSLContext]) -> Self:
        """Make the outer context, which never shakes hands itself; `ssl` requires the protocol here."""
        del current
        return super().__new__(cls, ssl.PROTOCOL_TLS_SERVER)

    def __init__(self, current: Callable[[], ssl.SSLContext]) -> None:
        self._current = current

    def wrap_bio(self, *args: Any, **options: Any) -> ssl.SSLObject:
        """Return a connection of the newest inner context; an error ends this connection only."""
        return self._current().wrap_bio(*args, **options)


def svid_context(identity: Identity, trust_domain: TrustDomain) -> RotatingContext:
    """Return the context of a listener that presents `identity`'s X.509-SVID and requires an X.509-SVID of `trust_domain`."""
    made: tuple[X509Material, ssl.SSLContext] | None = None

    def current() -> ssl.SSLContext:
        nonlocal made
        try:
            material = identity.x509()
        except IdentityUnavailable as error:
            raise ssl.SSLError(1, "no X.509-SVID to show") from error
        if made is None or made[0] is not material:
            made = (material, server_context(material, trust_domain=trust_domain))
        return made[1]

    return RotatingContext(current)


class ListenerFiles:
    """The files of a listener's certificate and key, and of the authorities of clients' certificates.

    Replaced files are read again when they are next asked for. If they cannot be used then, the last good ones stay.
    """

    def __init__(self, certificate: Path, key: Path, clients: Path | None = None) -> None:
        """Read the files; raise `ConfigurationError` if they cannot be used now."""
        self._certificate, self._key, self._clients = certificate, key, clients
        self._stamp = _stamp(certificate, key, clients)
        self._context, self._life = _from_files(certificate, key, clients)
        self._reported = ""

    def context(self) -> ssl.SSLContext:
        """Return the context of the newest files."""
        stamp = _stamp(self._certificate, self._key, self._clients)
        if stamp != self._stamp:
            try:
                self._context, self._life = _from_files(self._certificate, self._key, self._clients)
            except ConfigurationError as error:
                # A certificate and its key are two files: between their two replacements they do not match.
                if error.detail != self._reported:
                    self._reported = error.detail
                    _logger.warning("edge: the last good certificate stays in use: %s", self._reported)
            else:
                self._stamp = stamp
                self._reported = ""
        return self._context

    def show(self, listener: str, counters: Counters) -> None:
        """Show under the name `listener` in `counters` when the certificate in use was issued and when it ends."""

        def times(end: int) -> dict[tuple[str, ...], float]:
            # Read here as well, because a listener that nobody connects to has no handshakes.
            self.context()
            return {(listener,): self._life[end]} if self._life is not None else {}

        counters.gauges("sealbus_certificate_issued_timestamp_seconds", ("listener",), lambda: times(0))
        counters.gauges("sealbus_certificate_expiry_timestamp_seconds", ("listener",), lambda: times(1))


def file_context(certificate: Path, key: Path, clients: Path | None = None) -> RotatingContext:
    """Return the context of the public listener; replaced files are read again at the next handshake.

    `clients` holds the authorities of clients' certificates; a client may then present a certificate.

    Raises `ConfigurationError` if the files cannot be used now. If they cannot be used later, the last good context stays.
    """
    return RotatingContext(ListenerFiles(certificate, key, clients).context)


def _from_files(
    certificate: Path, key: Path, clients: Path | None
) -> tuple[ssl.SSLContext, tuple[float, float] | None]:
    """Return the context, and the Unix times of the certificate's begin and end, None if they cannot be read."""
    _check_private(key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(certificate, key)
    except OSError as error:
        raise ConfigurationError(
            f"edge.certificate {certificate} and edge.key {key} cannot be used: {error.strerror or type(error).__name__}"
        ) from error
    if clients is not None:
        context.verify_mode = ssl.CERT_OPTIONAL
        # A resumed session would keep a client's certificate without asking for its key.
        context.num_tickets = 0
        context.options |= ssl.OP_NO_TICKET
        try:
            context.load_verify_locations(clients)
        except OSError as error:
            raise ConfigurationError(
                f"edge.client_authorities {clients} cannot be used: {error.strerror or type(error).__name__}"
            ) from error
    return context, _life_of(certificate)


def _life_of(certificate: Path) -> tuple[float, float] | None:
    try:
        leaf = x509.load_pem_x509_certificates(certificate.read_bytes())[0]
    except (OSError, ValueError, x509.InvalidVersion, UnsupportedAlgorithm):
        # Used nevertheless: OpenSSL has loaded it, and also takes some that this parser does not.
        return None
    return leaf.not_valid_before_utc.timestamp(), leaf.not_valid_after_utc.timestamp()


def _check_private(key: Path) -> None:
    # Its group may read it: so Kubernetes gives a secret to a process that does not run as root.
    with file_errors(f"edge.key {key} cannot be used"):
        mode = key.stat().st_mode
    if mode & (stat.S_IRWXO | stat.S_IWGRP):
        raise ConfigurationError(
            f"edge.key {key} can be used by everybody on this machine (mode {stat.S_IMODE(mode):04o}): chmod 600 it, or in "
            "Kubernetes set defaultMode: 0440"
        )


def _stamp(*paths: Path | None) -> tuple[tuple[int, int], ...]:
    stamps = []
    for path in filter(None, paths):
        try:
            status = path.stat()
        except OSError:
            stamps.append((0, 0))
        else:
            stamps.append((status.st_mtime_ns, status.st_ino))
    return tuple(stamps)


def listener_tls(
    name: str,
    table: EdgeTable | ConsoleTable | LogServerTable | WitnessTable,
    clients: Path | None = None,
    *,
    counters: Counters,
) -> RotatingContext | None:
    """Return the TLS of the listener of `table`, the settings under `name`; None if others can only reach it by a proxy.

    `clients` are the authorities of clients' certificates. `counters` shows when the certificate ends. Raises
    `ConfigurationError`, which names the setting.
    """
    if table.certificate is not None and table.key is not None:
        files = ListenerFiles(table.certificate, table.key, clients)
        files.show(name, counters)
        return RotatingContext(files.context)
    if table.certificate is not None or table.key is not None:
        raise ConfigurationError(f"{name}.certificate and {name}.key go together")
    host, _ = parse_address(table.address, f"{name}.address")
    check_plain(name, table, host, f"{name}.address")
    return None


def check_plain(
    name: str, table: EdgeTable | ConsoleTable | LogServerTable | WitnessTable, host: str, setting: str
) -> None:
    """Raise `ConfigurationError` if other machines could reach the listener on `host` without TLS."""
    if table.certificate is None and not table.plaintext and not is_loopback(host):
        raise ConfigurationError(
            f"{setting} {host} is not loopback: set {name}.certificate and {name}.key, "
            f"or {name}.plaintext = true if a proxy in front of it does TLS"
        )
