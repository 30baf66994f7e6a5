"""The first inputs of all targets, from the vectors and from what senders make.

::

    PYTHONPATH=tests python -m fuzz.seeds       # writes those of targets without a corpus
"""

from __future__ import annotations

import gzip
import io
import json
from base64 import b64decode, b64encode, urlsafe_b64decode
from collections.abc import Iterable, Iterator, Mapping
from hashlib import sha256
from typing import Any, Final

import fuzz.bundles
import fuzz.callout
import fuzz.logs
import fuzz.messages
import fuzz.tokens
from a2a.types import Message, Part, Role, SendMessageRequest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from fuzz.messages import SPLIT
from fuzz.targets import CORPUS, names
from spiffe._proto import workload_pb2
from support.dpop import Holder
from support.envelopes import private_key
from support.issuer import AUDIENCE, compact, public_jwk
from support.vectors import load, octets

from sealbus.agents.control.notary.lease import Leased
from sealbus.agents.edge.oauth.bound.dpop import Nonces
from sealbus.agents.sdk.token_exchange import context_token
from sealbus.bus.audit.spool_files import encode_frame as encode_spooled
from sealbus.envelopes.encoding.codec import decode
from sealbus.envelopes.export.format import Frame, encode_frame, read_frames
from sealbus.envelopes.export.latest import encode_latest
from sealbus.envelopes.limits import DEFAULT_LIMITS
from sealbus.envelopes.log.restoration import Restoration
from sealbus.envelopes.message.restored import RestoredStream
from sealbus.envelopes.message.wire import parse_envelope
from sealbus.envelopes.records.batch import ClosedBatch
from sealbus.envelopes.trust.spiffe_id import SpiffeId
from sealbus.policies.bundle.archive import pack_archive

MOST: Final = 4_096
"""Longest seed."""
FEW: Final = 24
"""Most seeds of a target."""

Seeds = dict[str, list[bytes]]


def seeds() -> Seeds:
    """Return the seeds by target."""
    found: Seeds = {name: [] for name in names()}
    for part in (_messages, _records, _logs, _stored, _bodies, _bundles, _callout, _tokens, _http, _doors, _nats):
        for name, inputs in part().items():
            if name not in found:
                raise KeyError(name)
            found[name] += _few(inputs)
    return found


def write() -> None:
    """Write the seeds of the targets that have no corpus: some have a signature, which is another in each run."""
    for name, inputs in seeds().items():
        folder = CORPUS / name
        if folder.exists():
            continue
        folder.mkdir(parents=True)
        for data in inputs:
            (folder / sha256(data).hexdigest()[:16]).write_bytes(data)


def _few(inputs: Iterable[bytes]) -> list[bytes]:
    return list(dict.fromkeys(data for data in inputs if len(data) <= MOST))[:FEW]


def _payloads(file: str) -> list[bytes]:
    return [octets(case["payload"]) for case in load(file)]


def _messages() -> Mapping[str, Iterable[bytes]]:
    live = _payloads("accept_live.json")
    parsed = [parse_envelope(data) for data in live]
    refused = [data for data in _payloads("reject_live.json") if len(data) < 1_200]
    contexts = [one.context.payload for one in parsed if one.context is not None]
    sealed = parse_envelope(fuzz.messages.message().wire)
    token = fuzz.messages.planner().credential.token
    own = [part + b"=" * (-len(part) % 4) for part in token.split(b".")[:2]]

    world = load("world.json")["bundles"]["default"].values()
    pending = [bytes.fromhex(load("state.json")["last_ticks"]["accept"][0]["expect"]["task"])]
    return {
        "messages.envelope": [*live[:12], *refused[:12]],
        "messages.header": [one.header for one in parsed],
        "messages.context": contexts,
        "messages.value": [bytes.fromhex(case["hex"]) for case in load("codec.json")["accept"]],
        "messages.live": [*live[:16], *refused[:8]],
        "messages.signed_header": [sealed.header, *(one.header for one in parsed[:4])],
        "messages.signed_context": [fuzz.messages.context().payload, *contexts[:4]],
        "messages.signed_ancestor": [sealed.ancestors[0].header],
        "messages.credential": [token, *(one.credential.token for one in parsed[:4])],
        "messages.signed_credential": [SPLIT.join(map(urlsafe_b64decode, own))],
        "messages.result": _payloads("accept_result.json"),
        "messages.jwks": [text.encode() for text in world],
        "messages.jws": [token],
        "messages.strict_json": [b'{"a":[1,"\\u00e9",{"b":null}]}'],
        "messages.handle": pending,
        "messages.context_token": [context_token(fuzz.messages.context()).encode()],
        "messages.pem": _pems(),
    }


