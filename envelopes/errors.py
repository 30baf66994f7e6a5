"""The errors of sealbus: each tells whose fault it is and has a stable code.

::

    SealbusError
    +-- EnvelopeError
    +-- SealError: seal_refused
    +-- LogError
    +-- DecisionError
    |   +-- BadBody: bad_body
    |   +-- ResourceNotFound: resource_not_found
    |   +-- Denied: denied
    |       +-- ObligationUnknown: obligation_unknown
    +-- InfrastructureError
    |   +-- ResourceUnavailable: resource_unavailable, retried
    |   +-- PolicyUnavailable: policy_unavailable, retried
    |   +-- PolicyFailed: policy_error
    |   +-- AuditUnavailable: audit_unavailable, retried
    |   +-- StateUnavailable: state_unavailable, retried
    |   +-- ClockSkew: clock_skew, retried
    |   +-- IdentityUnavailable: identity_unavailable
    |   +-- BusUnavailable: bus_unavailable
    +-- ConnectRefused
    +-- HandlingError
    +-- ConfigurationError: configuration
        +-- BackupRefused: bad_backup
        +-- BundleRefused

The code of a class follows its name. A delivery from a stream that fails with a *retried* code is retried until its `exp`.
Codes are part of the wire contract (error replies, records, refusals) and never change their meaning. Texts are for
operators and hold no payload, token or key.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import StrEnum
from typing import ClassVar, Final

from sealbus.envelopes.denial import NOTHING_TOLD, Denier, Explanation, Remedy


class Code(StrEnum):
    """Every code that an error, a refusal or a record may have (SPEC.md section 10)."""

    # Steps 1 to 13.
    MALFORMED = "malformed"
    TOO_LARGE = "too_large"
    UNSUPPORTED_FORMAT = "unsupported_format"
    WRONG_KIND = "wrong_kind"
    WRONG_SUBJECT = "wrong_subject"
    WRONG_AUDIENCE = "wrong_audience"
    UNEXPECTED_REPLY = "unexpected_reply"
    NOT_YET_VALID = "not_yet_valid"
    EXPIRED = "expired"
    NO_LISTENER = "no_listener"
    REPLAYED = "replayed"
    OVERLOADED = "overloaded"
    BAD_CREDENTIAL = "bad_credential"
    UNKNOWN_TRUST_DOMAIN = "unknown_trust_domain"
    UNKNOWN_KEY = "unknown_key"
    CREDENTIAL_EXPIRED = "credential_expired"
    REVOKED = "revoked"
    BAD_SIGNATURE = "bad_signature"
    BAD_DIGEST = "bad_digest"
    BAD_CONTEXT = "bad_context"
    CONTEXT_ISSUER_REFUSED = "context_issuer_refused"
    BAD_CHAIN = "bad_chain"
    CHAIN_TOO_LONG = "chain_too_long"
    GRANT_EXCEEDED = "grant_exceeded"
    UNKNOWN_VERB = "unknown_verb"
    # Steps 14 to 18.
    BAD_BODY = "bad_body"
    RESOURCE_NOT_FOUND = "resource_not_found"
    RESOURCE_UNAVAILABLE = "resource_unavailable"
    DENIED = "denied"
    OBLIGATION_UNKNOWN = "obligation_unknown"
    POLICY_UNAVAILABLE = "policy_unavailable"
    POLICY_ERROR = "policy_error"
    AUDIT_UNAVAILABLE = "audit_unavailable"
    HANDLER_FAILED = "handler_failed"
    HANDLER_TIMEOUT = "handler_timeout"
    BAD_RESULT = "bad_result"
    NOT_ACCEPTABLE = "not_acceptable"
    IDEMPOTENCY_CONFLICT = "idempotency_conflict"
    OUTCOME_UNKNOWN = "outcome_unknown"
    KILLED = "killed"
    STATE_UNAVAILABLE = "state_unavailable"
    APPROVAL_REQUIRED = "approval_required"
    APPROVAL_FOREIGN = "approval_foreign"
    APPROVAL_CLOSED = "approval_closed"
    APPROVAL_SELF = "approval_self"
    APPROVAL_REPEATED = "approval_repeated"
    APPROVAL_WEAK = "approval_weak"
    # The edge, towards HTTP.
    BAD_TOKEN = "bad_token"
    UNKNOWN_ISSUER = "unknown_issuer"
    TOKEN_AUDIENCE = "token_audience"
    TOKEN_EXPIRED = "token_expired"
    KEYS_UNAVAILABLE = "keys_unavailable"
    BAD_DPOP_PROOF = "bad_dpop_proof"
    USE_DPOP_NONCE = "use_dpop_nonce"
    NO_TOKEN = "no_token"
    NOT_FOUND = "not_found"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    UNSUPPORTED_MEDIA_TYPE = "unsupported_media_type"
    REQUEST_TIMEOUT = "request_timeout"
    RATE_LIMITED = "rate_limited"
    TOKEN_SERVICE_UNAVAILABLE = "token_service_unavailable"
    INTERNAL = "internal"
    # The auth callout, towards NATS. It also uses `replayed`, `overloaded`, `unknown_trust_domain` and the codes of step 16.
    BAD_AUTH_REQUEST = "bad_auth_request"
    UNKNOWN_SERVER = "unknown_server"
    AUTH_REQUEST_EXPIRED = "auth_request_expired"
    NO_CLIENT_CERTIFICATE = "no_client_certificate"
    NOT_ONE_URI = "not_one_uri"
    BAD_SVID = "bad_svid"
    WRONG_AUTHORITY = "wrong_authority"
    SVID_EXPIRED = "svid_expired"
    # The audit log: findings of its verifiers.
    BAD_NOTE = "bad_note"
    UNTRUSTED_NOTE = "untrusted_note"
    BAD_NOTE_SIGNATURE = "bad_note_signature"
    NO_QUORUM = "no_quorum"
    WRONG_LOG = "wrong_log"
    BAD_TILE = "bad_tile"
    BAD_ENTRY = "bad_entry"
    BAD_PROOF = "bad_proof"
    INCONSISTENT_LOG = "inconsistent_log"
    LOG_MISMATCH = "log_mismatch"
    CLOCK_DISAGREEMENT = "clock_disagreement"
    # Local: never sent to a peer as a reason of an acceptance step.
    SEAL_REFUSED = "seal_refused"
    CLOCK_SKEW = "clock_skew"
    IDENTITY_UNAVAILABLE = "identity_unavailable"
    BUS_UNAVAILABLE = "bus_unavailable"
    CONFIGURATION = "configuration"
    BAD_BACKUP = "bad_backup"
    CANCELED = "canceled"
    TASK_ENDED = "task_ended"
    LOGIN_FAILED = "login_failed"
    LOGIN_REQUIRED = "login_required"


CODE_FORM: Final = re.compile(r"[a-z][a-z0-9_]{0,63}")
"""The form of every code. Newer writers, and handlers that reject, have codes that `Code` does not list."""

RETRIED_CODES = frozenset(
    {
        Code.UNKNOWN_KEY,
        Code.UNKNOWN_TRUST_DOMAIN,
        Code.RESOURCE_UNAVAILABLE,
        Code.POLICY_UNAVAILABLE,
        Code.AUDIT_UNAVAILABLE,
        Code.STATE_UNAVAILABLE,
        Code.OVERLOADED,
        Code.CLOCK_SKEW,
    }
)
"""Stream deliveries that fail with these codes are retried with backoff until `exp`; every other code ends them (SPEC.md
section 7). How often a handler's own failure is retried is declared with the handler."""

