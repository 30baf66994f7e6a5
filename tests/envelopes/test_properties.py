"""What holds for any input: hostile bytes are refused by one error, encodings are unique, no flipped bit verifies."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from typing import TypeVar, cast

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from support.envelopes import NOW, Issuer, agent, call_draft, signing_key, task_draft

from sealbus.envelopes.encoding.codec import Value, decode, encode, is_text, pack
from sealbus.envelopes.errors import Code, EnvelopeError, SealError
from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.message.fields import ExtValue
from sealbus.envelopes.message.header import Header, parse_header
from sealbus.envelopes.message.kinds import RULES, Kind
from sealbus.envelopes.message.seal import Draft, Sealed, seal
from sealbus.envelopes.message.wire import Ancestor, Envelope, Statement, encode_envelope, parse_envelope
from sealbus.envelopes.trust.caches import VerifiedRoots
from sealbus.envelopes.trust.keys import PublicKey
from sealbus.envelopes.trust.merkle import leaf_hash, paths, root_of_path, verify_path
from sealbus.envelopes.trust.names import Names
from sealbus.envelopes.trust.proof import JWT_SVID, Credential, Proof
from sealbus.envelopes.trust.signature import CONTEXT_TYPE, MESSAGE_TYPE, sign_batch, verify_proof
from sealbus.envelopes.trust.spiffe_id import SpiffeId, TrustDomain

MAX = 2**53 - 1

T = TypeVar("T")


def parsed_or_step(parse: Callable[[bytes], T], data: bytes) -> T | int:
    """Return what `data` is, or the step at which it was refused; any other error fails the test."""
    try:
        return parse(data)
    except EnvelopeError as refusal:
        return refusal.step


text = st.text(st.characters(exclude_categories=["Cc", "Cs"]), max_size=80).filter(is_text)
scalars = st.booleans() | st.integers(-MAX, MAX) | text | st.binary(max_size=300) | st.none()


def nested(inner: st.SearchStrategy[Value], depth: int) -> st.SearchStrategy[Value]:
    for _ in range(depth):
        inner = scalars | st.lists(inner, max_size=6) | st.dictionaries(text, inner, max_size=6)
    return inner


values = nested(scalars, 5)


@given(values)
def test_what_was_encoded_decodes_to_the_same(value: Value) -> None:
    assert decode(encode(value), negative=True, nil=True) == value


@given(st.dictionaries(text, scalars))
def test_the_order_of_a_map_makes_no_difference(value: dict[str, Value]) -> None:
    assert encode(dict(reversed(value.items()))) == encode(cast("Value", value))


@given(values, st.data())
def test_what_decodes_encodes_to_the_same(value: Value, data: st.DataObject) -> None:
    """Whatever bytes are accepted are the one encoding of their value: also those that a mutation left acceptable."""
    encoded = bytearray(encode(value))
    for _ in range(data.draw(st.integers(0, 3))):
        encoded[data.draw(st.integers(0, len(encoded) - 1))] = data.draw(st.integers(0, 255))
    try:
        decoded = decode(bytes(encoded), negative=True, nil=True)
    except EnvelopeError:
        return
    assert encode(decoded) == encoded


@given(st.binary(max_size=400))
@example(b"\x91" * 400)
@example(b"\xdd\xff\xff\xff\xff" * 50)
@example(b"\xd7\xff" + b"\xff" * 8)
def test_any_bytes_decode_or_are_refused(data: bytes) -> None:
    try:
        decoded = decode(data, negative=True, nil=True)
    except EnvelopeError:
        return
    assert encode(decoded) == data


@given(
    st.recursive(
        scalars | st.floats() | st.text() | st.integers(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=20,
    )
)
def test_any_value_is_encoded_or_refused(value: Value) -> None:
    try:
        encoded = encode(value)
    except SealError:
        return
    assert decode(encoded, items=10_000, entries=10_000, negative=True, nil=True) == value


@given(st.text() | st.from_regex(r"spiffe://[a-zA-Z0-9._-]*(/[A-Za-z0-9._%-]*)*", fullmatch=True))
@example("spiffe://a/b\n")
@example("spiffe://a/\u0660")
def test_any_text_is_an_id_or_refused(value: str) -> None:
    try:
        spiffe_id = SpiffeId(value)
    except EnvelopeError:
        return
    assert spiffe_id.trust_domain.id(spiffe_id.path) == spiffe_id
    assert str(spiffe_id) == value
    assert value == value.strip()
    assert not {"", ".", ".."} & set(value.split("/")[3:])


@given(st.binary(max_size=70))
def test_any_bytes_are_a_key_or_refused(raw: bytes) -> None:
    try:
        key = PublicKey(raw)
    except EnvelopeError:
        return
    assert key.raw == raw


# SEALED holds one message with everything that a message can carry, and one without.


def _sealed() -> list[Sealed]:
    edge, planner = Issuer().sealer(agent("edge")), Issuer().sealer(agent("planner"))
    root = seal([task_draft(1, aud="planner"), task_draft(2, aud="planner")], edge)[0]
    payload = pack({"v": 1})
    context = Statement(payload, sign_batch([leaf_hash(payload)], CONTEXT_TYPE, edge.key)[0], edge.credential)
    full = call_draft(3)._replace(
        context=context,
        ancestors=(root.ancestor,),
        re=bytes(32),
        grt=("a.*",),
        idm="i",
        sch="s",
        tid=bytes(16),
        ext={"a": 1},
    )
    return [seal([full, task_draft(4), task_draft(5)], planner)[0], seal([task_draft(6)], planner)[0]]


SEALED = _sealed()


def verified(wire: bytes) -> tuple[Header, bytes]:
    """Steps 1, 2, 8 and 9, and of step 7 kind and hash."""
    envelope = parse_envelope(wire)
    header = parse_header(envelope.header)
    verify_proof(envelope.proof, leaf_hash(envelope.header), MESSAGE_TYPE, header.key, VerifiedRoots())
    if envelope.credential.kind != JWT_SVID or sha256(envelope.credential.token).digest() != header.crd:
        raise EnvelopeError(Code.BAD_CREDENTIAL, 7)
    if sha256(envelope.body).digest() != header.dig:
        raise EnvelopeError(Code.BAD_DIGEST, 9)
    return header, envelope.body


@pytest.mark.slow
@pytest.mark.parametrize("sealed", SEALED, ids=["full", "plain"])
def test_no_flipped_bit_verifies(sealed: Sealed) -> None:
    """Every bit of the wire. Context and ancestors, which steps 10 and 11 verify, may change here; nothing else may."""
    good = verified(sealed.wire)
    for position in range(len(sealed.wire) * 8):
        flipped = bytearray(sealed.wire)
        flipped[position // 8] ^= 1 << position % 8
        try:
            envelope = parse_envelope(bytes(flipped))
            header = parse_header(envelope.header)
        except EnvelopeError:
            continue
        original = parse_envelope(sealed.wire)
        if envelope[:5] == original[:5]:
            assert (header, envelope.body) == good
            assert (envelope.context, envelope.ancestors) != (original.context, original.ancestors)
            continue
        with pytest.raises(EnvelopeError):
            verified(bytes(flipped))


@given(st.sampled_from(SEALED), st.data())
def test_no_mutation_of_a_message_verifies(sealed: Sealed, data: st.DataObject) -> None:
    mutated = bytearray(sealed.wire)
    for _ in range(data.draw(st.integers(1, 4))):
        match data.draw(st.sampled_from(["set", "insert", "delete"])):
            case "set":
                mutated[data.draw(st.integers(0, len(mutated) - 1))] = data.draw(st.integers(0, 255))
            case "insert":
                mutated.insert(data.draw(st.integers(0, len(mutated))), data.draw(st.integers(0, 255)))
            case _:
                del mutated[data.draw(st.integers(0, len(mutated) - 1))]
    assume(mutated != sealed.wire)
    try:
        result = verified(bytes(mutated))
    except EnvelopeError:
        return
    assert result == verified(sealed.wire)
    assert parse_envelope(bytes(mutated))[:5] == parse_envelope(sealed.wire)[:5]


@given(st.binary(max_size=600) | st.binary(max_size=600).map(lambda rest: b"\x97\x01" + rest))
def test_any_bytes_are_an_envelope_or_refused(data: bytes) -> None:
    result = parsed_or_step(parse_envelope, data)
    assert result == 1 if isinstance(result, int) else encode_envelope(result) == data


proofs = st.integers(1, 4096).flatmap(
    lambda size: st.builds(
        Proof,
        st.just(size),
        st.integers(0, size - 1),
        st.lists(st.binary(min_size=32, max_size=32), max_size=12).map(tuple),
        st.binary(min_size=64, max_size=64),
    )
)
credentials = st.builds(Credential, st.integers(0, MAX), st.binary(max_size=100))
envelopes = st.builds(
    Envelope,
    st.just(1),
    st.binary(max_size=100),
    st.binary(max_size=100),
    proofs,
    credentials,
    st.none() | st.builds(Statement, st.binary(max_size=100), proofs, credentials),
    st.lists(st.builds(Ancestor, st.binary(max_size=100), proofs, credentials), max_size=8).map(tuple),
)


@pytest.mark.slow
@given(envelopes)
def test_any_envelope_is_read_as_it_was_written(envelope: Envelope) -> None:
    assert parse_envelope(encode_envelope(envelope)) == envelope


@given(st.binary(max_size=600))
def test_any_bytes_are_a_header_or_refused(data: bytes) -> None:
    result = parsed_or_step(parse_header, data)
    assert result == 2 if isinstance(result, int) else result.raw == data


ENTRIES = st.dictionaries(
    st.sampled_from([*sorted(RULES[Kind.TASK].must | RULES[Kind.TASK].may), "fin", "rpl", "seq", "x"]),
    scalars | st.lists(scalars, max_size=3) | st.dictionaries(text, scalars, max_size=3) | st.floats(),
    max_size=4,
)


@given(st.sampled_from(SEALED), ENTRIES)
def test_any_entries_are_a_header_or_refused(sealed: Sealed, entries: dict[str, object]) -> None:
    """Entries of any type and value in place of those of a good header."""
    good = decode(sealed.header.raw)
    assert isinstance(good, dict)
    fields: dict[str, object] = good | entries
    data = pack({key: fields[key] for key in sorted(fields)})
    result = parsed_or_step(parse_header, data)
    assert result == 2 if isinstance(result, int) else result.raw == data


ext = st.dictionaries(text, st.booleans() | st.integers(-MAX, MAX) | text | st.binary(max_size=50), max_size=16)


@given(
    kind=st.sampled_from([Kind.TASK, Kind.CALL, Kind.EVENT]),
    iat=st.integers(0, NOW),
    life=st.integers(1, 60 * SECOND),
    more=st.integers(0, 3600 * SECOND),
    body=st.binary(max_size=100),
    typ=text,
    sch=st.none() | text,
    idm=st.none() | text,
    tid=st.none() | st.binary(min_size=16, max_size=16),
    ext=st.none() | ext,
    grt=st.none()
    | st.lists(st.from_regex(r"[A-Za-z0-9_-]{1,9}(\.[A-Za-z0-9_-]{1,9}){0,2}(\.\*)?", fullmatch=True), max_size=32),
)
def test_any_good_draft_is_sealed_as_its_readers_read_it(
    kind: Kind,
    iat: int,
    life: int,
    more: int,
    body: bytes,
    typ: str,
    sch: str | None,
    idm: str | None,
    tid: bytes | None,
    ext: dict[str, ExtValue] | None,
    grt: list[str] | None,
) -> None:
    durable = "end" in RULES[kind].must
    draft = Draft(
        kind=kind,
        id=task_draft().id,
        to="x.y",
        iat=iat,
        exp=iat + life,
        end=iat + life + more if durable else None,
        aud=agent("inventory") if durable else None,
        rpl="_INBOX.planner.1" if kind is Kind.CALL else None,
        body=body,
        typ=typ,
        sch=sch,
        idm=idm,
        tid=tid,
        ext=ext,
        grt=tuple(grt) if grt is not None and durable else None,
    )
    [sealed] = seal([draft], Issuer().sealer(agent("planner")))
    header, sealed_body = verified(sealed.wire)
    assert header == sealed.header
    assert (sealed_body, header.ext, header.typ, header.idm) == (body, ext, typ, idm)
    assert decode(header.raw, negative=True) is not None


@given(st.integers(1, 200), st.data())
def test_a_path_leads_to_its_root_and_a_changed_one_does_not(size: int, data: st.DataObject) -> None:
    leaves = [leaf_hash(number.to_bytes(2, "big")) for number in range(size)]
    top, all_paths = paths(leaves)
    index = data.draw(st.integers(0, size - 1))
    nodes = list(all_paths[index])
    verify_path(leaves[index], size, index, nodes, top)
    wrong_size, wrong_index = data.draw(st.integers(1, 300)), data.draw(st.integers(0, 300))
    changed = list(nodes)
    for _ in range(data.draw(st.integers(0, 2))):
        changed.insert(data.draw(st.integers(0, len(changed))), data.draw(st.sampled_from(leaves)))
    assume((wrong_index, changed) != (index, nodes))
    try:
        found = root_of_path(leaves[index], wrong_size, wrong_index, changed)
    except EnvelopeError:
        return
    assert found != top or changed == nodes


@given(st.binary(max_size=100), st.binary(min_size=64, max_size=64))
def test_no_random_signature_verifies(message: bytes, signature: bytes) -> None:
    with pytest.raises(EnvelopeError):
        signing_key("planner").public.verify(message, signature)


@given(
    st.dictionaries(
        st.from_regex("[a-c]{1,2}", fullmatch=True),
        st.from_regex("spiffe://e/agent/[a-c]{1,2}", fullmatch=True).map(SpiffeId),
        max_size=4,
    ),
    st.from_regex("[a-c.]{1,2}", fullmatch=True),
)
def test_names_are_one_to_one(table: dict[str, SpiffeId], segment: str) -> None:
    assume(len(set(table.values())) == len(table))
    names = Names(TrustDomain("e"), table=table)
    ids = [SpiffeId(f"spiffe://e/agent/{a}{b}") for a in "abc" for b in ["", *"abc"]]
    found = [name for name in map(names.name_of, ids) if name is not None]
    assert len(set(found)) == len(found)
    assert all(names.id_of(name) in ids for name in found)
    assert all(names.name_of(names.id_of(name)) == name for name in found)
    assert len({names.token(spiffe_id) for spiffe_id in ids}) == len(ids)