def _pems() -> Iterator[bytes]:

    key = private_key("pem")
    yield key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    yield key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _records() -> Mapping[str, Iterable[bytes]]:
    payloads = [data for data in _payloads("accept_archive.json") if len(data) <= MOST]
    bodies = [parse_envelope(data).body for data in payloads]
    halves: list[Any] = [decode(body, items=4_096, text_bytes=DEFAULT_LIMITS.body_bytes) for body in bodies]
    documents = [octets(case["document"]) for case in load("inputs.json")["accept"] if "document" in case]
    return {
        "records.record": [item for half in halves for item in half[2]],
        "records.evidence": [item for half in halves for item in half[1]],
        "records.body": bodies,
        "records.archive": payloads,
        "records.signed_body": bodies,
        "records.receipt": [case["text"].encode() for case in load("exports.json")["receipts"]],
        "records.approvals": [*documents, b'{"context":{"approvals":[]}}'],
    }


_POLICY: Final = b"# none\n\n log \tlog.example.org/audit+0+AQ== https://log.example.org/\ngroup g 2 a b c\nquorum g\n"


def _policy_of(keys: Iterable[str]) -> str:
    return "".join(f"log {key}\n" for key in keys) + "quorum none\n"


def _cosignatures() -> Iterator[bytes]:
    for signer in fuzz.logs.witnesses():
        line = signer.cosign(fuzz.logs.EMPTY_LOG, 1_700_000_000)
        yield b64decode(line.split(" ")[2])[4:]
        yield signer.verifier.text.encode()
        yield signer.secret_text().encode()


def _logs() -> Mapping[str, Iterable[bytes]]:
    log, exports = load("log.json"), load("exports.json")
    files = {name: bytes.fromhex(data) for name, data in exports["files"].items()}
    notes = [bytes.fromhex(case["hex"]) for part in ("notes", "checkpoints") for case in log[part]["accept"]]
    restored = b"sealbus restored stream v1\n"
    return {
        "logs.note": [*notes, *(bytes.fromhex(case["hex"]) for case in log["notes"]["reject"])],
        "logs.checkpoint": [note.rpartition(b"\n\n")[0] + b"\n" for note in notes],
        "logs.restoration": [restored, *_restorations()],
        "logs.key": [case["key"].encode() for case in log["keys"]["accept"]],
        "logs.cosignature": list(_cosignatures()),
        "logs.policy": [fuzz.logs.witness_policy().text.encode(), _POLICY],
        "logs.cosigned": [
            "".join(signer.cosign(fuzz.logs.EMPTY_LOG, 1_700_000_000) for signer in signers).encode()
            for signers in (fuzz.logs.witnesses()[:1], fuzz.logs.witnesses())
        ],
        "logs.latest": [encode_latest(0, [], fuzz.logs.later(5)), encode_latest(4, [bytes(32)], fuzz.logs.later(5))],
        "logs.submission": [b"old 0", b"old 3\n" + b64encode(bytes(32)), b"old 0\n\n" + notes[0]],
        "logs.tile": [
            *(bytes([row["width"] % 256]) + row["path"].encode() for row in log["paths"]["accept"]),
            *(bytes([24]) + data for name, data in files.items() if name.startswith("tile")),
        ],
        "logs.receipt": [bytes.fromhex(case["hex"]) for case in log["receipts"]["accept"]],
        "logs.cose_receipt": [bytes.fromhex(case["hex"]) for case in log["cose_receipts"]["accept"]],
        "logs.frames": [encode_frame(frame) for frame in _frames(files["messages/000"])],
        "logs.root": [
            json.dumps(exports["root"]).encode(),
            json.dumps(exports["root"] | {"v": 2, "policy": _policy_of(exports["root"]["keys"])}).encode(),
        ],
        "logs.record_receipt": [case["text"].encode() for case in exports["receipts"]],
        "logs.export": [bytes([number]) + files[name] for number, name in enumerate(sorted(files))],
    }