UNAUTHENTICATED_CODES = frozenset({Code.UNKNOWN_KEY, Code.UNKNOWN_TRUST_DOMAIN})
"""Retried codes that leave the sender unauthenticated: few such deliveries wait at once, and only for a short time."""


class SealbusError(Exception):
    """Root of every error that sealbus raises on purpose."""

    code: str

    def __init__(self, detail: str = "") -> None:
        super().__init__(detail)
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.code}: {self.detail}" if self.detail else str(self.code)


class EnvelopeError(SealbusError):
    """A message, statement or record failed acceptance: the only error that hostile bytes can raise.

    `step` is the number of the acceptance step in SPEC.md section 7; 0 if bytes are parsed outside a profile.
    `detail` names a field or a rule, never the field's content.
    """

    code: Code

    def __init__(self, code: Code, step: int, detail: str = "") -> None:
        super().__init__(detail)
        self.code = code
        self.step = step

    def at_step(self, step: int) -> EnvelopeError:
        """Return this refusal counted at `step`: steps 10 and 11 repeat steps 2, 7 and 8, and keep their codes."""
        return EnvelopeError(self.code, step, self.detail)


class SealError(SealbusError):
    """The caller's fault: every reader would refuse the value to be encoded or sealed. Nothing was sent."""

    code: Code = Code.SEAL_REFUSED


class LogError(SealbusError):
    """Bytes of an audit log are invalid: the only error that hostile bytes of a log can raise (SPEC.md section 13).

    `detail` names a part or a rule, never the part's content.
    """

    code: Code

    ALLOWED: ClassVar[frozenset[Code]] = frozenset(
        {
            Code.BAD_NOTE,
            Code.UNTRUSTED_NOTE,
            Code.BAD_NOTE_SIGNATURE,
            Code.NO_QUORUM,
            Code.WRONG_LOG,
            Code.BAD_TILE,
            Code.BAD_ENTRY,
            Code.BAD_PROOF,
            Code.INCONSISTENT_LOG,
            Code.LOG_MISMATCH,
            Code.CLOCK_DISAGREEMENT,
        }
    )

    def __init__(self, code: Code, detail: str = "") -> None:
        if code not in self.ALLOWED:
            raise ValueError(f"{code} is not a log's code")
        super().__init__(detail)
        self.code = code


