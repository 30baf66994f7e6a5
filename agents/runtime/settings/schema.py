"""Every setting: its key, its type, its default. The one place where a setting is declared.

Keys are those of `sealbus.toml`; the environment writes `policy.engine` as `SEALBUS_POLICY__ENGINE`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    PlainValidator,
    ValidationInfo,
    field_validator,
)

from sealbus.bus.audit.redaction import Recording
from sealbus.bus.stream_names import AUDIT
from sealbus.envelopes.errors import ConfigurationError, EnvelopeError
from sealbus.envelopes.lifetimes import DEFAULT_LIFETIMES
from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.trust.names import is_token
from sealbus.envelopes.trust.spiffe_id import SpiffeId, TrustDomain
from sealbus.policies.bundle.cells import bucket_and_cell

_SIZE: Final = re.compile(r"(\d{1,18}) ?(B|KiB|MiB|GiB|TiB)?")
_BUCKET: Final = "nats://"
_LOGIN: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^/?#]*@")
_OF_A_CELL: Final = re.compile(r"nats://[^:@/]+@[^:@/]*")
_UNITS: Final = {None: 1, "B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}


def _spiffe_id(value: object) -> SpiffeId:
    try:
        return SpiffeId.parse(value if isinstance(value, str) else "")
    except EnvelopeError as error:
        raise ValueError("must be a SPIFFE ID such as spiffe://example.org/agent/pricing") from error


def _trust_domain(value: object) -> TrustDomain:
    try:
        return TrustDomain(value if isinstance(value, str) else "")
    except EnvelopeError as error:
        raise ValueError("must be a trust domain such as example.org, lower case and without spiffe://") from error


def _size(value: object) -> int:
    match = _SIZE.fullmatch(str(value)) if isinstance(value, str | int) and not isinstance(value, bool) else None
    if match is None or not int(match[1]):
        raise ValueError('must be a number of bytes over 0, or a text such as "512MiB" or "1GiB"')
    return int(match[1]) * _UNITS[match[2]]


def _server(value: object) -> object:
    if isinstance(value, str) and not value.startswith("tls://"):
        raise ValueError("must be tls://host:port; sealbus speaks to NATS over mutual TLS only")
    return value


def _whole(value: object) -> object:
    # The environment gives texts.
    return int(value) if isinstance(value, str) and value.isascii() and value.isdigit() else value


def _token(value: str) -> str:
    if not is_token(value):
        raise ValueError("must be one part of a subject: no dots, spaces or wildcards")
    return value


def _addresses(value: object) -> object:
    return ((value,) if value else ()) if isinstance(value, str) else value


def _redacting(redact: dict[str, tuple[str, ...]], value: str) -> str:
    try:
        Recording(redact)
    except ConfigurationError as error:
        raise ValueError(error.detail) from error
    return value


Id = Annotated[SpiffeId, PlainValidator(_spiffe_id)]
Domain = Annotated[TrustDomain, PlainValidator(_trust_domain), PlainSerializer(str, when_used="json")]
Size = Annotated[int, PlainValidator(_size)]
Server = Annotated[str, BeforeValidator(_server)]
FileOrUrl = Annotated[str, "file or URL"]
"""A relative file starts at the settings file's folder, as every `Path` does."""
Addresses = Annotated[tuple[FileOrUrl, ...], BeforeValidator(_addresses)]
Replicas = Annotated[Literal[1, 3, 5], BeforeValidator(_whole)]
Token = Annotated[str, AfterValidator(_token)]
SubjectPattern = Annotated[str, AfterValidator(lambda value: _redacting({value: ()}, value))]
InputPointer = Annotated[str, AfterValidator(lambda value: _redacting({">": (value,)}, value))]
Count = Annotated[int, Field(ge=1, le=10_000_000)]
Seconds = Annotated[float, Field(gt=0, le=3_600, allow_inf_nan=False)]
Life = Annotated[int, Field(ge=1, le=86_400)]
"""Seconds, at most the day that SPEC.md section 3 allows."""