def _frames(data: bytes) -> Iterator[Frame]:
    return read_frames(io.BytesIO(data).read)


def _restorations() -> Iterator[bytes]:
    by, stream = SpiffeId("spiffe://example.org/operator"), RestoredStream(stream="TASKS", before=1, created=2, last=3)
    made: dict[str, Any] = {
        "origin": "log.example.org/audit",
        "before": 1,
        "created": 2,
        "last": 3,
        "by": by,
        "time": 4,
    }
    signed: dict[str, Any] = {"manifest": "0" * 64, "streams": (stream,)}
    for more in ({}, signed):
        yield Restoration(**made, **more).text.encode()


def _signed_values(file: str, section: str) -> list[bytes]:
    """Return the values of a section, and what is signed in them."""
    values = [octets(case["value"]) for case in load(file)[section]["accept"]]
    payloads = []
    for value in values:
        parts = decode(value, text_bytes=DEFAULT_LIMITS.body_bytes, step=0)
        assert isinstance(parts, list)
        payloads += [part for part in parts[:1] if isinstance(part, bytes)]
    return [*values[:8], *payloads]


def _stored() -> Mapping[str, Iterable[bytes]]:
    state = {"stop": "stops", "claim": "claims", "tick": "ticks", "uses": "uses", "failed": "failed"}
    held = {
        "kept_stop": "kept_stops", "marker": "markers", "parked": "parked", "key_book": "key_books", "schedule": "schedules",
    }  # fmt: skip
    info = {"name": "policy", "nuid": "A" * 22, "size": 1, "chunks": 1, "digest": "SHA-256=a"}
    return {
        **{f"stored.{name}": _signed_values("state.json", section) for name, section in state.items()},
        **{f"stored.{name}": _signed_values("held.json", section) for name, section in held.items()},
        "stored.parked_record": list(_parked("rec")),
        "stored.verdict": list(_parked("apr")),
        "stored.lease": [_lease()],
        "stored.object_info": [json.dumps(info).encode()],
    }


def _parked(key: str) -> Iterator[bytes]:
    for case in load("held.json")["parked"]["accept"]:
        parts: Any = decode(octets(case["value"]), text_bytes=DEFAULT_LIMITS.body_bytes, step=0)
        keys: Any = decode(parts[0], items=2_048, text_bytes=2_048)
        found = keys.get(key, [])
        yield from found if isinstance(found, list) else [found]


def _lease() -> bytes:

    return Leased(number=1, by=bytes(16), place=bytes(16), size=0, root=bytes(32), at=1).payload()