class DecisionError(SealbusError):
    """Steps 14 to 16: a genuine message is not handled. It is recorded as a decision with `allow` false and this code."""

    code: Code


class BadBody(DecisionError):
    """Step 14: the body does not fit the handler's model."""

    code = Code.BAD_BODY


class ResourceNotFound(DecisionError):
    """Step 15: the resource does not exist. Resource loaders raise this."""

    code = Code.RESOURCE_NOT_FOUND


class Denied(DecisionError):
    """Step 16: the policy denied, or the peer says that its policy did.

    `reasons`, `remedies` and `via` (the agents that denied) are empty unless the policy lets them be shown (`Explanation`).
    """

    code = Code.DENIED

    def __init__(
        self,
        detail: str = "",
        reasons: Sequence[str] = (),
        remedies: Sequence[Remedy] = (),
        via: Sequence[Denier] = (),
    ) -> None:
        super().__init__(detail)
        self.reasons = tuple(reasons)
        self.remedies = tuple(remedies)
        self.via = tuple(via)

    def __str__(self) -> str:
        return f"{super().__str__()} ({', '.join(self.reasons)})" if self.reasons else super().__str__()

    @property
    def explanation(self) -> Explanation:
        """The reasons, remedies and denying agents, as one value."""
        return Explanation(self.reasons, self.remedies, self.via)


class ObligationUnknown(Denied):
    """Step 16: the policy allowed with an obligation that neither sealbus nor the handler honours. This is a denial."""

    code = Code.OBLIGATION_UNKNOWN


class InfrastructureError(SealbusError):
    """Our own side cannot answer now, so nothing is handled."""

    code: Code


class ResourceUnavailable(InfrastructureError):
    """Step 15: loading the resource failed or took too long."""

    code = Code.RESOURCE_UNAVAILABLE


class PolicyUnavailable(InfrastructureError):
    """Step 16: the policy engine did not answer."""

    code = Code.POLICY_UNAVAILABLE


class PolicyFailed(InfrastructureError):
    """Step 16: the engine answered with an error, or with a value that is not a decision."""

    code = Code.POLICY_ERROR


class AuditUnavailable(InfrastructureError):
    """Step 17: the audit stream did not acknowledge the decision."""

    code = Code.AUDIT_UNAVAILABLE


class StateUnavailable(InfrastructureError):
    """Stored state cannot be read or written. At step 18: the effect could not be claimed, so the handler did not run."""

    code = Code.STATE_UNAVAILABLE


class ClockSkew(InfrastructureError):
    """Our clock and the broker's differ by more than `Limits.clock_skew`, so nothing is opened or decided."""

    code = Code.CLOCK_SKEW


class IdentityUnavailable(InfrastructureError):
    """The Workload API gave no SVID, or none with enough life left to seal with."""

    code = Code.IDENTITY_UNAVAILABLE


class BusUnavailable(InfrastructureError):
    """NATS, or an agent behind it, cannot be reached or did not acknowledge within the deadline."""

    code = Code.BUS_UNAVAILABLE


class ConnectRefused(SealbusError):
    """The auth callout refuses a connection to NATS for the reason `code`. The client sees an authorization violation."""

    code: Code

    def __init__(self, code: Code, detail: str = "") -> None:
        super().__init__(detail)
        self.code = code


class HandlingError(SealbusError):
    """Step 18: the handler failed, or may not run; `code` is one of `ALLOWED`.

    If a request that the handler sent was denied, `code` is `denied`, and `explanation` is that of the denial.
    """

    code: Code

    ALLOWED: ClassVar[frozenset[Code]] = frozenset(
        {
            Code.HANDLER_FAILED,
            Code.HANDLER_TIMEOUT,
            Code.BAD_RESULT,
            Code.NOT_ACCEPTABLE,
            Code.IDEMPOTENCY_CONFLICT,
            Code.OUTCOME_UNKNOWN,
            Code.KILLED,
            Code.DENIED,
            Code.BAD_BODY,
            Code.RESOURCE_NOT_FOUND,
            Code.CANCELED,
        }
    )

    def __init__(self, code: Code, detail: str = "", explanation: Explanation = NOTHING_TOLD) -> None:
        if code not in self.ALLOWED:
            raise ValueError(f"{code} is not a handler's code")
        super().__init__(detail)
        self.code = code
        self.explanation = explanation


class ConfigurationError(SealbusError):
    """The operator's fault: a setting, file or stream is invalid. The text names it and says what to do."""

    code: Code = Code.CONFIGURATION


class BackupRefused(ConfigurationError):
    """A backup is damaged, of another deployment, or older than the running state, or a restore would overwrite state."""

    code: Code = Code.BAD_BACKUP


class BundleRefused(ConfigurationError):
    """A trust domain's JWT bundle breaks a rule of SPEC.md section 5; the previous one stays in force."""
