"""Accepts messages with nothing of sealbus: the live and the result profile, from envelopes/SPEC.md section 7 alone.

Each check is under the number of its step. What fails is `Refused`, with the code and the step that the page names.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from independent.control_bodies import covers
from independent.stored_values import World
from independent.verify_export import (
    CONTEXT,
    MESSAGE,
    SECOND,
    TOKEN,
    Bad,
    Envelope,
    H,
    Reader,
    check_credential,
    check_proof,
    decode,
    is_proof,
    is_uint,
    need,
    read_context,
    read_header,
    read_token,
)

__all__ = ["Accepted", "Core", "Lifetimes", "Live", "Refused", "Requester", "Stream", "accept_live"]

STREAM_KINDS = frozenset(["task", "event"])
TOLD = frozenset(["cancel", "approve", "schedule"])


class Refused(Exception):
    """A message that is not accepted."""

    def __init__(self, code: str, step: int, words: str) -> None:
        super().__init__(f"{code} at step {step}: {words}")
        self.code, self.step = code, step


@contextmanager
def step(number: int) -> Iterator[None]:
    """What fails inside fails at this step."""
    try:
        yield
    except Bad as error:
        raise Refused(error.code, number, error.words) from error


# ---- steps 1 and 2 ---------------------------------------------------------------------------------------------------


def small(value: Any, most: int, words: str) -> None:
    need(type(value) is bytes, "malformed", words)
    need(len(value) <= most, "too_large", words)


def check_form_of_credential(value: Any) -> None:
    need(type(value) is list and len(value) == 2 and is_uint(value[0]), "malformed", "credential")
    small(value[1], 4096, "token")


def check_signed_part(value: Any, words: str) -> None:
    """A context or an ancestor: what was signed, its proof and its credential."""
    need(type(value) is list and len(value) == 3, "malformed", words)
    small(value[0], 8192, words)
    need(is_proof(value[1]), "malformed", "proof")
    check_form_of_credential(value[2])


def read_form(payload: bytes, formats: Sequence[int]) -> Envelope:
    """Step 1: a format that is not configured is told before anything that follows it."""
    need(len(payload) <= 1_048_576, "too_large", "envelope")
    need(payload, "malformed", "nothing")
    if payload[0] >> 4 == 9 and payload[0] & 15:
        reader = Reader(payload, items=32, entries=0, text=256, nil=False, negative=False)
        reader.at = 1
        need(not is_uint(first := reader.value(2)) or first in formats, "unsupported_format", str(first))
    value = decode(payload, items=4096, entries=0, nil=True)
    need(type(value) is list and len(value) == 7 and is_uint(value[0]), "malformed", "envelope")
    small(value[1], 8192, "header")
    small(value[2], 917_504, "body")
    need(is_proof(value[3]), "malformed", "proof")
    check_form_of_credential(value[4])
    if value[5] is not None:
        check_signed_part(value[5], "context")
    need(type(value[6]) is list, "malformed", "ancestors")
    need(len(value[6]) <= 8, "chain_too_long", "ancestors")
    for ancestor in value[6]:
        check_signed_part(ancestor, "ancestor")
    return Envelope(*value[1:])


# ---- step 3 ----------------------------------------------------------------------------------------------------------


def is_verb(token: str) -> bool:
    return bool(TOKEN.fullmatch(token)) and not token.startswith("_")


def fits(header: Mapping[str, Any], world: World) -> bool:
    """Whether `to` has the form of section 3 for its kind, under the token of the right one."""
    token, to = world.root.token, header["to"]
    parts = to.split(".")
    match header["t"]:
        case "task":
            if parts[0] == "control":
                return len(parts) == 3 and parts[1] == token(header["aud"]) and parts[2] in TOLD
            return len(parts) in (3, 4) and parts[:2] == ["task", token(header["aud"])] and is_verb(parts[2])
        case "call":
            return len(parts) == 3 and parts[:2] == ["call", token(header["aud"])] and is_verb(parts[2])
        case "event":
            return len(parts) == 3 and parts[:2] == ["event", token(header["iss"])] and is_verb(parts[2])
        case "status":
            ident = parts[2] if len(parts) == 3 else ""
            hexed = len(ident) == 32 and set(ident) <= set("0123456789abcdef")
            return hexed and parts[:2] == ["status", token(header["aud"])]
        case _:
            return bool(to.startswith(f"_INBOX.{token(header['aud'])}."))


def check_place(
    header: Mapping[str, Any], subject: str, world: World, own_subjects: Sequence[Mapping[str, str]] = ()
) -> None:
    need(header["to"] == subject, "wrong_subject", "delivered elsewhere")
    declared = [one for one in own_subjects if one["subject"] == subject]
    if declared:
        owner = header["iss"] if header["t"] == "event" else header.get("aud")
        need((header["t"], owner) == (declared[0]["kind"], declared[0]["owner"]), "wrong_subject", "not as declared")
    else:
        need(fits(header, world), "wrong_subject", "not of its kind")
    if "rpl" in header:
        inbox = f"_INBOX.{world.root.token(header['iss'])}."
        need(header["rpl"].startswith(inbox), "wrong_subject", "replies go to another")


# ---- steps 5 and 6 ---------------------------------------------------------------------------------------------------


def check_times(header: Mapping[str, Any], reference: int, now: int | None) -> None:
    need(header["iat"] <= reference + 5 * SECOND, "not_yet_valid", "iat")
    need(reference < header["exp"] and (now is None or now < header["exp"]), "expired", "exp")


def check_block(block: bytes, ident: bytes) -> None:
    """The raw header block has the id once, exactly so spelled, and no other name of the server's."""
    head, end = b"NATS/1.0\r\n", b"\r\n"
    need(block.startswith(head) and block.endswith(end) and len(block) >= len(head) + len(end), "malformed", "block")
    inside = block[len(head) : -len(end)]
    lines = inside.split(end)
    need(lines.pop() == b"", "malformed", "a line that does not end")
    named = 0
    for line in lines:
        need(line and b"\r" not in line and b"\n" not in line, "malformed", "a bare CR or LF, or nothing")
        need(line[:1] not in (b" ", b"\t"), "malformed", "folded")
        name = line.partition(b":")[0].strip(b" \t").lower()
        if name == b"nats-msg-id":
            named += 1
            need(line == b"Nats-Msg-Id: " + ident.hex().encode(), "malformed", "another id, or otherwise spelled")
        else:
            need(not name.startswith(b"nats-"), "malformed", "a name of the server's")
    need(named == 1, "malformed", "the id is not there once")