def _bodies() -> Mapping[str, Iterable[bytes]]:
    control = load("control.json")
    accepted = {kind: [octets(case["body"]) for case in cases["accept"]] for kind, cases in control.items()}
    documents = [octets(case["document"]) for case in load("inputs.json")["accept"] if "document" in case]
    told = {
        "state": "rejected", "code": "denied", "reasons": ["no"], "note": "n",
        "remedy": [{"kind": "login", "acr": "mfa", "max_age": 60}, {"kind": "ask", "whom": "Bob"}],
        "via": [["spiffe://example.org/agent/pricing", "pricing.quote", "denied"]],
    }  # fmt: skip
    reply = {"result": [{}, {}], "provenance": {"bundles": {"policy": {"revision": "one"}}}}
    broken = {"code": "internal_error", "errors": [{"code": "e", "location": {"file": "a", "row": 1, "col": 2}}]}
    schema = {
        "agent": "a",
        "actions": [
            {"kind": "task", "verb": "b", "summary": "", "parts": False, "takes": {"application/json": {}}, "gives": {}}
        ],
        "models": {},
    }
    varz = {"server_name": "n", "jetstream": {"config": {"sync_always": False, "sync_interval": 120_000_000_000}}}
    refused = {"code": "denied", "subject": "s", "detail": "d", "minute": 1, "count": 2, "step": 3, "sample": "7b7d"}
    return {
        "bodies.approval": accepted["approve"],
        "bodies.cancel": accepted["cancel"],
        "bodies.schedule": accepted["schedule"],
        "bodies.status": [_json(told), _json({"state": "working"}), _json({"state": "canceled", "by": "spiffe://a/b"})],
        "bodies.denial": [_json(told)],
        "bodies.error_reply": [
            _json({**told, "code": code}) for code in ("denied", "obligation_unknown", "handler_failed")
        ],
        "bodies.handler_body": [_json({"item": "a", "count": 2, "notes": ["x"], "more": {"y": 1.5}})],
        "bodies.input_document": [*documents, b'{"a":[1,"b"]}'],
        "bodies.opa_answer": [b"\0" + _json(reply), b"\2" + _json(broken), b"\1{}"],
        "bodies.refusals": [_json(refused)],
        "bodies.agent_schema": [_json(schema)],
        "bodies.varz": [_json(varz)],
    }


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _bundles() -> Mapping[str, Iterable[bytes]]:

    files = fuzz.bundles.bundle()
    packed = pack_archive(files)
    revoked = {"sealbus": {"revocations": {"users": {"https://idp.example": {"alice": 7}}}}}
    before = {"sealbus": {"registry": {"issued_before": {"spiffe://example.org/edge": 7}}}}
    return {
        "bundles.packed": [packed],
        "bundles.archive": [gzip.decompress(pack_archive({"a.rego": b"package a"})).rstrip(b"\0") + bytes(1_024)],
        "bundles.manifest": [files[".manifest"]],
        "bundles.signatures": [files[".signatures.json"]],
        "bundles.document": [_json(revoked), _json(before), b'{"sealbus":{"platform":{"revokers":{}}}}'],
        "bundles.module": [files["authz.rego"], b'package a.b\n\nimport rego.v1\n\nallow if { input.x == [1, "a"] }\n'],
    }


def _claims() -> dict[str, Any]:
    own = fuzz.callout.server().public
    return {
        "aud": "nats-authorization-request", "iss": own, "exp": 1_764_000_002,
        "nats": {
            "type": "authorization_request", "version": 2,
            "server_id": {"id": own, "name": "n1", "xkey": fuzz.callout.curve_key()},
            "user_nkey": fuzz.callout.user(), "client_info": {"kind": "Client"},
            "client_tls": {"verified_chains": [[
                fuzz.callout.leaf().public_bytes(Encoding.PEM).decode(),
                fuzz.callout.authority().public_bytes(Encoding.PEM).decode(),
            ]]},
        },
    }  # fmt: skip


def _callout() -> Mapping[str, Iterable[bytes]]:

    claims = _claims()
    plain = {**claims, "nats": {**claims["nats"], "client_tls": {}}}
    token = compact(b'{"typ":"JWT","alg":"ed25519-nkey"}', plain, fuzz.callout.server().sign).encode()
    leaf = fuzz.callout.leaf()
    svid = workload_pb2.X509SVID(
        spiffe_id="spiffe://example.org/agent/planner", x509_svid=leaf.public_bytes(Encoding.DER)
    )
    return {
        "callout.request": [token],
        "callout.signed_request": [_json(plain), _json(claims)],
        "callout.jwt": [token],
        "callout.nkeys": [fuzz.callout.user().encode(), fuzz.callout.curve_key().encode()],
        "callout.sealed": [b"xkv1" + bytes(60)],
        "callout.curve_key": [bytes(32), bytes([9]) + bytes(31)],
        "callout.certificate": [leaf.public_bytes(Encoding.DER)],
        "callout.signed_certificate": [leaf.tbs_certificate_bytes],
        "callout.workload_api": [
            workload_pb2.X509SVIDResponse(svids=[svid], federated_bundles={"spiffe://b": b"\x30\0"}).SerializeToString()
        ],
    }


