"""`sealbus forget`: what cannot be meant is refused before anything is asked or recorded."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from support.policy_desk import key_file
from support.settings import SMALLEST

from sealbus.agents.cli.person import forget
from sealbus.agents.edge.oauth.private_file import write_key
from sealbus.envelopes.errors import ConfigurationError

PSEUDONYM = "pseudonym:" + "5e" * 32
PEOPLE = '[streams.max_bytes]\npeople = "1MiB"\n'


class Desk:
    """A command that may open nothing."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.config, (self.key, _) = folder / "sealbus.toml", key_file(folder / "root.pem")
        self.pseudonym_key = folder / "pseudonyms.key"
        write_key(self.pseudonym_key)

        def unexpected(*_: object, **__: object) -> None:
            raise AssertionError("it connects")

        for name in ("open_rows", "deny"):
            monkeypatch.setattr(forget, name, unexpected)

    def run(self, *arguments: str, settings: str = "") -> Result:
        self.config.write_text(SMALLEST + settings)
        return CliRunner().invoke(forget.command, [*arguments, "--key", str(self.key), "--config", str(self.config)])


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    return Desk(tmp_path, monkeypatch)


def test_either_a_user_or_pseudonyms_are_named(desk: Desk) -> None:
    for arguments in ((), (PSEUDONYM, "--user", "alice")):
        refused = desk.run(*arguments, settings=PEOPLE)
        assert refused.exit_code == 2
        assert "either a --user, or pseudonyms" in refused.stderr


@pytest.mark.parametrize(
    "name",
    [
        "alice",
        "pseudonym:alice",
        PSEUDONYM[:-1],
        PSEUDONYM + "0",
        PSEUDONYM.upper(),
        PSEUDONYM + "@",
        PSEUDONYM + "\n",
        f"x{PSEUDONYM}",
    ],
)
def test_an_id_is_not_recorded_in_place_of_a_pseudonym(desk: Desk, name: str) -> None:
    for named in ((name,), (PSEUDONYM, name)):
        refused = desk.run(*named, settings=PEOPLE)
        assert refused.exit_code == 2
        assert "an id is for --user" in refused.stderr
        assert "alice" not in refused.stderr


def test_where_pseudonyms_are_derived_nobody_can_be_forgotten(desk: Desk) -> None:
    refused = desk.run(PSEUDONYM)
    assert isinstance(refused.exception, ConfigurationError)
    assert "end only with the key" in refused.exception.detail


def test_a_key_is_needed_and_read_before_anything_is_opened(desk: Desk) -> None:
    refused = desk.run(PSEUDONYM, settings=PEOPLE)
    assert refused.exit_code == 2
    assert "--pseudonym-key" in refused.stderr
    desk.pseudonym_key.chmod(0o644)
    refused = desk.run(PSEUDONYM, "--pseudonym-key", str(desk.pseudonym_key), settings=PEOPLE)
    assert isinstance(refused.exception, ConfigurationError)
    desk.pseudonym_key.chmod(0o600)
    opened = desk.run(f"{PSEUDONYM}@partner.example", "--pseudonym-key", str(desk.pseudonym_key), settings=PEOPLE)
    assert isinstance(opened.exception, AssertionError)
