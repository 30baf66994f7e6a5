from __future__ import annotations

import errno
import os
import socket
from contextlib import ExitStack
from pathlib import Path

import pytest
from support.workload_api import listening, short_folder

from sealbus.agents.identity.workload_api import Endpoint
from sealbus.envelopes.errors import ConfigurationError, IdentityUnavailable


@pytest.mark.parametrize(
    "text", ["unix:///run/agent.sock", "unix:/run/agent.sock", "unix:////run/agent.sock", "/run/agent.sock"]
)
def test_spellings_of_one_socket(text: str) -> None:
    """Every spelling that gRPC and `spiffe` take is one endpoint."""
    assert str(Endpoint.find(text)) == "unix:///run/agent.sock"


def test_default_is_the_environment_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    """`SPIFFE_ENDPOINT_SOCKET` counts where nothing is said, and only there."""
    monkeypatch.setenv("SPIFFE_ENDPOINT_SOCKET", "unix:///run/a.sock")
    assert Endpoint.find().path == "/run/a.sock"
    assert Endpoint.find("unix:///run/b.sock").path == "/run/b.sock"


def test_nothing_said_names_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without any address the line says which variable to set."""
    monkeypatch.delenv("SPIFFE_ENDPOINT_SOCKET", raising=False)
    with pytest.raises(ConfigurationError, match="set SPIFFE_ENDPOINT_SOCKET=unix:///"):
        Endpoint.find()


@pytest.mark.parametrize("text", ["tcp://127.0.0.1:8080", "https://agent", "agent.sock", "unix:///run/a?b", "/a\0b"])
def test_other_addresses_are_refused(text: str) -> None:
    """No other scheme, no relative path, nothing that a URL reader would cut."""
    with pytest.raises(ConfigurationError):
        Endpoint.find(text)


def test_missing_socket_is_named() -> None:
    """One line with the path and what to do."""
    with short_folder() as folder:
        path = folder / "agent.sock"
        with pytest.raises(IdentityUnavailable) as caught:
            Endpoint(str(path)).check()
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    assert "start the SPIRE agent" in str(caught.value)


def test_a_file_is_no_socket() -> None:
    """A regular file at the path is said to be one."""
    with short_folder() as folder:
        path = folder / "agent.sock"
        path.write_bytes(b"")
        with pytest.raises(IdentityUnavailable, match="not a socket"):
            Endpoint(str(path)).check()


def test_no_permission_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """A socket that is not ours is told apart from one that nobody answers."""
    with short_folder() as folder, bound(folder / "agent.sock") as path:
        Endpoint(str(path)).check()
        # The tests may run as root, to whom every file is open.
        monkeypatch.setattr(os, "access", lambda path, mode: False)
        with pytest.raises(IdentityUnavailable, match="run as the user that owns the socket"):
            Endpoint(str(path)).check()


def test_who_listens_is_there_however_busy() -> None:
    """Also with a full queue; a socket whose owner is gone is not."""
    with short_folder() as folder:
        endpoint = Endpoint(str(folder / "agent.sock"))
        assert "start the SPIRE agent" in endpoint.absence()
        with listening(folder / "agent.sock"), ExitStack() as waiting:
            assert endpoint.absence() == ""
            clients = [waiting.enter_context(socket.socket(socket.AF_UNIX)) for _ in range(3)]
            for client in clients:
                client.setblocking(False)
            assert [client.connect_ex(endpoint.path) for client in clients][-1] == errno.EAGAIN
            assert endpoint.absence() == ""
        assert "does not answer" in endpoint.absence()


class bound:  # noqa: N801
    """A unix socket at `path` while the context lasts."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._socket = socket.socket(socket.AF_UNIX)

    def __enter__(self) -> Path:
        self._socket.bind(str(self._path))
        return self._path

    def __exit__(self, *_: object) -> None:
        self._socket.close()