def _tokens() -> Mapping[str, Iterable[bytes]]:
    second = fuzz.tokens.NOW // 1_000_000
    header = {"alg": "ES256", "kid": "key-1"}
    token = {
        "iss": fuzz.tokens.ISSUER, "sub": "alice", "aud": AUDIENCE, "client_id": "shop-web", "jti": "t", "iat": second,
        "exp": second + 600, "scope": "a b", "acr": "mfa", "amr": ["pwd"], "auth_time": second, "region": "eu", "level": 3,
    }  # fmt: skip
    event = {
        "iss": fuzz.tokens.ISSUER, "jti": "e", "iat": second, "aud": "https://edge.example/events",
        "sub_id": {"format": "opaque", "id": "session-1"},
        "events": {"https://schemas.openid.net/secevent/caep/event-type/session-revoked": {"event_timestamp": second}},
    }  # fmt: skip
    logout = {
        "iss": fuzz.tokens.ISSUER, "jti": "l", "iat": second, "exp": second + 120, "aud": "shop-web", "sub": "alice",
        "sid": "session-1", "events": {"http://schemas.openid.net/event/backchannel-logout": {}},
    }  # fmt: skip
    assertion = {
        "iss": fuzz.tokens.ISSUER, "sub": "bob", "aud": "https://edge.example/token", "jti": "a", "exp": second + 60,
    }  # fmt: skip
    proof = Holder().claims(fuzz.tokens.TOKEN, "POST", fuzz.tokens.URL, now=fuzz.tokens.NOW) | {"jti": "p"}
    own = {"typ": "dpop+jwt", "alg": "ES256", "jwk": public_jwk(fuzz.tokens.key(), None)}
    signed: dict[str, list[tuple[Any, Any]]] = {
        "access": [({**header, "typ": "at+jwt"}, token), ({**header, "typ": "at+jwt"}, {**token, "cnf": {"jkt": "a" * 43}})],
        "event": [
            ({**header, "typ": "secevent+jwt"}, event),
            ({**header, "typ": "secevent+jwt"}, {
                **event,
                "sub_id": {"format": "complex", "user": {"format": "iss_sub", "iss": fuzz.tokens.ISSUER, "sub": "alice"}},
                "events": {"https://schemas.openid.net/secevent/caep/event-type/credential-change": {
                    "credential_type": "password", "change_type": "update"}},
            }),
        ],
        "logout": [({**header, "typ": "logout+jwt"}, logout)],
        "assertion": [({**header, "typ": "jwt"}, assertion)],
        "proof": [(own, {**proof, "nonce": Nonces(bytes(32), 300).current(fuzz.tokens.NOW)}), (own, proof)],
    }  # fmt: skip
    made: dict[str, list[bytes]] = {}
    for name, cases in signed.items():
        made[f"tokens.signed_{name}"] = [SPLIT.join(map(_json, case)) for case in cases]
        made[f"tokens.{name}"] = [fuzz.tokens.jws(data).encode() for data in made[f"tokens.signed_{name}"]]
    keys = [public_jwk(fuzz.tokens.key(), "key-1", use="sig", alg="ES256")]
    okp = {"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo", "alg": "EdDSA"}
    rsa = next(
        key
        for key in json.loads(load("world.json")["bundles"]["default"]["example.org"])["keys"]
        if key["kty"] == "RSA"
    )
    return {
        **made,
        "tokens.key_set": [_json({"keys": [*keys, okp, rsa]}), *map(_json, [*keys, okp, rsa])],
        "tokens.metadata": [_json({"issuer": fuzz.tokens.ISSUER, "jwks_uri": "https://idp.example/jwks"})],
        "tokens.fields": [
            b"Bearer a.b.c", b"DPoP abc", b"192.0.2.1, [2001:db8::1]:443", b"00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01",
        ],
    }  # fmt: skip


def _http() -> Mapping[str, Iterable[bytes]]:
    post = b"POST /v1/tasks/a/b HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    inputs = [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        post + b"Content-Length: 2\r\n\r\n{}",
        post + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
        post + b"Transfer-Encoding: chunked\r\n\r\n2;a=b\r\n{}\r\n0\r\nX: y\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n",
        post.replace(b"json", b"msgpack") + b"Content-Length: 1\r\nIdempotency-Key: a\r\n\r\n\x80",
        b"POST / HTTP/1.0\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 3\r\n\r\na=b",
        b"POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n{}",
        b"GET / HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nX: a\n b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\na",
    ]
    return {"http.connection": inputs, "http.protocol": inputs}