@dataclass(frozen=True, kw_only=True)
class Stream:
    """Where a stored message was, and when it was stored."""

    name: str
    sequence: int
    subject: str
    header_block: bytes
    stored: int
    created: int


@dataclass(frozen=True, kw_only=True)
class Core:
    """How a call came; `seen` are the calls that are remembered: sender, id and when that ends."""

    subject: str
    started: int
    audit_created: int
    memory: int
    seen: Sequence[tuple[str, bytes, int]] = ()


def first_created(stream: Stream, restored: Sequence[Mapping[str, Any]]) -> int:
    """When the stream was created that stored the message first ("Restored streams")."""
    created = stream.created
    while stream.stored < created:
        known = [
            one["before"]
            for one in restored
            if one["stream"] == stream.name and one["created"] == created and one["last"] >= stream.sequence
        ]
        if not known:
            break
        created = known[0]
    return created


def check_stored(header: Mapping[str, Any], stream: Stream, restored: Sequence[Mapping[str, Any]]) -> None:
    check_block(stream.header_block, header["id"])
    need(header["iat"] - 5 * SECOND <= stream.stored <= header["iat"] + 60 * SECOND, "replayed", "not stored when made")
    need(header["iat"] >= first_created(stream, restored), "replayed", "made before its stream")


def check_call(header: Mapping[str, Any], core: Core, now: int) -> None:
    need(header["iat"] >= max(core.started, core.audit_created), "replayed", "made before this process or the stream")
    known = {(iss, ident) for iss, ident, exp in core.seen if now < exp}
    need((header["iss"], header["id"]) not in known, "replayed", "seen")
    need(len(known) < core.memory, "overloaded", "no room to remember it")


# ---- steps 7 to 12 ---------------------------------------------------------------------------------------------------


def check_seal(credential: Any, proof: Any, raw: bytes, signed: Mapping[str, Any], time: int, world: World) -> None:
    """Steps 7 and 8 of a message, at `time`."""
    check_key_of(credential, signed, time, world)
    check_proof(proof, raw, MESSAGE, signed["key"])


def check_key_of(credential: Any, signed: Mapping[str, Any], time: int, world: World) -> None:
    since = world.revoked_before.get(signed["iss"], 0)
    check_credential(credential, dict(signed), time, world.bundles, time, revoked_before=since)


@dataclass(frozen=True, kw_only=True)
class Lifetimes:
    """The settings of steps 10 and 11, in microseconds."""

    context_start: int
    context_life: int
    chain_life: int
    chain_after: int | None


