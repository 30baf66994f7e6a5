"""Every way a connection fails is one line that names the server and what to look at."""

from __future__ import annotations

import socket
import ssl

import pytest
from nats.errors import Error as NatsError
from nats.errors import UnexpectedEOF

from sealbus.bus.nats.connection.link import explain
from sealbus.bus.nats.connection.tls import WrongPeer

ME = "spiffe://example.org/agent/a"


def tls_error(reason: str) -> ssl.SSLError:
    error = ssl.SSLError(1, reason)
    error.reason = reason
    return error


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (WrongPeer(1, "the server is x,\nexpected y"), "the server is x, expected y: is this the right server?"),
        (ssl.SSLCertVerificationError(1, "x"), "not issued under"),
        (tls_error("WRONG_VERSION_NUMBER"), "does not start with TLS"),
        (tls_error("TLSV13_ALERT_CERTIFICATE_REQUIRED"), f"refused the certificate of {ME}"),
        (tls_error("NO_SHARED_CIPHER"), "TLS failed (NO_SHARED_CIPHER)"),
        (ConnectionRefusedError(111, "x"), "connection refused"),
        (socket.gaierror(-2, "Name or service not known"), "no such host"),
        (TimeoutError(), "no answer in time"),
        (
            NatsError("nats: 'Authorization Violation'"),
            f"does not let {ME} in: it lists no such user, or its auth callout refused it",
        ),
        (NatsError("nats: empty response from server"), "ended the connection at once"),
        (NatsError("nats: something\nelse"), "nats: something else"),
        (ConnectionResetError(104, "x"), "ended the connection"),
        (OSError(101, "Network is unreachable"), "Network is unreachable"),
        (UnexpectedEOF(), "EOF"),
        (RuntimeError("x" * 1_000), "xxx"),
    ],
)
def test_one_line(error: Exception, words: str) -> None:
    line = explain("tls://nats:4222", ME, error)
    assert line.startswith("tls://nats:4222: ")
    assert words in line
    assert "\n" not in line
    assert len(line) < 500
