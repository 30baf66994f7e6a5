"""The stack's place on a machine: its ports, its folders, what its processes are told, and what it leaves for later ones."""

from __future__ import annotations

import os
import stat
from dataclasses import astuple
from pathlib import Path

import pytest
from stack.ports import Ports
from stack.roster import AGENTS, CONTROL, EDGE, NATS, NOTARY, OPA, PEOPLE, SHOP_GROUP, entries
from stack.run_as import as_user
from stack.running import LOG_ORIGIN
from stack.site import Site
from stack.state import State

from sealbus.agents.runtime.settings.settings import load_settings
from sealbus.envelopes.errors import ConfigurationError

EVERYBODY = (NATS, OPA, CONTROL, NOTARY, EDGE, *AGENTS, *PEOPLE)


def site_in(folder: Path) -> Site:
    return Site(folder=folder, ports=Ports(), workload_api=f"unix://{folder}/agent.sock")


def test_held_ports_are_all_different() -> None:
    with Ports.held() as held:
        ports = astuple(held)
    assert len(set(ports)) == len(ports)


def test_no_two_workloads_but_people_are_one_user() -> None:
    """SPIRE tells processes of one machine apart by their users: two workloads of one user would be one."""
    users = [one.uid for one in EVERYBODY if one not in PEOPLE]
    assert len(set(users)) == len(users)
    assert 0 not in users


def test_servers_have_names_for_who_checks_host_names() -> None:
    made = {entry.spiffe_id.path: entry for entry in entries(x509_ttl=60, jwt_ttl=120, server_ttl=3600)}
    assert made["/nats"].dns == ("localhost",)
    assert made["/nats"].x509_ttl == 3600
    assert made["/agent/planner"].x509_ttl == 60


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give folders to other users (run as root)")
def test_folders_are_their_owners(tmp_path: Path) -> None:
    site = site_in(tmp_path / "stack")
    site.prepare()
    own = site.own_folder(AGENTS[0], "opa")
    for path in (own, own.parent):
        status = path.stat()
        assert (status.st_uid, stat.S_IMODE(status.st_mode)) == (AGENTS[0].uid, 0o700)
    assert site.database.stat().st_gid == SHOP_GROUP
    assert stat.S_IMODE(site.folder.stat().st_mode) == 0o711


@pytest.mark.parametrize("workload", [EDGE, CONTROL, NOTARY, *AGENTS, *PEOPLE], ids=lambda one: one.path)
def test_what_a_process_is_told_is_a_whole_configuration(workload: object, tmp_path: Path) -> None:
    site = site_in(tmp_path)
    environment = site.environment(workload)  # type: ignore[arg-type]  # the parameters are workloads
    if workload is EDGE:
        environment |= site.edge_environment("http://127.0.0.1:1/issuer")
    settings = load_settings(environment=environment)
    assert settings.nats == (f"tls://localhost:{site.ports.nats}",)
    assert settings.policy.engine == workload.engine  # type: ignore[attr-defined]  # as above
    assert settings.names.id_of(workload.name) == workload.spiffe_id or workload in PEOPLE  # type: ignore[attr-defined]
    assert str(settings.names.id_of("edge")) == "spiffe://example.org/edge"
    assert settings.control.notary.origin == LOG_ORIGIN
    if workload is EDGE:
        assert [one.issuer for one in settings.edge.issuers] == ["http://127.0.0.1:1/issuer"]


def test_another_user_is_made_by_setpriv_and_ourselves_by_nothing() -> None:
    command = as_user(AGENTS[0].uid, AGENTS[0].gid)
    assert f"--reuid={AGENTS[0].uid}" in command
    assert f"--regid={SHOP_GROUP}" in command
    assert as_user(None) == ()
    assert as_user(os.geteuid()) == ()


def test_the_state_is_read_as_it_was_written(tmp_path: Path) -> None:
    state = State(site=site_in(tmp_path), pid=17, opas={"opa-inventory": 18})
    with pytest.raises(ConfigurationError, match="no stack runs in"):
        State.read(tmp_path)
    state.write()
    assert State.read(tmp_path) == state
    state.remove()
    with pytest.raises(ConfigurationError, match="make stack"):
        State.read(tmp_path)
