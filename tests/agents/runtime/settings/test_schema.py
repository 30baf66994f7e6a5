from __future__ import annotations

from pathlib import Path

import pytest
from support.settings import FULL, SMALLEST, load

from sealbus.agents.runtime.assembly import WorkerLimits
from sealbus.bus.streams.declared import declared_streams
from sealbus.envelopes.errors import ConfigurationError
from sealbus.envelopes.lifetimes import DEFAULT_LIFETIMES, Lifetimes
from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.message.kinds import Kind
from sealbus.envelopes.trust.spiffe_id import SpiffeId, TrustDomain


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
        ('nats = ["tls://x:1", "tls://a:hush@x:1"]', "nats: must be an address without user or password"),
        ('[policy]\nopa = "https://hush@x"', "policy.opa: must be an address without user or password"),
        ('[edge]\nresource = "https://a:hush@x/y"', "edge.resource: must be an address without user or password"),
        ('nats_ids = ["x"]', "nats_ids: must be a SPIFFE ID"),
        ("[agents]\npricing = 5", "agents.pricing: must be a SPIFFE ID"),
        ("[agents.pricing]\nx = 1", "agents.pricing: must be a SPIFFE ID"),
        ('[policy]\nengine = "fast"', "policy.engine: input should be 'embedded', 'native', 'sidecar' or 'central'"),
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
        ('[audit.redact]\n"a..b" = ["/x"]', "audit.redact.\"a..b\": 'a..b' is not a subject pattern"),
        ('[audit]\nbodies = ["task.>.x"]', "audit.bodies: 'task.>.x' is not a subject pattern"),
        ('[audit.redact]\n"task.>" = ["x"]', "audit.redact.\"task.>\": 'x' is not a JSON pointer"),
        ('[audit.redact]\n"task.>" = "/x"', 'audit.redact."task.>": input should be a valid tuple'),
        ("[edge]\nadress = 1", "there is no setting edge.adress; did you mean edge.address?"),
        ("[[edge.issuers]]\nissuers = 1", "edge.issuers: "),
        ("[control.callout]\nkey = 1", "there is no setting control.callout.key"),
        ("[control]\ncallout = 1", "control.callout is a table"),
        ("[control.callout]\nlongest = 1", "control.callout.longest: input should be greater than or equal to 10"),
        ("[edge]\nproxies = -1", "edge.proxies: input should be greater than or equal to 0"),
        ("[edge]\nproxies = 17", "edge.proxies: input should be less than or equal to 16"),
        ("[edge]\nissuers = 1", "edge.issuers: input should be a valid tuple"),
        *(
            (
                f'[egress.apis.crm]\nurl = "x"\noperations = []\ngrant = "{grant}"\nusers = ["x"]',
                "this grant asks for no user",
            )
            for grant in ("key", "client_credentials")
        ),
        ('[[edge.issuers]]\nissuer = "x"\naudience = "y"', "edge.issuers: extra inputs are not permitted"),
    ],
)
def test_each_mistake_is_one_line_that_names_the_key_and_its_source(tmp_path: Path, text: str, complaint: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load(tmp_path, text)
    line = caught.value.detail
    assert complaint in line
    assert "\n" not in line
    assert line.startswith(f"file {tmp_path / 'sealbus.toml'}: ")


def test_numbers_of_replicas_come_from_the_environment_too(tmp_path: Path) -> None:
    assert load(tmp_path, SEALBUS_STREAMS__REPLICAS="3").streams.replicas == 3
    for wrong in ("2", "-1", "three"):
        with pytest.raises(ConfigurationError, match="replicas"):
            load(tmp_path, SEALBUS_STREAMS__REPLICAS=wrong)


@pytest.mark.parametrize("setting", ["domain", "stream", "deliver"])
def test_names_of_a_mirror_are_parts_of_subjects(setting: str, tmp_path: Path) -> None:
    for wrong in ("a.b", "*", ">", "a b", ""):
        with pytest.raises(ConfigurationError, match=f"streams.mirror.{setting}: must be one part of a subject"):
            load(tmp_path, f'{SMALLEST}[streams.mirror]\n{setting} = "{wrong}"\n')


def test_a_bucket_takes_the_place_of_a_file(tmp_path: Path) -> None:
    settings = load(tmp_path, FULL.replace('"policy/bundle.tar.gz"', '"nats://policies"'))
    assert (settings.policy.file, settings.policy.bucket) == (None, "policies")


def test_a_bucket_may_be_in_another_cell(tmp_path: Path) -> None:
    settings = load(tmp_path, FULL.replace('"policy/bundle.tar.gz"', '"nats://policies@default"'))
    assert (settings.policy.file, settings.policy.bucket) == (None, "policies@default")


@pytest.mark.parametrize(
    ("bucket", "says"),
    [
        ("a.b", "must be a file, nats://<bucket> or nats://<bucket>@<cell>: 'a.b' cannot be the name of a bucket"),
        ("", "'' cannot be the name of a bucket"),
        ("policies@", "'' cannot be the name of a cell"),
        ("policies@East", "'East' cannot be the name of a cell"),
        ("policies@*", "'*' cannot be the name of a cell"),
        ("policies@a.b", "'a.b' cannot be the name of a cell"),
        ("user:hush@policies", "must be "),
        ("policies@a@b", "must be "),
    ],
)
def test_another_form_of_a_bucket_is_refused(bucket: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"policy\.bundle: must be") as refused:
        load(tmp_path, FULL.replace('"policy/bundle.tar.gz"', f'"nats://{bucket}"'))
    assert says in refused.value.detail
    assert "hush" not in refused.value.detail


def test_every_setting_can_be_said_in_the_file(tmp_path: Path) -> None:
    settings = load(tmp_path, FULL)
    assert settings.nats_ids == (SpiffeId("spiffe://example.org/nats/a"), SpiffeId("spiffe://example.org/nats/b"))
    assert settings.workload_api == "unix:///run/agent.sock"
    assert settings.policy.engine == "embedded"
    assert settings.policy.file == tmp_path / "policy" / "bundle.tar.gz"
    assert (settings.policy.opa, settings.policy.deadline) == (("/run/opa.sock",), 0.5)
    assert settings.policy.opa_ids == (SpiffeId("spiffe://example.org/opa/a"), SpiffeId("spiffe://example.org/opa/b"))
    assert settings.policy.bucket is None
    assert settings.policy.keys == (tmp_path / "policy" / "platform.pem", Path("/etc/old.pem"))
    assert (settings.policy.cache, settings.policy.serve) == (tmp_path / "cache", "0.0.0.0:8445")
    assert settings.policy.serve_key == tmp_path / "composer.pem"
    assert settings.names.id_of("orders") == SpiffeId("spiffe://example.org/ns/shop/sa/orders")
    assert settings.names.id_of("pricing") == SpiffeId("spiffe://example.org/ns/money/sa/pricing")
    assert settings.minters == {SpiffeId("spiffe://example.org/edge")}
    assert settings.notaries == {SpiffeId("spiffe://example.org/agent/notary")}
    assert settings.lifetimes == Lifetimes(
        context_start=1_800 * SECOND, context_life=7_200 * SECOND, chain_life=14_400 * SECOND, chain_after=600 * SECOND
    )
    assert settings.max_bytes == {"TASKS": 1 << 30, "AUDIT": 5_000_000, "REFUSALS": 64 << 20, "PEOPLE": 8 << 20}
    assert (settings.streams.replicas, settings.streams.replicated_consumers) == (3, True)
    mirror = settings.streams.mirror
    assert (mirror.domain, mirror.stream, mirror.deliver) == ("home", "AUDIT-2026-12", "mirror-west")
    created, send = settings.own_subjects
    assert (created.subject, created.kind, created.action) == ("orders.created", Kind.EVENT, "orders.created")
    assert created.owner == settings.names.id_of("orders")
    assert (send.kind, send.owner, send.action) == (Kind.TASK, SpiffeId("spiffe://example.org/mail"), "mail.post")
    assert (settings.audit.within, settings.audit.denials) == (3.0, 300)
    assert (settings.identity_within, settings.identity_patient, settings.identity.command_within) == (90.0, True, 2.5)
    assert settings.audit.redact == {"task.payroll.>": ("/action/properties/salary",)}
    assert settings.audit.bodies == ("task.orders.>",)
    assert (settings.audit.spool, settings.audit.spool_max) == (tmp_path / "spool", 16 << 20)
    assert (settings.limits.pending_calls, settings.limits.replay_entries) == (10, 20)
    assert settings.health.address == ":9464"
    assert (settings.worker.concurrency, settings.worker.batch, settings.worker.ack_wait) == (4, 8, 60.0)
    assert (settings.worker.max_ack_pending, settings.worker.drain) == (16, 5.5)
    edge = settings.edge
    assert (edge.address, edge.resource, edge.plaintext) == ("0.0.0.0:8443", "https://api.example.org", True)
    assert (edge.connections, edge.connections_of_address, edge.event_streams) == (2_000, 200, 1_000)
    assert (edge.approval_wait, edge.schedules, edge.schedule_login) == (86_400, True, 60)
    assert (edge.certificate, edge.key) == (tmp_path / "edge.pem", Path("/etc/edge.key"))
    assert edge.pseudonym_key == tmp_path / "pseudonyms.key"
    assert edge.nonce_key == tmp_path / "nonces.key"
    assert (edge.context_start, edge.context_life) == (600, 3_600)
    assert (edge.token_service, edge.actions) == (":8444", ("inventory.*",))
    assert edge.schemas == (tmp_path / "schemas" / "inventory.json", Path("/etc/pricing.json"))
    assert (edge.cors, edge.proxies) == (("https://app.example.org",), 1)
    assert edge.token_key == tmp_path / "tokens.key"
    egress = settings.egress
    assert (egress.agent, egress.authorities) == ("way-out", tmp_path / "authorities.pem")
    crm = egress.apis["crm"]
    assert (crm.url, crm.operations) == ("https://crm.example.com", ("GET /customers/{customer}",))
    assert (crm.grant, crm.users) == ("token_exchange", ("https://idp.example.org",))
    assert (crm.key, crm.client_key) == (tmp_path / "crm.key", Path("/etc/crm.pem"))
    (issuer,) = edge.issuers
    assert (issuer.issuer, issuer.claims, issuer.algorithms) == (
        "https://idp.example.org",
        {"department": "dep"},
        ("ES256", "RS256"),
    )
    assert issuer.scopes == ("read",)
    assert (issuer.client, issuer.client_key, issuer.client_secret) == ("edge", tmp_path / "client.pem", None)
    console = settings.console
    assert (console.address, console.url, console.plaintext) == ("0.0.0.0:8445", "https://console.example.org", True)
    assert (console.certificate, console.key) == (tmp_path / "console.pem", Path("/etc/console.key"))
    assert (console.edge, console.issuer) == ("https://api.example.org", "https://idp.example.org")
    assert (console.client_id, console.scope) == ("console", "openid sealbus:approve roles")
    assert (console.resource, console.queues) == ("https://api.example.org", ("managers",))
    client = settings.client
    assert (client.token_service, client.issuer) == ("https://edge:8444", "https://idp.example.org")
    assert (client.client_id, client.scope, client.resource) == (
        "sealbus-cli",
        "openid offline_access",
        "https://api.example.org",
    )
    assert (client.redirect_uri, client.logins) == ("http://127.0.0.1:7777/callback", tmp_path / "logins.json")
    callout = settings.control.callout
    assert (callout.issuer, callout.nkey) == (tmp_path / "keys" / "issuer.seed", Path("/etc/user.seed"))
    assert (callout.accounts, callout.servers, callout.longest) == (("APP", "ACME"), ("NABC",), 3600.0)
    assert settings.control.backups == Path("/mnt/backup")
    notary = settings.control.notary
    assert (notary.origin, notary.stream, notary.lease, notary.whole) == (
        "log.example.org/audit",
        "AUDIT-2026",
        5,
        True,
    )
    assert notary.keys == (tmp_path / "a.key", Path("/etc/b.key"))
    assert (notary.folder, notary.previous) == (tmp_path / "log", tmp_path / "before" / "checkpoint")
    witness = settings.control.witness
    assert (witness.address, witness.plaintext, witness.rate) == ("0.0.0.0:8446", True, 50)
    assert (witness.certificate, witness.key) == (tmp_path / "witness.pem", Path("/etc/witness.key"))
    assert (witness.signing_keys, witness.folder) == ((tmp_path / "w.key", Path("/etc/w2.key")), tmp_path / "witness")
    assert [(log.origin, len(log.keys)) for log in witness.logs] == [("log.example.com/audit", 1)]
    log = settings.control.log
    assert (log.address, log.plaintext, log.rate, log.entries) == ("0.0.0.0:8447", True, 70, True)
    assert (log.certificate, log.key, log.folder) == (tmp_path / "log.pem", Path("/etc/log.key"), tmp_path / "log-copy")
    assert not [line.key for line in settings.lines if str(line.origin) == "default" and line.value != "not set"]
    assert declared_streams(settings.max_bytes, own=settings.own_subjects, replicas=settings.streams.replicas)


def test_the_smallest_file_gives_everything_else_by_default(tmp_path: Path) -> None:
    settings = load(tmp_path)
    assert settings.trust_domain == TrustDomain("example.org")
    assert settings.nats == ("tls://nats:4222",)
    assert settings.nats_ids == (SpiffeId("spiffe://example.org/nats"),)
    assert settings.workload_api is None
    assert settings.policy.engine == "sidecar"
    assert (settings.policy.bundle, settings.policy.opa, settings.policy.deadline) == (None, (), 1.0)
    assert settings.policy.opa_ids == (SpiffeId("spiffe://example.org/opa"),)
    assert settings.names.id_of("pricing") == SpiffeId("spiffe://example.org/agent/pricing")
    assert settings.minters == frozenset()
    assert settings.lifetimes == DEFAULT_LIFETIMES
    assert (settings.edge.context_start, settings.edge.context_life) == (None, None)
    assert (settings.edge.schemas, settings.edge.cors, settings.edge.proxies) == ((), (), 0)
    assert settings.max_bytes == {}
    assert settings.own_subjects == ()
    assert settings.health.address is None
    assert (settings.worker.concurrency, settings.worker.batch, settings.worker.drain) == (64, 256, 20.0)
    assert (settings.identity_within, settings.identity.command_within) == (60.0, 5.0)
    assert {str(line.origin) for line in settings.lines} == {"default", f"file {tmp_path / 'sealbus.toml'}"}


def test_a_worker_without_settings_works_as_one_whose_settings_say_nothing(tmp_path: Path) -> None:
    settings = load(tmp_path)
    assert WorkerLimits(**dict(settings.worker), **dict(settings.limits)) == WorkerLimits()


def test_texts_behind_errors_are_told_in_development_alone(tmp_path: Path) -> None:
    assert not load(tmp_path).development
    assert load(tmp_path, SMALLEST + '[dev]\naccess = "idp.json"\n', SEALBUS_DEVELOPMENT="true").development
    with pytest.raises(ConfigurationError, match="only `sealbus dev` may tell"):
        load(tmp_path, SEALBUS_DEVELOPMENT="true")
    with pytest.raises(ConfigurationError, match="only `sealbus dev` may tell"):
        load(tmp_path, "development = true\n" + SMALLEST)