def _doors() -> Mapping[str, Iterable[bytes]]:
    order = {"item": "a", "count": 2}
    schedule = {
        "name": "n", "action": "workshop.make", "body": order, "grants": ["workshop.make"],
        "when": {"cron": "30 2 * * *", "zone": "Europe/Berlin"}, "overlap": "skip", "until": "2027-01-01T00:00:00Z",
    }  # fmt: skip
    verdict = {"decision": "0" * 64, "verdict": "approve", "note": ""}
    call: dict[str, Any] = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "tools/call",
        "params": {"name": "workshop.price", "arguments": order},
    }
    meta = {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientInfo": {"name": "t", "version": "1"},
        "io.modelcontextprotocol/clientCapabilities": {},
    }
    modern = {**call, "params": {**call["params"], "_meta": meta}}
    first = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
    begin = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": first}
    data = {"data": order}
    message = {
        "messageId": "m", "role": "ROLE_USER", "parts": [data], "metadata": {"skillId": "workshop.price"},
    }  # fmt: skip
    said = {**message, "parts": [{"text": "hello"}], "metadata": {"skillId": "workshop.say"}}
    task = {**message, "metadata": {"skillId": "workshop.make"}}
    sends = [{"message": one} for one in (message, said, task)]
    methods = ["SendMessage", "SendStreamingMessage"]
    rpc = [{"jsonrpc": "2.0", "id": 1, "method": method, "params": params} for method in methods for params in sends]
    rpc += [
        {"jsonrpc": "2.0", "id": 1, "method": name, "params": {"id": "0" * 32}} for name in ("GetTask", "CancelTask")
    ]
    rpc.append({"jsonrpc": "2.0", "id": 1, "method": "ListTasks", "params": {"pageSize": 5}})
    packed = Message(message_id="m", role=Role.ROLE_USER, parts=[Part(text="hello")])
    packed.metadata.update({"skillId": "workshop.say"})
    return {
        "doors.call": [_json(order)],
        "doors.call_msgpack": [bytes.fromhex("82a5636f756e7402a46974656da161")],
        "doors.task": [_json(order)],
        "doors.schedule": [
            _json(schedule), _json({**schedule, "when": {"every": 3_600}}),
            _json({**schedule, "when": {"at": "2026-12-01T00:00:00+01:00"}}),
        ],
        "doors.verdict": [_json(verdict)],
        "doors.logout": [b"logout_token=a.b.c", b"logout_token=%61&state=%20+"],
        "doors.event": [b"a.b.c"],
        "doors.mcp_modern": [
            _json(modern), _json({**modern, "method": "tools/list"}),
            _json({**modern, "method": "tasks/get", "params": {"taskId": "0" * 32, "_meta": meta}}),
        ],
        "doors.mcp_sessions": [_json(begin), _json(call), _json({**begin, "method": "ping", "params": {}})],
        "doors.a2a_rpc": [*map(_json, rpc)],
        "doors.a2a_send": [*map(_json, sends)],
        "doors.a2a_stream": [*map(_json, sends)],
        "doors.a2a_grpc": [SendMessageRequest(message=packed, tenant="workshop").SerializeToString()],
    }  # fmt: skip


def _nats() -> Mapping[str, Iterable[bytes]]:
    frames = [
        b'INFO {"server_id":"N","max_payload":1048576}\r\n', b"PING\r\nPONG\r\n+OK\r\n-ERR 'no'\r\n",
        b"MSG a.b 1 3\r\nabc\r\n",
        b"MSG a.b 1 _INBOX.c 0\r\n\r\n", b"HMSG a 1 b 12 15\r\nNATS/1.0\r\n\r\nabc\r\n",
    ]  # fmt: skip
    return {
        "nats.protocol": [*frames, b"".join(frames)],
        "nats.headers": [b"NATS/1.0 503\r\n\r\n", b"NATS/1.0\r\nNats-Msg-Id: " + b"0" * 32 + b"\r\n\r\n"],
        "nats.ack_subject": [b"1.2.3.1764000000000000000.4", b"$JS.ACK._.a.TASKS.inventory.1.2.3.4.5.r"],
        "nats.time": [b"2026-11-30T05:00:00.123456789Z", b"2026-11-30T05:00:00+01:00"],
        "nats.spool": [_frame()],
    }


def _frame() -> bytes:

    return encode_spooled(1, ClosedBatch(b"abc", bytes(32)))


if __name__ == "__main__":
    write()
