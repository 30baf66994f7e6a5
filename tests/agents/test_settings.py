from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from sealbus.agents.settings import Flag, Origin, Settings, find_settings_file, load_settings
from sealbus.bus.streams import declared_streams
from sealbus.envelopes.errors import ConfigurationError
from sealbus.envelopes.kinds import Kind
from sealbus.envelopes.spiffe_id import SpiffeId, TrustDomain

SMALLEST = """
trust_domain = "example.org"
nats = ["tls://nats:4222"]
[policy]
engine = "sidecar"
"""
FULL = """
trust_domain = "example.org"
nats = ["tls://a:4222", "tls://b:4222"]
nats_ids = ["spiffe://example.org/nats/a", "spiffe://example.org/nats/b"]
workload_api = "unix:///run/agent.sock"
[policy]
engine = "embedded"
bundle = "policy/bundle.tar.gz"
opa = "/run/opa.sock"
deadline = 0.5
[agents]
template = "/ns/shop/sa/{name}"
pricing = "spiffe://example.org/ns/money/sa/pricing"
[context]
minters = ["spiffe://example.org/edge"]
[streams]
replicas = 3
[streams.max_bytes]
tasks = "1GiB"
audit = 5_000_000
refusals = "64 MiB"
[subjects."orders.created"]
kind = "event"
owner = "orders"
[subjects."mail.send"]
kind = "task"
owner = "spiffe://example.org/mail"
action = "mail.post"
[audit]
within = 3
[limits]
pending_calls = 10
replay_entries = 20
[health]
address = ":9464"
[worker]
concurrency = 4
batch = 8
ack_wait = 60
max_ack_pending = 16
drain = 5.5
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "sealbus.toml").write_text(SMALLEST)
    return tmp_path


def load(folder: Path, text: str = SMALLEST, flags: tuple[Flag, ...] = (), **environment: str) -> Settings:
    (folder / "sealbus.toml").write_text(text)
    return load_settings(folder / "sealbus.toml", environment=environment, flags=flags)


def origin(settings: Settings, key: str) -> str:
    (line,) = [line for line in settings.lines if line.key == key]
    return str(line.origin)


def value(settings: Settings, key: str) -> str:
    (line,) = [line for line in settings.lines if line.key == key]
    return line.value


def test_the_smallest_file_gives_everything_else_by_default(folder: Path) -> None:
    settings = load(folder)
    assert settings.trust_domain == TrustDomain("example.org")
    assert settings.nats == ("tls://nats:4222",)
    assert settings.nats_ids == {SpiffeId("spiffe://example.org/nats")}
    assert settings.workload_api is None
    assert settings.policy.engine == "sidecar"
    assert (settings.policy.bundle, settings.policy.opa, settings.policy.deadline) == (None, None, 1.0)
    assert settings.names.id_of("pricing") == SpiffeId("spiffe://example.org/agent/pricing")
    assert settings.minters == frozenset()
    assert settings.max_bytes == {}
    assert settings.own_subjects == ()
    assert settings.health is None
    assert (settings.concurrency, settings.batch, settings.drain) == (64, 256, 20.0)
    assert {str(line.origin) for line in settings.lines} == {"default", f"file {folder / 'sealbus.toml'}"}


def test_every_setting_can_be_said_in_the_file(folder: Path) -> None:
    settings = load(folder, FULL)
    assert settings.nats_ids == {SpiffeId("spiffe://example.org/nats/a"), SpiffeId("spiffe://example.org/nats/b")}
    assert settings.workload_api == "unix:///run/agent.sock"
    assert settings.policy.engine == "embedded"
    assert settings.policy.bundle == folder / "policy" / "bundle.tar.gz"
    assert (settings.policy.opa, settings.policy.deadline) == ("/run/opa.sock", 0.5)
    assert settings.names.id_of("orders") == SpiffeId("spiffe://example.org/ns/shop/sa/orders")
    assert settings.names.id_of("pricing") == SpiffeId("spiffe://example.org/ns/money/sa/pricing")
    assert settings.minters == {SpiffeId("spiffe://example.org/edge")}
    assert settings.max_bytes == {"TASKS": 1 << 30, "AUDIT": 5_000_000, "REFUSALS": 64 << 20}
    assert settings.replicas == 3
    created, send = settings.own_subjects
    assert (created.subject, created.kind, created.action) == ("orders.created", Kind.EVENT, "orders.created")
    assert created.owner == settings.names.id_of("orders")
    assert (send.kind, send.owner, send.action) == (Kind.TASK, SpiffeId("spiffe://example.org/mail"), "mail.post")
    assert settings.audit_within == 3.0
    assert (settings.pending_calls, settings.replay_entries) == (10, 20)
    assert settings.health == ":9464"
    assert (settings.concurrency, settings.batch, settings.ack_wait) == (4, 8, 60.0)
    assert (settings.max_ack_pending, settings.drain) == (16, 5.5)
    assert not [line.key for line in settings.lines if str(line.origin) == "default" and line.value != "not set"]
    assert declared_streams(settings.max_bytes, own=settings.own_subjects, replicas=settings.replicas)


def test_the_environment_overrides_the_file_and_flags_override_both(folder: Path) -> None:
    environment = {
        "SEALBUS_POLICY__ENGINE": "embedded",
        "SEALBUS_POLICY__DEADLINE": "0.25",
        "SEALBUS_WORKER__CONCURRENCY": "7",
        "OTHER": "ignored",
    }
    flags = (
        Flag(option="--concurrency", key="worker.concurrency", value=9),
        Flag(option="--engine", key="policy.engine", value=None),
        Flag(option="--nats", key="nats", value="tls://c:1,tls://d:2"),
    )
    settings = load(folder, SMALLEST, flags, **environment)
    assert settings.policy.engine == "embedded"
    assert settings.policy.deadline == 0.25
    assert settings.concurrency == 9
    assert settings.nats == ("tls://c:1", "tls://d:2")
    assert origin(settings, "policy.engine") == "environment SEALBUS_POLICY__ENGINE"
    assert origin(settings, "worker.concurrency") == "flag --concurrency"
    assert origin(settings, "nats") == "flag --nats"
    assert origin(settings, "trust_domain") == f"file {folder / 'sealbus.toml'}"
    assert origin(settings, "worker.drain") == "default"


def test_lists_and_tables_can_be_said_in_one_variable(folder: Path) -> None:
    settings = load(
        folder,
        FULL,
        SEALBUS_NATS='["tls://x:1"]',
        SEALBUS_CONTEXT__MINTERS="spiffe://example.org/a, spiffe://example.org/b",
        SEALBUS_AGENTS='{"big-agent": "spiffe://example.org/big"}',
        SEALBUS_AGENTS__SMALL="spiffe://example.org/small",
        SEALBUS_STREAMS__MAX_BYTES__TASKS="2 GiB",
        SEALBUS_SUBJECTS='{"a.b": {"kind": "call", "owner": "small"}}',
    )
    assert settings.nats == ("tls://x:1",)
    assert settings.minters == {SpiffeId("spiffe://example.org/a"), SpiffeId("spiffe://example.org/b")}
    assert settings.names.id_of("big-agent") == SpiffeId("spiffe://example.org/big")
    assert settings.names.id_of("small") == SpiffeId("spiffe://example.org/small")
    # Entries of the file stay: a table grows, a list is one value.
    assert settings.names.id_of("pricing") == SpiffeId("spiffe://example.org/ns/money/sa/pricing")
    assert settings.max_bytes["TASKS"] == 2 << 30
    assert [one.subject for one in settings.own_subjects] == ["orders.created", "mail.send", "a.b"]
    assert origin(settings, "agents.big-agent") == "environment SEALBUS_AGENTS"
    assert origin(settings, 'subjects."a.b".kind') == "environment SEALBUS_SUBJECTS"


def test_an_empty_variable_says_nothing(folder: Path) -> None:
    settings = load(folder, SMALLEST, SEALBUS_POLICY__ENGINE="", SEALBUS_NATS="", SEALBUS_CONFIG="")
    assert origin(settings, "policy.engine").startswith("file ")


def test_the_socket_of_spiffe_is_used_unless_another_is_said(folder: Path) -> None:
    settings = load(folder, SMALLEST, SPIFFE_ENDPOINT_SOCKET="unix:///spire.sock")
    assert settings.workload_api == "unix:///spire.sock"
    assert origin(settings, "workload_api") == "environment SPIFFE_ENDPOINT_SOCKET"
    assert load(folder, FULL, SPIFFE_ENDPOINT_SOCKET="unix:///spire.sock").workload_api == "unix:///run/agent.sock"


def test_doctor_sees_every_setting_in_force(folder: Path) -> None:
    settings = load(folder, FULL)
    assert value(settings, "nats") == "tls://a:4222, tls://b:4222"
    assert value(settings, "streams.max_bytes.tasks") == str(1 << 30)
    assert value(settings, "streams.max_bytes.dead") == "not set"
    assert value(settings, "agents.pricing") == "spiffe://example.org/ns/money/sa/pricing"
    assert value(load(folder), "context.minters") == "none"
    assert value(load(folder), "nats_ids") == "spiffe://example.org/nats"
    assert len({line.key for line in settings.lines}) == len(settings.lines)
    assert str(Origin("default")) == "default"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[policy]\nengin = 1", "there is no setting policy.engin; did you mean policy.engine?"),
        ("[polcy]\nengine = 1", "there is no setting polcy; did you mean policy?"),
        ("zzzzzzzz = 1", "there is no setting zzzzzzzz"),
        ('["a b"]\nx = 1', 'there is no setting "a b"'),
        ("policy = 1", "policy is a table"),
        ("[streams]\nmax_bytes = 5", "streams.max_bytes is a table"),
        ("[trust_domain]\nx = 1", "trust_domain: must be a trust domain such as example.org"),
        ("trust_domain = 5", "trust_domain: must be a trust domain"),
        ('trust_domain = "Example.org"', "trust_domain: must be a trust domain"),
        ('nats = "tls://x:1"', "nats: input should be a valid tuple"),
        ("nats = []", "nats: tuple should have at least 1 item"),
        ('nats = ["nats://x:1"]', "nats: must be tls://host:port"),
        ("nats = [5]", "nats: input should be a valid string"),
        ('nats_ids = ["x"]', "nats_ids: must be a SPIFFE ID"),
        ("[agents]\npricing = 5", "agents.pricing: must be a SPIFFE ID"),
        ("[agents.pricing]\nx = 1", "agents.pricing: must be a SPIFFE ID"),
        ('[policy]\nengine = "fast"', "policy.engine: input should be 'embedded', 'sidecar' or 'central'"),
        ("[policy]\ndeadline = 0", "policy.deadline: input should be greater than 0"),
        ("[policy]\ndeadline = nan", "policy.deadline: input should be"),
        ("[worker]\nconcurrency = 0", "worker.concurrency: input should be greater than or equal to 1"),
        ("[streams]\nreplicas = 2", "streams.replicas: input should be 1, 3 or 5"),
        ("[streams.max_bytes]\njobs = 1", "there is no setting streams.max_bytes.jobs"),
        ("[streams.max_bytes]\ntasks = 0", "streams.max_bytes.tasks: must be a number of bytes over 0"),
        ("[streams.max_bytes]\ntasks = true", "streams.max_bytes.tasks: must be a number of bytes"),
        ('[streams.max_bytes]\ntasks = "1GB"', 'or a text such as "512MiB" or "1GiB"'),
        ("[streams.max_bytes]\ntasks = 1.5", "streams.max_bytes.tasks: must be a number of bytes"),
        ('[subjects."a.b"]\nkind = "reply"\nowner = "x"', 'subjects."a.b".kind: input should be'),
        ('[subjects."a.b"]\nkin = "task"', 'there is no setting subjects."a.b".kin'),
        ("[subjects]\nx = 1", "subjects.x is a table"),
    ],
)
def test_each_mistake_is_one_line_that_names_the_key_and_its_source(folder: Path, text: str, complaint: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load(folder, text)
    line = caught.value.detail
    assert complaint in line
    assert "\n" not in line
    assert line.startswith(f"file {folder / 'sealbus.toml'}: ")


def smallest(**extra: str) -> Mapping[str, str]:
    return {
        "SEALBUS_TRUST_DOMAIN": "example.org",
        "SEALBUS_NATS": "tls://x:1",
        "SEALBUS_POLICY__ENGINE": "embedded",
        **extra,
    }


@pytest.mark.parametrize(
    ("name", "text", "complaint"),
    [
        ("SEALBUS_POLICY__ENGIN", "", "there is no setting policy.engin; did you mean SEALBUS_POLICY__ENGINE?"),
        ("SEALBUS_", "x", 'there is no setting ""'),
        ("SEALBUS_NATS__X", "x", "there is no setting nats.x"),
        ("SEALBUS_NATS", "[", "nats is not JSON"),
        ("SEALBUS_NATS", "nats://x", "nats: must be tls://host:port"),
        ("SEALBUS_POLICY", "embedded", "policy is not JSON"),
        ("SEALBUS_POLICY", "[]", "policy is a table"),
        ("SEALBUS_POLICY", '{"engin": 1}', "there is no setting policy.engin"),
        ("SEALBUS_WORKER__DRAIN", "soon", "worker.drain: input should be a valid number"),
    ],
)
def test_mistakes_in_the_environment_name_the_variable(name: str, text: str, complaint: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_settings(environment=smallest(**{name: text}), folder=tmp_path)
    assert caught.value.detail.startswith(f"environment {name}: {complaint}")
    assert "\n" not in caught.value.detail


def test_mistakes_in_a_flag_name_the_option(folder: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"flag --engine: policy.engine: input should be"):
        load(folder, SMALLEST, (Flag(option="--engine", key="policy.engine", value="fast"),))
    with pytest.raises(ConfigurationError, match=r"flag --x: there is no setting policy.x"):
        load(folder, SMALLEST, (Flag(option="--x", key="policy.x", value=None),))


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
    environment = {name: text for name, text in smallest().items() if name != missing}
    with pytest.raises(ConfigurationError) as caught:
        load_settings(environment=environment, folder=tmp_path)
    assert caught.value.detail == f"{complaint}, or run `sealbus dev`"


def test_a_policy_table_without_an_engine_is_told_the_same(folder: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"policy.engine is not set: say embedded, sidecar or central"):
        load(folder, SMALLEST.replace('engine = "sidecar"', "deadline = 1"))


@pytest.mark.parametrize(
    ("table", "complaint"),
    [
        ('kind = "task"', r'subjects."a.b".owner is not set: say its value'),
        ('kind = "task"\nowner = "id-x"', r'subjects."a.b": agent name .id-x.'),
        ('kind = "task"\nowner = "spiffe://"', r'subjects."a.b".owner: .spiffe://. is not a SPIFFE ID'),
        ('kind = "task"\nowner = "x"\naction = "*"', r'subjects."a.b": own subject .a.b.: action'),
    ],
)
def test_an_own_subject_that_cannot_be_is_told_by_its_key(folder: Path, table: str, complaint: str) -> None:
    with pytest.raises(ConfigurationError, match=complaint):
        load(folder, f'{SMALLEST}[subjects."a.b"]\n{table}\n')


def test_a_template_that_cannot_be_is_refused(folder: Path) -> None:
    with pytest.raises(ConfigurationError, match="agent template"):
        load(folder, SMALLEST + '[agents]\ntemplate = "/agent"\n')


@pytest.mark.parametrize("content", [b"a = ", b"\xff", b"a = 1\na = 2"])
def test_a_file_that_is_not_toml_is_told(folder: Path, content: bytes) -> None:
    path = folder / "sealbus.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigurationError) as caught:
        load_settings(path, environment={})
    assert caught.value.detail.startswith(f"{path}: not TOML: ")
    assert "\n" not in caught.value.detail


def test_a_file_that_was_named_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"missing.toml: No such file or directory"):
        load_settings(tmp_path / "missing.toml", environment={})


def test_the_file_is_the_named_one_or_that_of_a_running_dev_or_sealbus_toml(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert find_settings_file(environment={}, folder=tmp_path) is None
    own, dev = tmp_path / "sealbus.toml", tmp_path / ".sealbus" / "dev.toml"
    own.write_text(SMALLEST)
    assert find_settings_file(environment={}, folder=tmp_path) == own
    dev.parent.mkdir()
    dev.write_text(SMALLEST)
    assert find_settings_file(environment={}, folder=tmp_path) == dev
    assert find_settings_file(environment={"SEALBUS_CONFIG": "a"}, folder=tmp_path) == Path("a")
    assert find_settings_file("b", environment={"SEALBUS_CONFIG": "a"}, folder=tmp_path) == Path("b")
    monkeypatch.chdir(tmp_path)
    assert find_settings_file(environment={}) == Path(".sealbus/dev.toml")


def test_the_real_environment_is_read_unless_another_is_given(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEALBUS_WORKER__BATCH", "11")
    assert load_settings(folder / "sealbus.toml").batch == 11


def test_settings_cannot_be_changed(folder: Path) -> None:
    settings = load(folder)
    with pytest.raises(AttributeError):
        settings.concurrency = 3  # type: ignore[misc]
    with pytest.raises(TypeError):
        settings.max_bytes["TASKS"] = 3  # type: ignore[index]
