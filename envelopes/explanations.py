"""What each stable code and each acceptance step means: whose fault it is, what to do next, and where the documents say more.

The one place for these texts: `sealbus explain` prints them. Codes are those of `errors` and of `export.finding`, each with
exactly one entry; steps are those of SPEC.md section 7.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final, NamedTuple

from sealbus.envelopes.errors import Code
from sealbus.envelopes.export.finding import FindingCode

__all__ = ["CODES", "FINDINGS", "STEPS", "CodeText", "Fault", "StepText", "page_named"]


class Fault(StrEnum):
    """Who has to do something about it."""

    SENDER = "the sender: what it sent may not be taken"
    CALLER = "yours: what was asked for here cannot be done"
    HANDLER = "the handling agent's"
    OPERATOR = "the operator's: something that runs is missing or set otherwise"
    POLICY = "nobody's: the policy decides so"
    POLICY_OWNER = "the owner's of the policy"
    LOG = "the log's, or whoever could change it or its copy"
    NOBODY = "nobody's"


class CodeText(NamedTuple):
    """What a code means, whose fault it is, what to do next, and the page of the repository that says more."""

    meaning: str
    fault: Fault
    advice: str
    page: str

    @property
    def place(self) -> str:
        """The page as readers without the repository find it: by its name in the documentation."""
        return page_named(self.page)


class StepText(NamedTuple):
    """The name of an acceptance step, and what it checks."""

    name: str
    checks: str


def page_named(page: str) -> str:
    """Return what a page of the repository, with a section perhaps, is called in the documentation."""
    path, _, section = page.partition("#")
    name = path.rpartition("/")[2].removesuffix(".md").lower()
    under = f", under '{section.replace('-', ' ')}'" if section else ""
    return f"page {name} of the documentation{under}"


STEPS: Final[Mapping[int, StepText]] = MappingProxyType(
    {
        1: StepText("Form", "size, encoding, types and format of the bytes"),
        2: StepText("Header", "exactly the fields of its kind, each valid"),
        3: StepText("Place", "the kind and the subject are those of this subscription"),
        4: StepText("Audience", "the message is for this workload; an answer belongs to an open request"),
        5: StepText("Time", "made in the past, and not expired"),
        6: StepText("Replay", "not seen before, and not moved into the stream by somebody else"),
        7: StepText("Credential", "the sender's JWT-SVID vouches for its key at the time of the message"),
        8: StepText("Proof", "the signature holds"),
        9: StepText("Body", "the body is the one that was signed"),
        10: StepText("Context", "the signed user context belongs to it, and its issuer may mint"),
        11: StepText("Chain", "the messages from which it follows fit each other, the context and the time"),
        12: StepText("Grants", "every message before it lets this action follow"),
        13: StepText("Remember", "its id is remembered, so that a copy is refused"),
        14: StepText("Body model", "the body fits the model of the handler"),
        15: StepText("Resource", "the resource is loaded"),
        16: StepText("Policy", "the policy is asked"),
        17: StepText("Record", "the decision is stored before anything is handled"),
        18: StepText("Handling", "the handler runs, once where an effect may happen only once"),
    }
)

CODES: Final[Mapping[Code, CodeText]] = MappingProxyType(
    {
        # Steps 1 to 13.
        Code.MALFORMED: CodeText(
            "The bytes are not a message of this format: a part is missing, of another type or too much.",
            Fault.SENDER,
            "Update the sender and send again; if its versions are current, somebody else writes to this subject.",
            "envelopes/SPEC.md#2-wire",
        ),
        Code.TOO_LARGE: CodeText(
            "The message, or a part of it, is over a limit of the format.",
            Fault.SENDER,
            "Send less: put what is large somewhere else, and send where it is.",
            "envelopes/SPEC.md#9-limits",
        ),
        Code.UNSUPPORTED_FORMAT: CodeText(
            "The message is of a version of the format that this reader does not read.",
            Fault.OPERATOR,
            "Update the agent that refused it, or let the sender use the older version.",
            "envelopes/SPEC.md#2-wire",
        ),
        Code.WRONG_KIND: CodeText(
            "The message is of a kind that is not handled where it arrived.",
            Fault.SENDER,
            "Send a task, a call or an event on its own subject; do not copy messages between subjects.",
            "envelopes/SPEC.md#3-header",
        ),
        Code.WRONG_SUBJECT: CodeText(
            "The message arrived on another subject than the one that was signed.",
            Fault.SENDER,
            "Publish to the signed subject; somebody may be copying messages between subjects.",
            "envelopes/SPEC.md#3-header",
        ),
        Code.WRONG_AUDIENCE: CodeText(
            "The message is for another workload.",
            Fault.SENDER,
            "Name the workload that is to handle it; compare its SPIFFE ID with the settings under [agents].",
            "envelopes/SPEC.md#7-acceptance",
        ),
        Code.UNEXPECTED_REPLY: CodeText(
            "The answer belongs to no request that is open here.",
            Fault.SENDER,
            "Nothing, if it came late. Otherwise somebody answers what they were not asked.",
            "envelopes/SPEC.md#7-acceptance",
        ),
        Code.NOT_YET_VALID: CodeText(
            "The message was made in the future, by the clock of who received it.",
            Fault.SENDER,
            "Synchronize the clock of the sender; sealbus doctor compares clocks.",
            "envelopes/SPEC.md#7-acceptance",
        ),
        Code.EXPIRED: CodeText(
            "The message, or the time for its work, is over.",
            Fault.NOBODY,
            "Ask again, with a longer end if the work takes longer; look whether a worker runs.",
            "envelopes/SPEC.md#7-acceptance",
        ),
        Code.NO_LISTENER: CodeText(
            "No process takes this call now: its agent does not run, or has no call of this name.",
            Fault.OPERATOR,
            "Compare the name with sealbus agent schema, and see who runs: sealbus agent ls. Tasks are sent by sealbus pub.",
            "docs/operations.md#agents",
        ),
        Code.REPLAYED: CodeText(
            "The message was seen before, or cannot be told from one that was.",
            Fault.SENDER,
            "Make a new message for each request; a copy is refused whoever sends it.",
            "envelopes/SPEC.md#7-acceptance",
        ),
        Code.OVERLOADED: CodeText(
            "There is no room to take the message now.",
            Fault.NOBODY,
            "Try again later; tasks are tried again by themselves. If it stays, run more workers or let streams hold more.",
            "docs/durability.md",
        ),
        Code.BAD_CREDENTIAL: CodeText(
            "The credential does not vouch for this key and this sender at this time.",
            Fault.SENDER,
            "Look at the sender's identity with sealbus identity show; its issuer and its clock must be right.",
            "envelopes/SPEC.md#5-credential-kind-1-a-jwt-svid-for-a-key",
        ),
        Code.UNKNOWN_TRUST_DOMAIN: CodeText(
            "There is no trust bundle here for the sender's trust domain.",
            Fault.OPERATOR,
            "Federate with that trust domain, or correct the sender's.",
            "docs/federation.md",
        ),
        Code.UNKNOWN_KEY: CodeText(
            "The sender's trust bundle here has no such key.",
            Fault.OPERATOR,
            "Wait for the bundle to arrive; tasks are tried again. If it stays, compare bundles with sealbus identity show.",
            "envelopes/SPEC.md#5-credential-kind-1-a-jwt-svid-for-a-key",
        ),
        Code.CREDENTIAL_EXPIRED: CodeText(
            "The sender's credential had expired when the message was made.",
            Fault.SENDER,
            "Look why the sender's SVID is not renewed: sealbus identity show there.",
            "envelopes/SPEC.md#5-credential-kind-1-a-jwt-svid-for-a-key",
        ),
        Code.REVOKED: CodeText(
            "The credential, or the user's session, is from before a revocation by the operator or the identity provider.",
            Fault.OPERATOR,
            "If it was meant: log in again, or renew the workload's SVID. Otherwise end the denial with sealbus deny rm.",
            "docs/policy.md#denying",
        ),
        Code.BAD_SIGNATURE: CodeText(
            "The signature does not hold: the message was changed, or not made by the key that it names.",
            Fault.SENDER,
            "Treat it as tampering until the sender is known to be at fault.",
            "envelopes/SPEC.md#4-signature",
        ),
        Code.BAD_DIGEST: CodeText(
            "The body is not the one that was signed.",
            Fault.SENDER,
            "Treat it as tampering until the sender is known to be at fault.",
            "envelopes/SPEC.md#7-acceptance",
        ),
        Code.BAD_CONTEXT: CodeText(
            "The signed user context is missing, superfluous, or another than the message says.",
            Fault.SENDER,
            "Pass on the context of the request that is handled, as ctx does by itself.",
            "envelopes/SPEC.md#6-user-context-a-statement",
        ),
        Code.CONTEXT_ISSUER_REFUSED: CodeText(
            "The user context was made by a workload that may not make any.",
            Fault.OPERATOR,
            "List the edge under context.minters in every process, or find out who makes contexts.",
            "envelopes/SPEC.md#6-user-context-a-statement",
        ),
        Code.BAD_CHAIN: CodeText(
            "The messages from which this one follows do not fit each other, the user context or the time.",
            Fault.SENDER,
            "Send sub-tasks through ctx of the handler, while its own message has not ended.",
            "envelopes/SPEC.md#7-acceptance",
        ),
        Code.CHAIN_TOO_LONG: CodeText(
            "Over eight messages stand before this one.",
            Fault.SENDER,
            "Let agents ask each other in fewer steps, or begin again with an event.",
            "envelopes/SPEC.md#9-limits",
        ),
        Code.GRANT_EXCEEDED: CodeText(
            "A message before this one did not let this action follow from it.",
            Fault.SENDER,
            "Grant the action in the earlier message, or do not do it for this request.",
            "envelopes/SPEC.md#3-header",
        ),
        Code.UNKNOWN_VERB: CodeText(
            "The agent has no handler for this verb.",
            Fault.SENDER,
            "Compare with sealbus agent schema; a worker of another version may be running.",
            "docs/operations.md#agents",
        ),
        # Steps 14 to 18.
        Code.BAD_BODY: CodeText(
            "The body does not fit the model of the handler.",
            Fault.SENDER,
            "Send what the agent's schema says: sealbus agent schema.",
            "docs/operations.md#agents",
        ),
        Code.RESOURCE_NOT_FOUND: CodeText(
            "The handling agent knows no such resource.",
            Fault.SENDER,
            "Correct the id in the body.",
            "docs/guide.md#your-own-agent",
        ),
        Code.RESOURCE_UNAVAILABLE: CodeText(
            "The resource could not be loaded in time.",
            Fault.HANDLER,
            "Look at the store that the agent's loader asks; tasks are tried again by themselves.",
            "docs/guide.md#your-own-agent",
        ),
        Code.DENIED: CodeText(
            "The policy of the agent that handles it denies this.",
            Fault.POLICY,
            "See which rule denied it: sealbus policy explain, which explains the newest denial, or that of an id.",
            "docs/policy.md#denials-that-help",
        ),
        Code.OBLIGATION_UNKNOWN: CodeText(
            "The policy allowed it with an obligation that the handler has not declared to honour, which is a denial.",
            Fault.HANDLER,
            "Declare the obligation in the handler and honour it, or let the policy leave it out.",
            "docs/guide.md#the-policy",
        ),
        Code.POLICY_UNAVAILABLE: CodeText(
            "The policy engine did not answer, so that nothing was handled.",
            Fault.OPERATOR,
            "Look at the engine with sealbus policy status --engine; tasks are tried again by themselves.",
            "docs/policy.md#opa",
        ),
        Code.POLICY_ERROR: CodeText(
            "The policy answered with something that is not a decision, so that nothing was handled.",
            Fault.POLICY_OWNER,
            "Test the policy with sealbus policy test; its answer must be exactly of the form of the starter's.",
            "docs/policy.md#what-a-policy-may-be-made-of",
        ),
        Code.AUDIT_UNAVAILABLE: CodeText(
            "The decision could not be stored, so that nothing was handled.",
            Fault.OPERATOR,
            "Look at the audit stream with sealbus streams plan; tasks are tried again by themselves.",
            "docs/evidence.md#where-records-wait",
        ),
        Code.HANDLER_FAILED: CodeText(
            "The handler raised an error.",
            Fault.HANDLER,
            "Look into the log of the worker; sealbus audit replay --into runs the handler again for debugging.",
            "docs/past.md#what-a-handler-did-with-a-message",
        ),
        Code.HANDLER_TIMEOUT: CodeText(
            "The handler did not finish in time.",
            Fault.HANDLER,
            "Let the handler do less at once, or declare more time for it.",
            "docs/guide.md#your-own-agent",
        ),
        Code.BAD_RESULT: CodeText(
            "The handler returned what cannot be encoded.",
            Fault.HANDLER,
            "Return a value of the declared model.",
            "docs/guide.md#your-own-agent",
        ),
        Code.NOT_ACCEPTABLE: CodeText(
            "The handler answers in chunks, and the call takes one answer. It was not run.",
            Fault.SENDER,
            "Read the answer as a stream (ctx.stream), or call another verb.",
            "docs/guide.md#your-own-agent",
        ),
        Code.IDEMPOTENCY_CONFLICT: CodeText(
            "The same idempotency key was used before with another body.",
            Fault.SENDER,
            "Use a new key for a new request, and the same body for a repeated one.",
            "docs/durability.md",
        ),
        Code.OUTCOME_UNKNOWN: CodeText(
            "The process that began it ended before it said what became of it; it is not begun again.",
            Fault.OPERATOR,
            "Find out whether the effect has happened, then send it again with a new idempotency key if not.",
            "docs/durability.md",
        ),
        Code.KILLED: CodeText(
            "Process after process ended while it handled this alone, as the kernel does for want of memory.",
            Fault.OPERATOR,
            "Find what the handler does with this message, by sealbus dead show. Mend that, then send it again.",
            "docs/operations.md#dead-letters",
        ),
        Code.STATE_UNAVAILABLE: CodeText(
            "An effect that may happen only once could not be claimed, so that the handler did not run.",
            Fault.OPERATOR,
            "Look at NATS and at the bucket of claims with sealbus streams plan; tasks are tried again by themselves.",
            "docs/durability.md",
        ),
        Code.APPROVAL_REQUIRED: CodeText(
            "The task waits until somebody approves it.",
            Fault.POLICY,
            "Wait, or ask those who may: sealbus approvals ls shows what waits.",
            "docs/approvals.md",
        ),
        Code.APPROVAL_FOREIGN: CodeText(
            "The approval is of something else than what waits, or was not given by a person through an edge.",
            Fault.SENDER,
            "Approve what sealbus approvals show names, through the edge.",
            "docs/approvals.md#what-no-policy-lifts",
        ),
        Code.APPROVAL_CLOSED: CodeText(
            "Nothing waits for this approval, or no longer.",
            Fault.SENDER,
            "Nothing: somebody else decided it, or its time is over.",
            "docs/approvals.md#what-no-policy-lifts",
        ),
        Code.APPROVAL_SELF: CodeText(
            "Nobody approves their own request.",
            Fault.SENDER,
            "Let somebody else approve it.",
            "docs/approvals.md#what-no-policy-lifts",
        ),
        Code.APPROVAL_REPEATED: CodeText(
            "The same person has given their verdict on it before.",
            Fault.SENDER,
            "Let somebody else approve it: several approvals are of several people.",
            "docs/approvals.md#what-no-policy-lifts",
        ),
        Code.APPROVAL_WEAK: CodeText(
            "The login of who approves is too weak or too old for this.",
            Fault.SENDER,
            "Log in again as the approval asks for, then approve.",
            "docs/approvals.md#what-no-policy-lifts",
        ),
        # The edge, towards HTTP.
        Code.BAD_TOKEN: CodeText(
            "The access token has a wrong form, header, key, signature or claim.",
            Fault.SENDER,
            "Get a new token from your identity provider; the token itself is never logged.",
            "docs/edge.md#requests",
        ),
        Code.UNKNOWN_ISSUER: CodeText(
            "The access token is of an issuer that the edge does not know.",
            Fault.OPERATOR,
            "List the issuer under edge.issuers, or log in at a provider that is.",
            "docs/edge.md#settings",
        ),
        Code.TOKEN_AUDIENCE: CodeText(
            "The access token is for somebody else.",
            Fault.SENDER,
            "Ask the provider for a token for the edge's resource (client.resource).",
            "docs/edge.md#requests",
        ),
        Code.TOKEN_EXPIRED: CodeText(
            "The access token has expired.", Fault.SENDER, "Get a new one: sealbus login.", "docs/login.md"
        ),
        Code.KEYS_UNAVAILABLE: CodeText(
            "The keys of the token's issuer could not be fetched, so that no token of it is taken.",
            Fault.OPERATOR,
            "Look whether the edge reaches the provider; try again later.",
            "docs/edge.md#settings",
        ),
        Code.BAD_DPOP_PROOF: CodeText(
            "There is no good proof that the sender of the bound token holds its key.",
            Fault.SENDER,
            "Make a new proof with the key of the token for each request, for its method and URL.",
            "docs/edge.md#tokens-that-are-bound-to-a-key",
        ),
        Code.USE_DPOP_NONCE: CodeText(
            "The proof needs the nonce that the edge gave with this answer.",
            Fault.SENDER,
            "Make the proof again with the nonce; libraries do it by themselves.",
            "docs/edge.md#tokens-that-are-bound-to-a-key",
        ),
        Code.NO_TOKEN: CodeText(
            "The request has no access token.",
            Fault.SENDER,
            "Log in (sealbus login) and send the token.",
            "docs/edge.md#requests",
        ),
        Code.NOT_FOUND: CodeText(
            "There is no such path, action or task, or not for this user.",
            Fault.SENDER,
            "Correct the name, or ask as who may see it; an action must be exposed at the edge (edge.actions).",
            "docs/edge.md#requests",
        ),
        Code.METHOD_NOT_ALLOWED: CodeText(
            "The path exists, but not with this method.",
            Fault.SENDER,
            "Use the method that the page edge of the documentation names for it.",
            "docs/edge.md#requests",
        ),
        Code.UNSUPPORTED_MEDIA_TYPE: CodeText(
            "The body is of a media type that is not taken.",
            Fault.SENDER,
            "Send application/json.",
            "docs/edge.md#requests",
        ),
        Code.REQUEST_TIMEOUT: CodeText(
            "The request took too long to arrive.",
            Fault.SENDER,
            "Send it faster or in smaller parts; look at what stands between.",
            "docs/edge.md#requests",
        ),
        Code.RATE_LIMITED: CodeText(
            "There were too many requests or streams of this user or address.",
            Fault.SENDER,
            "Try again after the time in Retry-After.",
            "docs/edge.md#settings",
        ),
        Code.TOKEN_SERVICE_UNAVAILABLE: CodeText(
            "The edge's token service did not answer.",
            Fault.OPERATOR,
            "Look whether the edge runs and client.token_service is right.",
            "docs/edge.md#the-token-service",
        ),
        Code.INTERNAL: CodeText(
            "Something failed here of which callers are told nothing.",
            Fault.OPERATOR,
            "Look into the log of the edge at the time of the request.",
            "docs/edge.md#what-it-keeps-and-tells",
        ),
        # The auth callout, towards NATS.
        Code.BAD_AUTH_REQUEST: CodeText(
            "The request is not one of a NATS server, or not sealed for this callout.",
            Fault.OPERATOR,
            "Compare auth_callout in the server's configuration with that on the page callout of the documentation.",
            "docs/callout.md",
        ),
        Code.UNKNOWN_SERVER: CodeText(
            "The NATS server that asks is not listed.",
            Fault.OPERATOR,
            "List its public key in the settings of the callout.",
            "docs/callout.md",
        ),
        Code.AUTH_REQUEST_EXPIRED: CodeText(
            "The request came after its time had run out.",
            Fault.OPERATOR,
            "Compare the clocks, and look why the callout is slow.",
            "docs/callout.md",
        ),
        Code.NO_CLIENT_CERTIFICATE: CodeText(
            "The client came without a verified certificate.",
            Fault.SENDER,
            "Connect with the X.509-SVID of the workload.",
            "docs/callout.md",
        ),
        Code.NOT_ONE_URI: CodeText(
            "The client's certificate has no URI name, or several.",
            Fault.SENDER,
            "Use an X.509-SVID: it has exactly one.",
            "docs/callout.md",
        ),
        Code.BAD_SVID: CodeText(
            "The client's certificate is not an X.509-SVID.",
            Fault.SENDER,
            "Use the certificate that the Workload API gives.",
            "docs/callout.md",
        ),
        Code.WRONG_AUTHORITY: CodeText(
            "The bundle of the certificate's own trust domain does not vouch for it.",
            Fault.SENDER,
            "Look who issued it; a bundle that is new here may not have arrived.",
            "docs/callout.md",
        ),
        Code.SVID_EXPIRED: CodeText(
            "The client's X.509-SVID has expired.",
            Fault.SENDER,
            "Look why it is not renewed: sealbus identity show there.",
            "docs/callout.md",
        ),
        # The audit log: findings of its verifiers.
        Code.BAD_NOTE: CodeText(
            "It is not a note, checkpoint, key or receipt of the right form.",
            Fault.LOG,
            "Take a new export; if it stays, the log or the copy was changed.",
            "docs/evidence.md#export-and-verify",
        ),
        Code.UNTRUSTED_NOTE: CodeText(
            "No key that the root file knows has signed it.",
            Fault.LOG,
            "Use the root file of this log; otherwise it is another log, or a forgery.",
            "docs/evidence.md#the-root-file",
        ),
        Code.BAD_NOTE_SIGNATURE: CodeText(
            "A known key is said to have signed it and did not.",
            Fault.LOG,
            "Treat it as a forgery.",
            "docs/evidence.md#export-and-verify",
        ),
        Code.WRONG_LOG: CodeText(
            "The checkpoint is of another log.",
            Fault.LOG,
            "Use the root file and the checkpoints of one log.",
            "docs/evidence.md#the-root-file",
        ),
        Code.BAD_TILE: CodeText(
            "A tile of the log is missing or of a wrong form.",
            Fault.LOG,
            "Take a new export; if it stays, the log or the copy was changed.",
            "docs/evidence.md#export-and-verify",
        ),
        Code.BAD_ENTRY: CodeText(
            "An entry of the log is no entry, or may not stand there.",
            Fault.LOG,
            "Take a new export; if it stays, the log or the copy was changed.",
            "docs/evidence.md#export-and-verify",
        ),
        Code.BAD_PROOF: CodeText(
            "A proof does not lead to where it must.",
            Fault.LOG,
            "Take a new receipt or export; if it stays, the log or the copy was changed.",
            "docs/evidence.md#one-message-one-record",
        ),
        Code.INCONSISTENT_LOG: CodeText(
            "Two checkpoints cannot be of one log: something before the earlier one was changed.",
            Fault.LOG,
            "Keep both as evidence, and find out who holds the key of the log.",
            "docs/evidence.md#export-and-verify",
        ),
        Code.LOG_MISMATCH: CodeText(
            "The tiles or the stream do not match the last checkpoint, so that the notary adds nothing.",
            Fault.OPERATOR,
            "Keep everything as it is, and compare it with a backup and with a checkpoint that others hold.",
            "docs/notary.md",
        ),
        Code.CLOCK_DISAGREEMENT: CodeText(
            "Stored times and the notary's clock differ by over a minute, so that it adds nothing.",
            Fault.OPERATOR,
            "Synchronize the clocks of NATS and the notary.",
            "docs/notary.md",
        ),
        # Local.
        Code.SEAL_REFUSED: CodeText(
            "What was to be sent breaks a rule of the format, so that every reader would refuse it. Nothing was sent.",
            Fault.CALLER,
            "Correct what is sent; the text names the field.",
            "envelopes/SPEC.md#2-wire",
        ),
        Code.CLOCK_SKEW: CodeText(
            "The clock here and that of NATS are too far apart, so that nothing is opened or decided.",
            Fault.OPERATOR,
            "Synchronize the clocks; sealbus doctor compares them.",
            "envelopes/SPEC.md#7-acceptance",
        ),
        Code.IDENTITY_UNAVAILABLE: CodeText(
            "The Workload API gave no SVID with enough life left.",
            Fault.OPERATOR,
            "Look at the SPIRE agent and the workload's registration: sealbus identity show, sealbus doctor.",
            "docs/guide.md#deployment",
        ),
        Code.BUS_UNAVAILABLE: CodeText(
            "NATS cannot be reached, or did not acknowledge in time.",
            Fault.OPERATOR,
            "Look whether NATS runs where the settings say: sealbus doctor.",
            "docs/operations.md",
        ),
        Code.CONFIGURATION: CodeText(
            "A setting, a file, an argument or a stream is not as it must be.",
            Fault.CALLER,
            "Correct what the text names; sealbus doctor shows the settings in force.",
            "docs/operations.md",
        ),
        Code.BAD_BACKUP: CodeText(
            "A backup is damaged, of another deployment or older than what is here, or would be restored over something.",
            Fault.OPERATOR,
            "Do what the text says, or take another backup.",
            "docs/backup.md",
        ),
        Code.CANCELED: CodeText(
            "The requester or an operator canceled it.",
            Fault.NOBODY,
            "Nothing; send it again if it is still wanted.",
            "docs/cancel.md",
        ),
        Code.TASK_ENDED: CodeText(
            "The task has ended, so that nothing of it can be canceled.",
            Fault.CALLER,
            "Ask for its result: sealbus task result.",
            "docs/cancel.md",
        ),
        Code.LOGIN_FAILED: CodeText(
            "The identity provider did not log you in.",
            Fault.CALLER,
            "Try again, and look at what the provider says.",
            "docs/login.md",
        ),
        Code.LOGIN_REQUIRED: CodeText(
            "There is no login to use.", Fault.CALLER, "Log in: sealbus login.", "docs/login.md"
        ),
    }
)

FINDINGS: Final[Mapping[FindingCode, CodeText]] = MappingProxyType(
    {
        FindingCode.MISSING_FILE: CodeText(
            "A file that belongs to the export is missing.",
            Fault.LOG,
            "Take a new export; if it is missing there, too, the log has lost it.",
            "docs/evidence.md#export-and-verify",
        ),
        FindingCode.UNKNOWN_FILE: CodeText(
            "A file that does not belong to the export is in it.",
            Fault.LOG,
            "Remove it if you put it there; otherwise find out who did.",
            "docs/evidence.md#export-and-verify",
        ),
        FindingCode.LOST_RECORDS: CodeText(
            "Messages that were logged are gone since the stream was restored from a backup, as an operator said.",
            Fault.LOG,
            "Ask that operator why no newer backup was there; checkpoints that others hold show how far the log had come.",
            "docs/backup.md#tell-the-notary",
        ),
        FindingCode.ROLLED_BACK: CodeText(
            "A checkpoint that others hold covers more entries than are here.",
            Fault.LOG,
            "Take a newer export; if the log itself is shorter, it was cut.",
            "docs/evidence.md#the-root-file",
        ),
        FindingCode.NO_BUNDLE: CodeText(
            "The root file leads to no trust bundle, so that nothing can be verified.",
            Fault.LOG,
            "Use the root file that was made when the log began.",
            "docs/evidence.md#the-root-file",
        ),
        FindingCode.BAD_BUNDLE: CodeText(
            "The notary recorded a trust bundle that breaks a rule; the one before it stays in force.",
            Fault.LOG,
            "Look at the Workload API of the notary at that time.",
            "docs/evidence.md#export-and-verify",
        ),
        FindingCode.UNTRUSTED_BUNDLE: CodeText(
            "Nothing that is trusted vouches for a recorded trust bundle.",
            Fault.LOG,
            "Treat what it signs as unknown; find out who recorded it.",
            "docs/evidence.md#export-and-verify",
        ),
        FindingCode.NOT_THE_NOTARY: CodeText(
            "A record that only the notary may write was written by somebody else.",
            Fault.LOG,
            "Find out how that workload could write it; it counts for nothing.",
            "docs/notary.md",
        ),
        FindingCode.WRONG_AUDIENCE: CodeText(
            "A decision was recorded by another workload than the one that the message was for.",
            Fault.LOG,
            "Find out why that workload records decisions about messages of others.",
            "docs/evidence.md#export-and-verify",
        ),
        FindingCode.BAD_POLICY: CodeText(
            "An archived policy bundle is not the one that the notary's record names.",
            Fault.LOG,
            "Restore the file from another copy; decisions by it cannot be made again until then.",
            "docs/evidence.md#the-archive-of-policies",
        ),
        FindingCode.BAD_DECISION: CodeText(
            "A decision does not follow from its recorded input and policy.",
            Fault.LOG,
            "See how it comes out with sealbus policy explain; the recorder may be changed or hostile.",
            "docs/past.md#whether-the-log-follows-from-its-own-policies",
        ),
        FindingCode.BAD_APPROVAL: CodeText(
            "An allowed decision rests on an approval that the log does not show.",
            Fault.LOG,
            "Find out how the recorder came to allow it.",
            "docs/approvals.md#proof",
        ),
        FindingCode.BAD_GRANT: CodeText(
            "What was done for a user who was away is not what they granted, as far as the log shows.",
            Fault.LOG,
            "Find out how the recorder came to allow it.",
            "docs/schedules.md",
        ),
    }
)
"""Findings of a verifier about an export, beside those that are errors of envelopes and of the log."""
