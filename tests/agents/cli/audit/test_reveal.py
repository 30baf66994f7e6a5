"""`sealbus audit reveal`: candidates compared, nothing turned back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from sealbus.agents.cli.audit.group import command
from sealbus.agents.cli.run.edge import command as edge
from sealbus.agents.edge.oauth.tokens.pseudonyms import PseudonymKey

IDP = "https://idp.example.org"


@pytest.fixture
def key(tmp_path: Path) -> Path:
    made = CliRunner().invoke(edge, ["key", str(tmp_path / "key")])
    assert made.exit_code == 0, made.output
    assert made.stdout == ""
    return tmp_path / "key"


def run(*arguments: str | Path, text: str | None = None) -> Result:
    return CliRunner().invoke(command, ["reveal", *(str(one) for one in arguments)], input=text)


def test_a_candidate_is_found_in_a_list(key: Path, tmp_path: Path) -> None:
    (tmp_path / "users").write_text("bob\n\nålice\r\ncarol\n", encoding="utf-8")
    pseudonym = PseudonymKey.read(key).derived(IDP, "ålice")
    for users, text in ((tmp_path / "users", None), ("-", "bob\nålice\n")):
        found = run(pseudonym, "--key", key, "--issuer", IDP, "--users", users, "--json", text=text)
        assert found.exit_code == 0, found.output
        assert [json.loads(line) for line in found.stdout.splitlines()] == [
            {"pseudonym": pseudonym, "issuer": IDP, "user": "ålice"}
        ]


def test_a_partners_user_is_found_under_the_domain(key: Path) -> None:
    pseudonym = PseudonymKey.read(key).derived(IDP, "alice")
    found = run(f"{pseudonym}@partner.example", "--key", key, "--issuer", IDP, "--user", "alice")
    assert (found.exit_code, found.stdout) == (0, f"{pseudonym}  alice  {IDP}\n")


def test_who_is_none_of_them_is_not_found(key: Path) -> None:
    pseudonym = PseudonymKey.read(key).derived(IDP, "alice")
    for issuer, user in ((IDP, "bob"), ("https://other.example.org", "alice")):
        found = run(pseudonym, "--key", key, "--issuer", issuer, "--user", user)
        assert (found.exit_code, found.stdout) == (1, "")
        assert "matches none of the candidates" in found.stderr


def test_without_a_pseudonym_that_of_each_candidate_is_told(key: Path) -> None:
    found = run("--key", key, "--issuer", IDP, "--issuer", "https://b.example.org", "--user", "alice", "--user", "bob")
    assert found.exit_code == 0
    under = PseudonymKey.read(key)
    assert found.stdout.splitlines() == [
        f"{under.derived(issuer, user)}  {user}  {issuer}"
        for user in ("alice", "bob")
        for issuer in (IDP, "https://b.example.org")
    ]


def test_key_and_issuers_are_those_of_the_settings(key: Path, tmp_path: Path) -> None:
    settings = tmp_path / "sealbus.toml"
    text = f'''
trust_domain = "example.org"
nats = ["tls://127.0.0.1:4222"]
[policy]
engine = "embedded"
[edge]
pseudonym_key = "{key}"
[[edge.issuers]]
issuer = "{IDP}"
'''
    settings.write_text(text)
    found = run("--user", "alice", "--config", settings)
    assert found.stdout == f"{PseudonymKey.read(key).derived(IDP, 'alice')}  alice  {IDP}\n"
    settings.write_text(text.replace("pseudonym_key", "# "))
    assert "give --key FILE" in run("--user", "alice", "--config", settings).stderr
    settings.write_text(text.partition("[[edge")[0])
    assert "give --issuer URL" in run("--user", "alice", "--config", settings).stderr


@pytest.mark.parametrize(
    "arguments",
    [(), ("pseudonym:00",), ("alice", "--user", "alice"), ("--users", "missing"), ("--user", "a", "--key", "missing")],
)
def test_what_cannot_be_meant_is_a_usage_error(arguments: tuple[str, ...]) -> None:
    assert run(*arguments).exit_code == 2