def check_statement(
    header: Mapping[str, Any], statement: Any, minters: Sequence[str], lives: Lifetimes, world: World
) -> dict[str, Any] | None:
    """Step 10: the context's payload, if there is one."""
    need((statement is not None) == ("ctx" in header), "bad_context", "present without ctx, or missing")
    if statement is None:
        return None
    payload, proof, credential = statement
    need(H(payload) == header["ctx"], "bad_context", "another than was signed")
    context = read_context(payload)
    need(context["aud"] == world.root.trust_domain, "bad_context", "aud")
    need(context["exp"] - context["iat"] <= lives.context_start, "bad_context", "exp")
    need(context["end"] - context["iat"] <= lives.context_life, "bad_context", "end")
    need(context["iss"] in minters, "context_issuer_refused", context["iss"])
    check_key_of(credential, context, context["iat"], world)
    check_proof(proof, payload, CONTEXT, context["key"])
    return context


def check_ancestors(
    header: dict[str, Any],
    ancestors: Any,
    context: Mapping[str, Any] | None,
    reference: int,
    lives: Lifetimes,
    world: World,
) -> list[tuple[bytes, dict[str, Any]]]:
    """Step 11, in its order: the ancestors with their headers' bytes, the parent first."""
    need(bool(ancestors) == ("par" in header), "bad_chain", "par without ancestors, or ancestors without par")
    links: list[tuple[bytes, dict[str, Any]]] = []
    child = header
    for raw, _, _ in ancestors:
        need(child.get("par") == H(raw), "bad_chain", "not the parent")
        parent = read_header(raw)
        need(parent["t"] in ("task", "call"), "bad_chain", "neither task nor call")
        need(child["iss"] == parent["aud"], "bad_chain", "the parent was for another")
        need(parent["iat"] - 5 * SECOND <= child["iat"] < parent["end"], "bad_chain", "made outside its parent's time")
        need(child["end"] <= parent["end"], "bad_chain", "ends after its parent")
        need(child.get("ctx") == parent.get("ctx"), "bad_chain", "another user")
        links.append((raw, parent))
        child = parent
    need("par" not in child, "bad_chain", "the root has a parent")
    for link in (header, *(one for _, one in links)):
        need("end" not in link or reference < link["end"], "bad_chain", "over")
    if context is not None:
        need(child["iss"] == context.get("wkl", context["iss"]), "bad_chain", "begun by another")
        need(context["iat"] - 5 * SECOND <= child["iat"] < context["exp"], "bad_chain", "begun at another time")
        need(child["end"] <= context["end"], "bad_chain", "ends after the context")
    elif "end" in child:
        need(child["end"] - child["iat"] <= lives.chain_life, "bad_chain", "lives too long")
    for (raw, parent), (_, proof, credential) in zip(links, ancestors, strict=True):
        check_seal(credential, proof, raw, parent, parent["iat"], world)
        if lives.chain_after is not None:
            exp = read_token(credential[1], parent["key"])[4] * SECOND
            need(reference < exp + lives.chain_after, "bad_chain", "long after its credential")
    return links


# ---- the profiles ----------------------------------------------------------------------------------------------------


class Accepted(NamedTuple):
    """A message that passed all steps; `chain` are the hashes of the headers, the root's first."""

    header: dict[str, Any]
    digest: bytes
    body: bytes
    chain: list[bytes]


@dataclass(frozen=True, kw_only=True)
class Live:
    """What one subscription accepts."""

    own: str
    world: World
    kinds: Sequence[str]
    action: str
    minters: Sequence[str]
    lifetimes: Lifetimes
    formats: Sequence[int] = (1,)
    own_subjects: Sequence[Mapping[str, str]] = ()
    restored: Sequence[Mapping[str, Any]] = field(default_factory=tuple)