class _Table(BaseModel):
    """Holds no secret, only paths of files with secrets: `sealbus doctor` and others show the settings."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    @field_validator("*")
    @classmethod
    def _without_login(cls, value: object, info: ValidationInfo) -> object:
        for item in value if isinstance(value, tuple) else (value,):
            # A bucket of another cell has the form of an address with a user.
            if (
                isinstance(item, str)
                and _LOGIN.match(item)
                and not (info.field_name == "bundle" and _OF_A_CELL.fullmatch(item))
            ):
                raise ValueError("must be an address without user or password; sealbus logs in with its SVID")
        return value


class PolicyTable(_Table):
    """How decisions are made. The engine has no default, so that no engine decides by accident.

    `native` is `embedded` with the wheel that `make engine` builds.

    `opa` is the sidecar's unix socket, or the https URLs of central OPAs, the preferred first; `opa_ids` are the servers that
    may answer there, by default `/opa` of the trust domain.

    `bundle` is a file, or `nats://<bucket>` for a pushed policy, in another cell than the one with the bucket
    `nats://<bucket>@<cell>`; then `cache` is the folder where it is kept. `keys` are
    public keys in PEM that sign the policy (the platform's part, if there are several), required for a bucket. `serve` and
    `serve_key` are for the policy server alone: its address, and the key that signs bundles for OPA.

    `denials` is how `sealbus deny add` pushes a denial: in a new bundle of the platform, as processes of 0.1.0 need it, or
    as an entry by itself, which they would not see.
    """

    engine: Literal["embedded", "native", "sidecar", "central"]
    bundle: FileOrUrl | None = None
    opa: Addresses = ()
    opa_ids: tuple[Id, ...] = ()
    deadline: Seconds = 1.0
    cache: Path | None = None
    keys: tuple[Path, ...] = ()
    serve: str | None = None
    serve_key: Path | None = None
    denials: Literal["bundle", "entry"] = "bundle"

    @field_validator("bundle")
    @classmethod
    def _file_or_bucket(cls, value: str | None) -> str | None:
        if value is not None and value.startswith(_BUCKET):
            try:
                bucket_and_cell(value.removeprefix(_BUCKET))
            except ConfigurationError as error:
                raise ValueError(
                    f"must be a file, nats://<bucket> or nats://<bucket>@<cell>: {error.detail}"
                ) from error
        return value

    @property
    def in_process(self) -> bool:
        """Whether this process decides, by the bundle in force; otherwise an OPA decides, by its own bundle."""
        return self.engine in ("embedded", "native")

    @property
    def bucket(self) -> str | None:
        """The bucket in NATS that the policy is pushed to."""
        return self.bundle.removeprefix(_BUCKET) if self.bundle and self.bundle.startswith(_BUCKET) else None

    @property
    def file(self) -> Path | None:
        """The file of the bundle, if there is no bucket."""
        return Path(self.bundle) if self.bundle and self.bucket is None else None


class AgentsTable(_Table):
    """Names and SPIFFE IDs: a template, and one line for each agent that does not follow the template."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Id] = Field(init=False)

    template: str = "/agent/{name}"


class ContextTable(_Table):
    """The minters of user contexts, and how many seconds readers accept a context: the same in every process of a deployment.

    A chain may start with a context for `start` seconds and go on for `life` seconds, even if the context allows more. They
    bound the use of an edge's key after its end: keep them as short as the work allows (docs/threat-model.md, "What is not
    protected").
    """

    minters: tuple[Id, ...] = ()
    start: Life = DEFAULT_LIFETIMES.context_start // SECOND
    life: Life = DEFAULT_LIFETIMES.context_life // SECOND


class ChainTable(_Table):
    """Seconds for which readers let a chain go on: `life` without a user, `after` any chain.

    `after` counts from the end of the credential of each ancestor. It is not checked by default: a task may legitimately wait
    longer than an SVID lives.
    """

    life: Life = DEFAULT_LIFETIMES.chain_life // SECOND
    after: Annotated[int, Field(ge=0, le=86_400)] | None = None


class MaxBytesTable(_Table):
    """The size of each stream. TASKS and AUDIT are required where streams are declared (`bus.streams`).

    There is a stream PEOPLE only with a size for it, as `edge.pseudonyms` = "random" needs.
    """

    tasks: Size | None = None
    events: Size | None = None
    results: Size | None = None
    dead: Size | None = None
    audit: Size | None = None
    refusals: Size | None = None
    state: Size | None = None
    held: Size | None = None
    people: Size | None = None


class MirrorTable(_Table):
    """The mirror of AUDIT in another region, a stream of its own (`bus.audit.mirror`).

    `domain` is the JetStream domain of the region that has AUDIT; without it there is no mirror. `stream` is the stream that
    is mirrored, which differs from AUDIT in a later period. `deliver` is the subject prefix under which its messages cross,
    as the accounts of that region export it.
    """

    domain: Token | None = None
    stream: Token = AUDIT
    deliver: Token = "mirror"


class StreamsTable(_Table):
    """How the streams are declared."""

    replicas: Replicas = 1
    replicated_consumers: bool = False
    mirror: MirrorTable = MirrorTable()
    max_bytes: MaxBytesTable = MaxBytesTable()


class OwnSubjectTable(_Table):
    """One own subject. `owner` is an agent's name or a SPIFFE ID; `action` is by default the subject itself."""

    kind: Literal["task", "call", "event"]
    owner: str
    action: str | None = None


class TrustTable(_Table):
    """The notaries that vouch for the trust bundles of the past; by default there are none.

    Notaries write the key books by which values that outlive a day (the stream HELD) still verify when their keys are gone.
    The setting is the same in every process of a deployment.
    """

    notaries: tuple[Id, ...] = ()


class AuditTable(_Table):
    """How the audit writer waits, how many denials of one sender it records singly in a minute, and what it leaves out.

    `redact` has JSON pointers into input documents by the subject pattern of the decided message; the policy sees these
    values, but they are not recorded. `bodies` are patterns of the subjects whose bodies are recorded, by default none.
    `spool` is a local folder in which records count as stored until the stream has them, up to `spool_max` bytes. Without it,
    which is the default, a message is handled only after the stream has acknowledged its record.
    """

    within: Seconds = 10.0
    denials: Count = 600
    redact: dict[SubjectPattern, tuple[InputPointer, ...]] = {}
    bodies: tuple[SubjectPattern, ...] = ()
    spool: Path | None = None
    spool_max: Size = 268_435_456


class IdentityTable(_Table):
    """How many seconds the Workload API has to give the first identity.

    `within` is for services, which also wait for a Workload API that is not started and an entry that does not exist yet;
    `command_within` is for a command that a person waits for, which waits only for an overloaded Workload API.
    """

    within: Seconds = 60.0
    command_within: Seconds = 5.0


class LimitsTable(_Table):
    """Bounds of a worker's memory; `WorkerLimits` has the same names."""

    pending_calls: Count = 4_096
    replay_entries: Count = 100_000


class HealthTable(_Table):
    """Where /healthz, /readyz and /metrics are served; by default nowhere."""

    address: str | None = None


class WorkerTable(_Table):
    """How a worker works; `WorkerLimits` has the same names."""

    concurrency: Count = 64
    batch: Annotated[int, Field(ge=1, le=4_096)] = 256
    ack_wait: Annotated[float, Field(ge=1, le=3_600, allow_inf_nan=False)] = 30.0
    max_ack_pending: Count = 131_072
    drain: Seconds = 20.0


class IssuerTable(_Table):
    """One issuer of access tokens; `agents/edge/oauth/issuers.py` explains each field.

    `audiences` is by default the edge's `resource`, and the URL of its `mcp`; an empty list takes no access tokens, only
    assertions. Only the token claims in `claims` reach the user context. Its security event tokens are taken for
    `event_audiences`, its logout tokens for the client ids in `logout_audiences`; by default none.
    """

    issuer: str
    domain: Domain | None = None
    subjects: Literal["users", "workloads"] = "users"
    audiences: tuple[str, ...] | None = None
    assertion_audience: str | None = None
    algorithms: tuple[str, ...] = ("ES256", "RS256")
    jwks_uri: str | None = None
    types: tuple[str, ...] = ("at+jwt", "application/at+jwt")
    claims: dict[str, str] = {}
    require: dict[str, str] = {}
    client_claim: str = "client_id"
    session_claim: str = "sid"
    tenant_claim: str | None = None
    tenant: str | None = None
    scope_claim: str = "scope"
    scopes: tuple[str, ...] | None = None
    bound: bool = False
    keep_tokens: bool = False
    introspection: str | None = None
    client: str | None = None
    client_key: Path | None = None
    client_secret: Path | None = None
    event_audiences: tuple[str, ...] = ()
    logout_audiences: tuple[str, ...] = ()

    def __str__(self) -> str:
        return self.issuer


class ApiTable(_Table):
    """One API outside; docs/legacy.md shows each grant, `agents/edge/egress/api.py` has the checks.

    `grant` is the credential that the API wants: a `key` in `key_header`, an access token for the exit itself
    (`client_credentials`), or an access token on behalf of the user, in exchange for the user's own token (`token_exchange`)
    or an assertion of the exit (`jwt_bearer`). `issuer` is the authorization server, of which the exit is the `client`.
    `users` are the issuers whose users the API knows by the same ids; only grants for a user take it. Without `networks` the
    API's addresses must be public. `authorities` is a PEM file. `tools` are patterns of the tools of an MCP server
    (docs/mcp.md), `card` is the path of the card of an A2A agent (docs/a2a.md).
    """

    url: str
    operations: tuple[str, ...]
    grant: Literal["key", "client_credentials", "token_exchange", "jwt_bearer"]
    key: Path | None = None
    key_header: str = "X-API-Key"
    issuer: str | None = None
    token_endpoint: str | None = None
    client: str | None = None
    client_key: Path | None = None
    client_secret: Path | None = None
    client_svid: bool = False
    audience: str = ""
    resource: str = ""
    scope: str = ""
    users: tuple[str, ...] = ()
    networks: tuple[str, ...] = ()
    authorities: Path | None = None
    headers: tuple[str, ...] = ()
    tools: tuple[str, ...] = ()
    card: str = ""
    seconds: Seconds = 10.0

    @field_validator("users")
    @classmethod
    def _of_a_grant_for_users(cls, value: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        if value and info.data.get("grant") in {"key", "client_credentials"}:
            raise ValueError("this grant asks for no user: the policy decides whose requests may leave")
        return value


class EgressTable(_Table):
    """The exit, and the APIs that agents reach through it, by the names that agents call them.

    `authorities` is a PEM file of the certificate authorities of authorization servers, by default the system's.
    """

    agent: str = "exit"
    authorities: Path | None = None
    apis: dict[str, ApiTable] = {}


class McpTable(_Table):
    """The edge's MCP server at `/mcp`, which needs the extra `mcp`.

    `actions` are the patterns of the actions that are tools: some of `edge.actions`, each described in `edge.schemas`.
    `scopes` has for such a pattern the scope that a token needs. `state_keys` are files made by `sealbus edge key`, at least
    one: the first seals the state that clients bring back, all open it. `sessions` is the number of sessions of older clients
    at a time, which last half an hour after their last request. `approvals` is the page for people who can approve, if there
    is one.
    """

    actions: tuple[str, ...]
    scopes: dict[str, str] = {}
    state_keys: tuple[Path, ...] = ()
    sessions: Annotated[int, Field(ge=1, le=65_536)] = 1_024
    approvals: str | None = None


class A2aTable(_Table):
    """The edge's A2A server at `/a2a/<agent>`, which needs the extra `a2a`.

    `agents` are the agents with a card, each described in `edge.schemas`; their actions are those of `edge.actions`. `scopes`
    has for a pattern of actions the scope that a token needs. `card_key` is the P-256 key that signs cards, and `grpc` the
    address of the gRPC server, by default none. `approvals` is the page for people who can approve. With `push_key`, a file
    made by `sealbus edge key`, clients can have news of their tasks pushed to URLs: at public addresses, or only in
    `push_networks` if there are any.
    """

    agents: Annotated[tuple[str, ...], Field(min_length=1)]
    scopes: dict[str, str] = {}
    card_key: Path | None = None
    grpc: str | None = None
    approvals: str | None = None
    push_key: Path | None = None
    push_networks: tuple[str, ...] = ()


class EdgeTable(_Table):
    """The edge: where it listens, which access tokens it accepts, and which actions it exposes.

    `resource` is the URL by which tokens name the edge. `address` needs `certificate` and `key` unless it is loopback;
    `plaintext` says that a proxy in front of it does TLS. `connections` are those of each listener at a time,
    `connections_of_address` those of one address, by default an eighth of all, or behind proxies all. `event_streams` are
    the streams of states and parts at a time. `proxies` is the number of proxies in front of it that add to X-Forwarded-For,
    from which a client's address is taken then. `token_service` is the address where backends get user contexts over mutual
    TLS, by default none. `actions` are `<agent>.<verb>` or `<agent>.*`; no other action is exposed. `schemas` are files of
    `sealbus agent schema`: /v1/openapi.json shows everyone their content about exposed actions. `cors` are the origins whose
    pages may read answers, by default none. With `pseudonym_key`, a file made by `sealbus edge key`, user contexts hold
    pseudonyms instead of users' ids: `derived` from the key, or `random`, each kept in a row of PEOPLE, which
    `sealbus forget` deletes. With `nonce_key`, made in the same way, proofs of possession must hold a nonce of the
    edge. With `token_key`, made in the same way, tokens of issuers with `keep_tokens` are kept for the exit, encrypted.
    `client_authorities` is a PEM file of the authorities of client certificates, to which tokens can be bound.
    `context_start` and `context_life` are seconds for which a chain may start with a context that it mints, and go on: by
    default 15 minutes and 8 hours, at most what readers accept (`context.start`, `context.life`). `approval_wait` is seconds
    for which a task may wait for an approval, by default a week, at most 30 days. With `schedules` users may schedule exposed
    actions (/v1/schedules), after a login that is at most `schedule_login` seconds old. `mcp` and `a2a` are doors for clients
    of those protocols.
    """

    address: str = "127.0.0.1:8080"
    resource: str | None = None
    certificate: Path | None = None
    key: Path | None = None
    plaintext: bool = False
    connections: Annotated[int, Field(ge=1, le=65_536)] = 1_024
    connections_of_address: Annotated[int, Field(ge=1, le=65_536)] | None = None
    event_streams: Annotated[int, Field(ge=1, le=65_536)] = 512
    token_service: str | None = None
    pseudonym_key: Path | None = None
    pseudonyms: Literal["derived", "random"] = "derived"
    nonce_key: Path | None = None
    token_key: Path | None = None
    client_authorities: Path | None = None
    context_start: Life | None = None
    context_life: Life | None = None
    approval_wait: Annotated[int, Field(ge=60, le=2_592_000)] = 604_800
    schedules: bool = False
    schedule_login: Annotated[int, Field(ge=10, le=86_400)] = 300
    actions: tuple[str, ...] = ()
    schemas: tuple[Path, ...] = ()
    cors: tuple[str, ...] = ()
    proxies: Annotated[int, Field(ge=0, le=16)] = 0
    issuers: tuple[IssuerTable, ...] = ()
    mcp: McpTable | None = None
    a2a: A2aTable | None = None


class ConsoleTable(_Table):
    """The console: where it listens, and where people log in.

    `url` is its URL for browsers, by default `http://` and the `address`, which needs `certificate` and `key` unless it is
    loopback; `plaintext` says that a proxy in front of it does TLS. `edge` is the URL of the edge that decides about access,
    by default `edge.resource`. People log in at `issuer` as the public client `client_id`, by default those of
    `client`, with `<url>/callback` as its redirect URI. `queues` are those of approvals that are always shown.
    """

    address: str = "127.0.0.1:8081"
    url: str | None = None
    certificate: Path | None = None
    key: Path | None = None
    plaintext: bool = False
    edge: str | None = None
    issuer: str | None = None
    client_id: str | None = None
    scope: str = "openid sealbus:approve"
    resource: str | None = None
    queues: tuple[str, ...] = ()


class ClientTable(_Table):
    """Settings of clients besides the bus: the edge's token service, an https URL, and where a person logs in.

    Commands send as the workload `name` if the settings name a Workload API socket for each workload. `sealbus login` is the
    public client `client_id` at `issuer`, exactly as in its metadata. It asks for `scope`, and for a token for `resource` if
    that is set (RFC 8707). A browser brings the answer to `redirect_uri`: on loopback, at any free port unless it names one.
    `logins` is the file in which logins are kept, by default in the user's state folder.
    """

    name: str = "shop-web"
    token_service: str | None = None
    issuer: str | None = None
    client_id: str | None = None
    scope: str = "openid"
    resource: str | None = None
    redirect_uri: str = "http://127.0.0.1/callback"
    logins: Path | None = None


class DevTable(_Table):
    """For `sealbus dev` only: the declarations of a project, and values for commands in other terminals.

    A project declares its agents by name, as MODULE:AGENT, the folder of their policy, and the users of its identity provider
    by name.
    """

    agents: dict[str, str] = {}
    users: Annotated[dict[str, dict[str, object]], Field(repr=False)] = {}
    issuer: str | None = None
    access: Path | None = None
    policy: Path | None = None


class CalloutTable(_Table):
    """The auth callout: files of its seeds (`sealbus control keygen`), and the bounds of its policy.

    `issuer` signs answers, `xkey` opens requests, responders log in with `nkey`. `accounts` are the server's accounts in
    which a policy may place connections; `servers` are the nkeys of the only servers that are answered, by default all;
    `longest` is seconds after which a connection must be made again, by default only at the end of its X.509-SVID.
    `bootstrap` is the signed bundle file that decides until the first push if the policy comes from a bucket of this NATS.
    `previous` is the folder of the former keys: servers that still have those are answered under them.
    """

    issuer: Path | None = None
    xkey: Path | None = None
    nkey: Path | None = None
    previous: Path | None = None
    bootstrap: Path | None = None
    accounts: tuple[str, ...] = ("APP", "APP_AGENTS")
    servers: tuple[str, ...] = ()
    longest: Annotated[float, Field(ge=10, le=86_400, allow_inf_nan=False)] | None = None


class NotaryTable(_Table):
    """The notary of a control process: `origin` names one log of one stream, `keys` are files of `sealbus notary keygen`.

    `folder` is the folder of the log. `previous` is a file with the last checkpoint of the previous period's log. `lease` is
    the seconds that a notary may be silent before another takes over; `whole` compares the whole stream with the log at each
    start, not only its last messages. `witnesses` is a file with a policy (C2SP tlog-policy), whose witnesses are asked to
    cosign each checkpoint; auditors need a root file with that policy.
    """

    origin: str | None = None
    keys: tuple[Path, ...] = ()
    folder: Path | None = None
    stream: str = AUDIT
    previous: Path | None = None
    lease: Annotated[float, Field(ge=1, le=3_600, allow_inf_nan=False)] = 10.0
    whole: bool = False
    witnesses: Path | None = None


class WitnessLogTable(_Table):
    """A log whose checkpoints the witness cosigns: its `origin`, and its verifier `keys` (`name+id+base64`)."""

    origin: str
    keys: Annotated[tuple[str, ...], Field(min_length=1, max_length=8)]

    def __str__(self) -> str:
        return self.origin


class WitnessTable(_Table):
    """The witness of a control process: `signing_keys` are files of `sealbus witness keygen`, each of which cosigns.

    `folder` is where it remembers what it cosigned; no other witness may use it. `address` needs `certificate` and `key`
    unless it is loopback; `plaintext` says that a proxy in front of it does TLS. `rate` is the requests a second of one
    address.
    """

    address: str = "127.0.0.1:8446"
    certificate: Path | None = None
    key: Path | None = None
    plaintext: bool = False
    rate: Annotated[float, Field(ge=1, le=100_000, allow_inf_nan=False)] = 100.0
    signing_keys: Annotated[tuple[Path, ...], Field(max_length=8)] = ()
    folder: Path | None = None
    logs: tuple[WitnessLogTable, ...] = ()


class LogServerTable(_Table):
    """The role that serves a log over HTTP (C2SP tlog-tiles): `folder` is by default that of the notary.

    `entries` also serves the tiles of entries and places; without it, only hashes and checkpoints are shown. `address` needs
    `certificate` and `key` unless it is loopback; `plaintext` says that a proxy in front of it does TLS. `rate` is the
    requests a second of one address.
    """

    address: str = "127.0.0.1:8447"
    certificate: Path | None = None
    key: Path | None = None
    plaintext: bool = False
    rate: Annotated[float, Field(ge=1, le=100_000, allow_inf_nan=False)] = 1_000.0
    folder: Path | None = None
    entries: bool = False


class RevokerTable(_Table):
    """The revoker of a control process: `key` is the file (P-256 in PEM, mode 0600) of the key that signs revocations."""

    key: Path | None = None


class ControlTable(_Table):
    """The roles of a control process. The role `backups` shows the age of the newest backup in a folder of `backups`."""

    callout: CalloutTable = CalloutTable()
    notary: NotaryTable = NotaryTable()
    witness: WitnessTable = WitnessTable()
    log: LogServerTable = LogServerTable()
    revoker: RevokerTable = RevokerTable()
    backups: Path | None = None


class Document(_Table):
    """All settings. With `development` requesters get the texts behind errors, which only `sealbus dev` allows."""

    trust_domain: Domain
    nats: Annotated[tuple[Server, ...], Field(min_length=1)]
    nats_ids: tuple[Id, ...] = ()
    workload_api: str | None = None
    policy: PolicyTable
    agents: AgentsTable = AgentsTable()
    context: ContextTable = ContextTable()
    chain: ChainTable = ChainTable()
    trust: TrustTable = TrustTable()
    streams: StreamsTable = StreamsTable()
    subjects: dict[str, OwnSubjectTable] = {}
    audit: AuditTable = AuditTable()
    identity: IdentityTable = IdentityTable()
    limits: LimitsTable = LimitsTable()
    health: HealthTable = HealthTable()
    worker: WorkerTable = WorkerTable()
    dev: DevTable = DevTable()
    edge: EdgeTable = EdgeTable()
    console: ConsoleTable = ConsoleTable()
    egress: EgressTable = EgressTable()
    client: ClientTable = ClientTable()
    control: ControlTable = ControlTable()
    development: bool = False
