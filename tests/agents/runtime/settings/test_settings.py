from __future__ import annotations

import os
from pathlib import Path

import pytest
from pydantic import ValidationError
from support.settings import FULL, SMALLEST, load, origin, smallest_environment

from sealbus.agents.runtime.settings.schema import ClientTable
from sealbus.agents.runtime.settings.settings import Settings, find_settings_file, load_client, load_settings
from sealbus.agents.runtime.settings.source import Flag, SettingOrigin
from sealbus.agents.runtime.settings.state_folder import DEV_LOCK, lock_folder
from sealbus.envelopes.errors import ConfigurationError


def value(settings: Settings, key: str) -> str:
    (line,) = [line for line in settings.lines if line.key == key]
    return line.value


def test_the_socket_of_spiffe_is_used_unless_another_is_said(tmp_path: Path) -> None:
    settings = load(tmp_path, SMALLEST, SPIFFE_ENDPOINT_SOCKET="unix:///spire.sock")
    assert settings.workload_api == "unix:///spire.sock"
    assert origin(settings, "workload_api") == "environment SPIFFE_ENDPOINT_SOCKET"
    assert load(tmp_path, FULL, SPIFFE_ENDPOINT_SOCKET="unix:///spire.sock").workload_api == "unix:///run/agent.sock"


def test_doctor_sees_every_setting_in_force(tmp_path: Path) -> None:
    settings = load(tmp_path, FULL)
    assert value(settings, "nats") == "tls://a:4222, tls://b:4222"
    assert value(settings, "streams.max_bytes.tasks") == str(1 << 30)
    assert value(settings, "streams.max_bytes.dead") == "not set"
    assert value(settings, "agents.pricing") == "spiffe://example.org/ns/money/sa/pricing"
    assert value(load(tmp_path), "context.minters") == "none"
    assert value(load(tmp_path), "nats_ids") == "spiffe://example.org/nats"
    assert len({line.key for line in settings.lines}) == len(settings.lines)
    assert str(SettingOrigin("default")) == "default"


@pytest.mark.parametrize(
    ("missing", "complaint"),
    [
        ("SEALBUS_TRUST_DOMAIN", "trust_domain is not set: say its value in sealbus.toml, or in SEALBUS_TRUST_DOMAIN"),
        ("SEALBUS_NATS", "nats is not set: say its value in sealbus.toml, or in SEALBUS_NATS"),
        (
            "SEALBUS_POLICY__ENGINE",
            "policy.engine is not set: say embedded, sidecar or central in sealbus.toml, or in SEALBUS_POLICY__ENGINE",
        ),
    ],
)
def test_what_must_be_said_has_no_default(missing: str, complaint: str, tmp_path: Path) -> None:
    environment = {name: text for name, text in smallest_environment().items() if name != missing}
    with pytest.raises(ConfigurationError) as caught:
        load_settings(environment=environment, folder=tmp_path)
    assert caught.value.detail == f"{complaint}, or run `sealbus dev` in this folder"


def test_a_policy_table_without_an_engine_is_told_the_same(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"policy.engine is not set: say embedded, sidecar or central"):
        load(tmp_path, SMALLEST.replace('engine = "sidecar"', "deadline = 1"))


@pytest.mark.parametrize(
    ("table", "complaint"),
    [
        ('kind = "task"', r'subjects."a.b".owner is not set: say its value'),
        ('kind = "task"\nowner = "id-x"', r'subjects."a.b": agent name .id-x.'),
        ('kind = "task"\nowner = "spiffe://"', r'subjects."a.b".owner: .spiffe://. is not a SPIFFE ID'),
        ('kind = "task"\nowner = "x"\naction = "*"', r'subjects."a.b": own subject .a.b.: action'),
    ],
)
def test_an_own_subject_that_cannot_be_is_told_by_its_key(tmp_path: Path, table: str, complaint: str) -> None:
    with pytest.raises(ConfigurationError, match=complaint):
        load(tmp_path, f'{SMALLEST}[subjects."a.b"]\n{table}\n')


def test_a_template_that_cannot_be_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="agent template"):
        load(tmp_path, SMALLEST + '[agents]\ntemplate = "/agent"\n')


def test_the_file_is_the_named_one_or_that_of_a_running_dev_or_sealbus_toml(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert find_settings_file(environment={}, folder=tmp_path) is None
    own, dev = tmp_path / "sealbus.toml", tmp_path / ".sealbus" / "dev.toml"
    own.write_text(SMALLEST)
    assert find_settings_file(environment={}, folder=tmp_path) == own
    dev.parent.mkdir()
    dev.write_text(SMALLEST)
    held = lock_folder(dev.parent, DEV_LOCK)
    assert find_settings_file(environment={}, folder=tmp_path) == dev
    assert find_settings_file(environment={"SEALBUS_CONFIG": "a"}, folder=tmp_path) == Path("a")
    assert find_settings_file("b", environment={"SEALBUS_CONFIG": "a"}, folder=tmp_path) == Path("b")
    monkeypatch.chdir(tmp_path)
    assert find_settings_file(environment={}) == Path(".sealbus/dev.toml")
    os.close(held)


@pytest.mark.parametrize("own_is_there", [True, False])
def test_what_a_killed_dev_left_behind_is_ignored_with_one_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, own_is_there: bool
) -> None:
    own, dev = tmp_path / "sealbus.toml", tmp_path / ".sealbus" / "dev.toml"
    if own_is_there:
        own.write_text(SMALLEST)
    dev.parent.mkdir()
    dev.write_text(SMALLEST)
    # The kernel gave its lock back when it was killed; the files stay.
    os.close(lock_folder(dev.parent, DEV_LOCK))
    assert find_settings_file(environment={}, folder=tmp_path) == (own if own_is_there else None)
    (record,) = caplog.records
    assert record.getMessage() == f"{dev} is left over from a `sealbus dev` that no longer runs, and is ignored"
    # Who names it gets it.
    assert find_settings_file(dev, environment={}, folder=tmp_path) == dev