def accept_live(payload: bytes, place: Stream | Core, profile: Live, now: int) -> Accepted:
    """Steps 1 to 12 of a task, a call or an event."""
    world, stream = profile.world, isinstance(place, Stream)
    with step(1):
        envelope = read_form(payload, profile.formats)
    with step(2):
        header = read_header(envelope.header)
    with step(3):
        need(header["t"] in profile.kinds, "wrong_kind", "not handled here")
        need((header["t"] in STREAM_KINDS) == stream, "wrong_kind", "does not travel this way")
        need(stream or header["t"] == "call", "wrong_kind", "does not travel this way")
        check_place(header, place.subject, world, profile.own_subjects)
    with step(4):
        need(header.get("aud", profile.own) == profile.own, "wrong_audience", "for another")
    reference = place.stored if isinstance(place, Stream) else now
    with step(5):
        check_times(header, reference, now)
    with step(6):
        if isinstance(place, Stream):
            check_stored(header, place, profile.restored)
        else:
            check_call(header, place, now)
    with step(7):
        check_key_of(envelope.credential, header, reference, world)
    with step(8):
        check_proof(envelope.proof, envelope.header, MESSAGE, header["key"])
    with step(9):
        need(H(envelope.body) == header["dig"], "bad_digest", "body")
    with step(10):
        context = check_statement(header, envelope.context, profile.minters, profile.lifetimes, world)
    with step(11):
        links = check_ancestors(header, envelope.ancestors, context, reference, profile.lifetimes, world)
    with step(12):
        for _, parent in links:
            need(covers(parent.get("grt", [profile.action]), profile.action), "grant_exceeded", profile.action)
    digest = H(envelope.header)
    return Accepted(header, digest, envelope.body, [*(H(raw) for raw, _ in reversed(links)), digest])


@dataclass(kw_only=True)
class Request:
    """A call of ours, with the subject that replies go to, or a task of ours; and what has come of it."""

    digest: bytes
    id: bytes
    aud: str
    end: int
    rpl: str | None = None
    over: bool = False
    key: bytes | None = None
    chunks: int = 0
    counted: set[int] = field(default_factory=set)


@dataclass(kw_only=True)
class Requester:
    """The one that asked, and its requests by the hashes of their headers."""

    own: str
    world: World
    formats: Sequence[int] = (1,)
    requests: dict[bytes, Request] = field(default_factory=dict)

    def ask(self, digest: bytes, ident: bytes, aud: str, end: int, rpl: str | None) -> None:
        self.requests[digest] = Request(digest=digest, id=ident, aud=aud, end=end, rpl=rpl)

    def take(self, payload: bytes, subject: str, *, now: int | None, stored: int | None) -> Accepted | None:
        """Take a reply or a chunk `now`, or a status that was `stored` then; None for one that counted before."""
        reference = stored if stored is not None else now
        assert reference is not None
        with step(1):
            envelope = read_form(payload, self.formats)
        with step(2):
            header = read_header(envelope.header)
        with step(3):
            kinds = ("status",) if stored is not None else ("reply", "chunk")
            need(header["t"] in kinds, "wrong_kind", "not taken here")
            check_place(header, subject, self.world)
        with step(4):
            need(header["aud"] == self.own, "wrong_audience", "for another")
            request = self.asked(header)
            if header["t"] == "status" and header["seq"] in request.counted:
                return None
            check_next(request, header, reference)
        with step(5):
            check_times(header, reference, now)
        with step(7):
            check_key_of(envelope.credential, header, reference, self.world)
        with step(8):
            check_proof(envelope.proof, envelope.header, MESSAGE, header["key"])
        with step(9):
            need(H(envelope.body) == header["dig"], "bad_digest", "body")
        with step(10):
            need(envelope.context is None, "bad_context", "an answer has none")
        with step(11):
            need(envelope.ancestors == [], "bad_chain", "an answer has none")
        note_answer(request, header)
        return Accepted(header, H(envelope.header), envelope.body, [])

    def asked(self, header: Mapping[str, Any]) -> Request:
        request = self.requests.get(header["re"])
        need(request is not None, "unexpected_reply", "to nothing of ours")
        assert request is not None
        need((request.rpl is None) == (header["t"] == "status"), "unexpected_reply", "a status of a call, or the like")
        need(header["iss"] == request.aud, "unexpected_reply", "from another")
        place = request.rpl or f"status.{self.world.root.token(self.own)}.{request.id.hex()}"
        need(header["to"] == place, "unexpected_reply", "elsewhere")
        return request


def check_next(request: Request, header: Mapping[str, Any], reference: int) -> None:
    need(not request.over and reference < request.end, "unexpected_reply", "the request is over")
    if header["t"] == "chunk":
        need(header["seq"] == request.chunks, "unexpected_reply", "not the next chunk")
        need(request.key in (None, header["key"]), "unexpected_reply", "chunks of another key")
    if header["t"] == "status" and "fin" not in header:
        need(len(request.counted) < 4096, "unexpected_reply", "too many statuses")


def note_answer(request: Request, header: Mapping[str, Any]) -> None:
    request.over = header["t"] == "reply" or "fin" in header
    if header["t"] == "chunk":
        request.key, request.chunks = header["key"], request.chunks + 1
    if header["t"] == "status":
        request.counted.add(header["seq"])
