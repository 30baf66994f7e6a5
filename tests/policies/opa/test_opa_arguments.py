"""How an OPA is started; that these arguments do what they say, the tests of the engines and of OPA's process show."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from support.central_opa import SYSTEM

from sealbus.envelopes.errors import ConfigurationError
from sealbus.policies.opa.process import MutualTls, server_arguments

README = SYSTEM.parent / "README.md"


def mutual_tls(system: Path = SYSTEM) -> MutualTls:
    return MutualTls(
        address="0.0.0.0:8443",
        certificate=Path("/run/opa/svid.pem"),
        key=Path("/run/opa/svid.key"),
        trust_bundle=Path("/run/opa/trust.pem"),
        system=system,
    )


def test_beside_a_worker_it_listens_on_its_socket_only() -> None:
    arguments = server_arguments(socket=Path("/run/opa.sock"), bundle=Path("/etc/bundle.tar.gz"))
    assert arguments.count("--addr") == 1
    assert arguments[arguments.index("--addr") + 1] == "unix:///run/opa.sock"
    assert "--authentication" not in arguments


def test_bundles_from_elsewhere_are_named_by_a_configuration_beside_the_guard() -> None:
    arguments = server_arguments(socket=Path("/run/opa.sock"), config=Path("/etc/opa.json"), tls=mutual_tls())
    place = arguments.index("--config-file")
    assert arguments[place : place + 4] == ["--config-file", "/etc/opa.json", "--bundle", str(SYSTEM)]
    assert "--watch" not in arguments


@pytest.mark.parametrize("both", [{}, {"bundle": Path("/b.tar.gz"), "config": Path("/etc/opa.json")}])
def test_it_has_one_place_to_take_its_policy_from(both: dict[str, Path]) -> None:
    with pytest.raises(ConfigurationError, match="give exactly one"):
        server_arguments(socket=Path("/run/opa.sock"), **both)  # type: ignore[arg-type]  # as in a mistake


def test_a_central_one_is_started_as_its_page_says() -> None:
    """The page's command is for OPA alone, with paths of its own; it is the one that the tests run."""
    [shown] = re.findall(r"^```sh\n(opa run .*?)^```$", README.read_text(), re.MULTILINE | re.DOTALL)
    tls = mutual_tls(Path("deploy/local/opa/system"))
    expected = server_arguments(socket=Path("/run/opa/health.sock"), bundle=Path("/var/lib/opa/bundle.tar.gz"), tls=tls)
    assert shlex.split(shown.replace("\\\n", "")) == ["opa", *expected]


def test_the_folder_of_the_guard_has_the_name_that_keeps_it_out_of_revisions() -> None:
    with pytest.raises(ConfigurationError, match="must be called system"):
        mutual_tls(Path("/etc/guard"))
