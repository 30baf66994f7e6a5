from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.workload_api import StandingClock, short_folder

from sealbus.agents.dev.workload_api.authority import DevelopmentAuthority
from sealbus.envelopes.errors import ConfigurationError
from sealbus.envelopes.trust.spiffe_id import TrustDomain

HOME, AWAY = TrustDomain("example.org"), TrustDomain("other.org")
ME = HOME.id("/agent/planner")


@pytest.fixture
def clock() -> StandingClock:
    """The authority's clock."""
    return StandingClock()


def test_kept_keys_survive_a_restart() -> None:
    """All generations, in a file that only its owner reads."""
    with short_folder() as folder:
        path = folder / "state" / "authority.json"
        first = DevelopmentAuthority.open(path, HOME)
        for step in (first.prepare_x509, first.activate_x509, first.prepare_x509, first.prepare_jwt):
            step()
        assert path.stat().st_mode & 0o777 == 0o600
        assert path.parent.stat().st_mode & 0o777 == 0o700
        second = DevelopmentAuthority.open(path, HOME)
        assert second.x509_bundle() == first.x509_bundle()
        assert second.jwt_bundle() == first.jwt_bundle()
        assert second.x509.prepared is not None
        token = first.issue_jwt(ME, ["a"], ttl=60).token
        assert second.check(token, "a")
        second.activate_jwt()
        assert DevelopmentAuthority.open(path, HOME).jwt_bundle() == second.jwt_bundle()
        assert [item.name for item in path.parent.iterdir()] == ["authority.json"]


def test_a_kept_ca_near_its_end_is_replaced(clock: StandingClock) -> None:
    """Rather than one that dies during the day."""
    with short_folder() as folder:
        path = folder / "authority.json"
        first = DevelopmentAuthority.open(path, HOME, clock=clock, ca_ttl=3 * 86_400)
        clock.advance(86_400)
        assert DevelopmentAuthority.open(path, HOME, clock=clock).x509_bundle() == first.x509_bundle()
        clock.advance(86_400 + 60)
        second = DevelopmentAuthority.open(path, HOME, clock=clock)
        assert second.x509_bundle() != first.x509_bundle()
        assert second.jwt_bundle() == first.jwt_bundle()
        assert DevelopmentAuthority.open(path, HOME, clock=clock).x509_bundle() == second.x509_bundle()


def damaged(path: Path, what: str) -> None:
    document = json.loads(path.read_bytes())
    match what:
        case "open to others":
            path.chmod(0o644)
            return
        case "no JSON":
            path.write_bytes(b"{")
            return
        case "another version":
            document["v"] = 2
        case "a key missing":
            del document["jwt"][0]["key"]
        case "no current key":
            document["jwt"][0]["role"] = "old"
        case "no list":
            document["x509"] = 1
        case _:
            document["x509"][0]["certificate"] = "AAAA"
    path.write_text(json.dumps(document))


@pytest.mark.parametrize(
    "what",
    ["open to others", "no JSON", "another version", "a key missing", "no current key", "no list", "no certificate"],
)
def test_a_damaged_file_is_named(what: str) -> None:
    """With what to do; it is not overwritten."""
    with short_folder() as folder:
        path = folder / "authority.json"
        DevelopmentAuthority.open(path, HOME)
        damaged(path, what)
        before = path.read_bytes()
        with pytest.raises(ConfigurationError, match=r"authority\.json.*remove it"):
            DevelopmentAuthority.open(path, HOME)
        assert path.read_bytes() == before


def test_a_file_of_another_trust_domain_is_named() -> None:
    """Its CA would vouch for nobody here."""
    with short_folder() as folder:
        DevelopmentAuthority.open(folder / "authority.json", AWAY)
        with pytest.raises(ConfigurationError, match=r"belongs to the trust domain other\.org"):
            DevelopmentAuthority.open(folder / "authority.json", HOME)
