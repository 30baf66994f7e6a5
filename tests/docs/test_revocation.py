"""What docs/revocation.md shows: its settings load, its key may be named by a bundle, its events are those that are taken."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.settings import load

from sealbus.agents.edge.edge import issuers_of
from sealbus.agents.edge.http.limits import DEFAULT_EDGE_LIMITS
from sealbus.agents.edge.oauth.tokens import security_events
from sealbus.agents.edge.v1.revocation_routes import LOGOUT_PATH, SECURITY_EVENTS_PATH
from sealbus.envelopes.trust.keys import key_id, read_signing_key
from sealbus.policies.bundle.files import STARTER, build_bundle
from sealbus.policies.bundle.revocations import revokers_of

TEXT = (Path(__file__).parents[2] / "docs" / "revocation.md").read_text()


def block(name: str) -> str:
    return TEXT.partition(f"<!-- {name} -->\n")[2].partition("\n")[2].partition("```")[0]


def test_its_settings_say_who_may_report(tmp_path: Path) -> None:
    said = 'trust_domain = "example.org"\nnats = ["tls://nats:4222"]\n' + block("settings")
    settings = load(tmp_path, said)
    assert settings.control.revoker.key == tmp_path / "revoker.pem"
    [row] = issuers_of(settings.edge)
    assert row.event_audiences == {"https://api.example.org/events"}
    assert row.logout_audiences == {"shop-web"}
    for path in (SECURITY_EVENTS_PATH, LOGOUT_PATH):
        assert f"https://api.example.org{path}" in TEXT


def test_its_key_is_named_by_the_bundle_that_it_makes(tmp_path: Path) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("there is no openssl: the document's key is made with it")
    shutil.copytree(STARTER, tmp_path / "shop-policy")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    subprocess.run(["sh", "-e", "-c", block("key")], cwd=tmp_path, env={**os.environ, "PATH": path}, check=True)
    key = read_signing_key((tmp_path / "revoker.pem").read_bytes(), name="revoker.pem")
    assert (tmp_path / "revoker.pem").stat().st_mode & 0o777 == 0o600
    assert list(revokers_of(build_bundle(tmp_path / "shop-policy", part=True))) == [key_id(key.public)]


def test_its_events_are_those_that_are_taken() -> None:
    table = TEXT.partition("| event | denies |")[2].partition("\n\n")[0]
    names = {one.rpartition("/")[2] for one in security_events._EVENTS}
    assert names <= set(re.findall(r"`([a-z-]+)`", table))
    assert set(re.findall(r"`([a-z]+-[a-z-]+)`", table)) <= names


def test_its_rates_are_those_in_force() -> None:
    limits = DEFAULT_EDGE_LIMITS
    assert f"{limits.event_rate:.0f} a second, {limits.event_burst:,} at once" in TEXT
    assert (limits.token_bytes, limits.form_bytes) == (16 * 1_024, 32 * 1_024)
