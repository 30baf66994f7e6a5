"""Every size, count and time that the edge limits, with its unit and its source."""

from __future__ import annotations

from dataclasses import dataclass

from sealbus.envelopes.limits import DEFAULT_LIMITS


@dataclass(frozen=True, slots=True, kw_only=True)
class EdgeLimits:
    """The limits of an edge. Names give the unit: `_bytes`, `_seconds`, else a count."""

    # Access tokens.
    token_bytes: int = 16_384
    """Longest access token. Twice what common servers accept as a header line; tokens of real issuers have 1 to 4 KiB."""
    token_nesting: int = 8
    """Depth of a token's JSON, as for JWT-SVIDs (SPEC.md section 5)."""
    key_id_bytes: int = 256
    """Longest `kid` that is looked up: it becomes a key of a cache."""
    future_seconds: int = 5
    """How far `iat` and `nbf` may lie ahead of our clock: the skew of SPEC.md section 3. `exp` has no leeway."""

    # Proofs of possession (RFC 9449).
    proof_bytes: int = 4_096
    """Longest proof; those with an RSA key of 4,096 bits have 1.7 KiB."""
    proof_seconds: int = 60
    """How old a proof may be: clients make one for each request, and their clocks differ."""
    nonce_seconds: int = 300
    """How long a nonce is given out; it counts for as long again."""

    # Assertions of partners (RFC 7523).
    assertion_seconds: int = 300
    """How far an assertion's `exp` may lie ahead: it is used at once, and remembered for as long."""

    # Keys of issuers.
    fetch_seconds: float = 5.0
    """One refresh of an issuer's keys: discovery and key set together."""
    document_bytes: int = 262_144
    """Metadata or key set. 64 RSA keys of 4,096 bits are 50 KiB, and with certificates in them 200 KiB."""
    document_nesting: int = 8
    keys: int = 64
    """Keys in a key set; large issuers publish about ten."""
    rsa_bits: int = 8_192
    """Longest RSA modulus: the cost of a verification grows with its square. The shortest is 2,048 (RFC 7518 section 3.3)."""
    keys_fresh_seconds: int = 300
    """How long a key set counts if the response does not say: a key that the issuer withdrew is gone by then."""
    keys_fresh_least_seconds: int = 60
    """Shortest time that Cache-Control can say, so that an issuer cannot make us ask at every token."""
    keys_fresh_most_seconds: int = 3_600
    """Longest time that Cache-Control can say: how long a withdrawn key may still be accepted."""
    keys_stale_seconds: int = 3_600
    """How long after that the last good key set still counts while no new one is available."""
    metadata_seconds: int = 3_600
    """How long an issuer's `jwks_uri` counts before its metadata is read again."""
    cool_down_seconds: int = 10
    """Least time between two fetches for an issuer that are caused by an unknown `kid` or a failure."""
    absent_key_seconds: int = 300
    """How long a `kid` that a fetch did not find causes no further fetch."""
    absent_keys: int = 1_024
    """Most such `kid`s remembered for each issuer; the oldest gives way."""

    # Tokens that their issuer is asked about (RFC 7662).
    introspection_seconds: int = 10
    """How long its answer counts: as long a token that it revoked is still taken."""
    introspected: int = 16_384
    """Answers kept at a time, of some 1 KiB each; the oldest gives way."""
    introspections: int = 64
    """Questions at a time; whoever comes with yet another token is told to try again."""

    # User contexts.
    context_start_seconds: int = 900
    """How long a chain may start with a context (SPEC.md section 6); never longer than the token lives."""
    context_end_seconds: int = 28_800
    """How long the work that it started may go on: a working day. SPEC.md section 6 allows 24 h."""

    # Requests.
    body_bytes: int = DEFAULT_LIMITS.body_bytes
    """The most that an envelope can carry (SPEC.md section 2)."""
    body_nesting: int = 64
    """Depth of a JSON body. Bodies of human applications nest under ten deep; parsers give up at some 1,000."""
    body_seconds: float = 10.0
    """For the whole body: 896 KiB in that time are 0.7 Mbit/s."""
    form_bytes: int = 32_768
    """A token request: the longest access token, percent-encoded, and as much again."""
    user_rate: float = 50.0
    """Requests a second of one user through one client, on average; far above what a person causes."""
    user_burst: int = 100
    client_rate: float = 500.0
    """Requests a second of all users of one client together: what runs wild in one application is not to hold up others."""
    client_burst: int = 1_000
    read_rate: float = 20.0
    """Looks at states and results of tasks a second of one user through all clients, on average.

    Each is decided, and takes some requests to the broker. A client of MCP is told to look once a second.
    """
    read_burst: int = 100
    charged_bytes: int = 65_536
    """Each so many bytes of a body count as one more request of its user: the largest takes 0.1 s to parse."""
    address_rate: float = 200.0
    """Requests a second of one address, counted before its token is read: many people share one."""
    address_burst: int = 400
    workload_rate: float = 500.0
    """Token exchanges a second of one workload; one costs the edge under a millisecond."""
    workload_burst: int = 1_000
    event_rate: float = 500.0
    """Security events and logouts a second of one issuer: each is a record, and a second's go into one push."""
    event_burst: int = 1_000
    rate_entries: int = 65_536
    """Users, clients or addresses whose rate is remembered; about 200 bytes each."""

    # Answers.
    call_seconds: float = 30.0
    """How long a call may take; SPEC.md section 3 allows 60 s."""
    revoke_seconds: float = 10.0
    """How long a revocation may take to be published: a second for more to come, and a broker that looks for a leader."""
    revoke_again_seconds: int = 5
    """After which time who reported one that was not published should come again."""
    submit_seconds: float = 10.0
    """How long storing a task may take: the broker acknowledges in milliseconds, and finds a new leader in seconds."""
    task_seconds: int = 3_600
    """How long a task may wait to be handled."""
    approval_wait_seconds: int = 604_800
    """How long a task may wait for somebody's approval; `edge.approval_wait` takes its place."""
    schedule_login_seconds: int = 300
    """How old a login may be with which a user grants something for later; `edge.schedule_login` takes its place."""
    event_streams: int = 512
    """Streams of states and parts at a time, some 50 kB each; `edge.event_streams` takes its place."""
    event_streams_of_user: int = 16
    event_seconds: float = 900.0
    """Longest status stream, never longer than its token lives; clients reconnect with Last-Event-ID."""
    event_pause_seconds: float = 15.0
    """A comment line after that much silence, so that middleboxes keep the connection: their shortest timeout is
    about 30 s.
    """

    def __post_init__(self) -> None:
        for name in self.__dataclass_fields__:
            if getattr(self, name) <= 0:
                raise ValueError(f"the edge's limit {name} must be positive")
        if not self.keys_fresh_least_seconds <= self.keys_fresh_seconds <= self.keys_fresh_most_seconds:
            raise ValueError("keys_fresh_seconds must lie between its least and its most")
        if not self.context_start_seconds <= self.context_end_seconds <= DEFAULT_LIMITS.live_seconds:
            raise ValueError("a context's start must not last longer than its end, nor that than a day")


DEFAULT_EDGE_LIMITS = EdgeLimits()