def test_the_table_of_dev_is_a_setting_like_others(tmp_path: Path) -> None:
    settings = load(tmp_path, SMALLEST + '[dev.users.dora]\ngroups = ["a", "b"]\nlevel = 3\n')
    assert value(settings, "dev.users.dora.level") == "3"
    assert (settings.dev.issuer, settings.dev.access) == (None, None)
    with pytest.raises(ConfigurationError, match=r"there is no setting dev\.user"):
        load(tmp_path, SMALLEST + "[dev.user.dora]\nlevel = 3\n")


@pytest.mark.parametrize("address", ["tls://hush@x:1", "tls://a:hush@x:1"])
def test_no_login_of_an_address_is_shown(tmp_path: Path, address: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        load(tmp_path, SMALLEST.replace("tls://nats:4222", address))
    assert "nats: must be an address without user or password" in str(refused.value)
    held = (str(refused.value), repr(refused.value), repr(refused.value.__cause__))
    assert not any("hush" in text for text in held)


def test_no_secret_is_in_the_repr_of_settings(tmp_path: Path) -> None:
    """Keys, tokens and passwords are named by their files, which nothing here reads; what users of dev are is not shown."""
    for name in ("serve.pem", "platform.pem", "edge.key", "pseudonym.key", "issuer.seed", "log.key", "access.json"):
        (tmp_path / name).write_text("hush", encoding="ascii")
    settings = load(
        tmp_path,
        SMALLEST
        + 'serve_key = "serve.pem"\nkeys = ["platform.pem"]\n'
        + '[edge]\nkey = "edge.key"\npseudonym_key = "pseudonym.key"\n'
        + '[control.callout]\nissuer = "issuer.seed"\n[control.notary]\nkeys = ["log.key"]\n'
        + '[dev]\naccess = "access.json"\n[dev.users.dora]\npassword = "hush"\n',
    )
    for shown in (repr(settings), str(settings), repr(settings.dev), repr(settings.for_command())):
        assert "hush" not in shown
    assert "serve.pem" in repr(settings)


def test_the_real_environment_is_read_unless_another_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEALBUS_WORKER__BATCH", "11")
    assert load(tmp_path).worker.batch == 256
    assert load_settings(tmp_path / "sealbus.toml").worker.batch == 11


def test_settings_cannot_be_changed(tmp_path: Path) -> None:
    settings = load(tmp_path)
    with pytest.raises(ValidationError, match="frozen"):
        settings.worker.concurrency = 3
    with pytest.raises(ValidationError, match="frozen"):
        settings.worker = settings.worker


def test_what_was_said_wrongly_comes_before_what_was_not_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load(tmp_path, 'nats = ["tls://a:1", "nats://b:2"]')
    assert caught.value.detail == (
        f"file {tmp_path / 'sealbus.toml'}: nats: must be tls://host:port; sealbus speaks to NATS over mutual TLS only"
    )


def test_who_logs_in_needs_no_bus(tmp_path: Path) -> None:
    (tmp_path / "sealbus.toml").write_text('[client]\nissuer = "https://a.example"\nlogins = "mine.json"\n')
    flags = [Flag(option="--issuer", key="client.issuer", value="https://b.example")]
    table = load_client(environment={"SEALBUS_CLIENT__SCOPE": "openid"}, flags=flags, folder=tmp_path)
    assert (table.issuer, table.scope, table.client_id) == ("https://b.example", "openid", None)
    assert table.logins == tmp_path / "mine.json"
    assert load_client(environment={}, folder=tmp_path / "none") == ClientTable()


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[client]\nissuer = 1", "client.issuer: input should be a valid string"),
        ("[client]\nissuers = 1", "there is no setting client.issuers; did you mean"),
        ('[client]\nissuer = "https://me@a.example"', "client.issuer: must be an address without user or password"),
    ],
)
def test_what_is_wrong_there_is_told_with_its_origin(text: str, complaint: str, tmp_path: Path) -> None:
    (tmp_path / "sealbus.toml").write_text(text)
    with pytest.raises(ConfigurationError) as caught:
        load_client(environment={}, folder=tmp_path)
    assert caught.value.detail.startswith(f"file {tmp_path / 'sealbus.toml'}: {complaint}")


def test_a_command_waits_less_and_for_less(tmp_path: Path) -> None:
    settings = load(tmp_path, FULL)
    command = settings.for_command()
    assert (settings.identity_within, settings.identity_patient) == (90.0, True)
    assert (command.identity_within, command.identity_patient) == (2.5, False)
    assert command.names is settings.names
