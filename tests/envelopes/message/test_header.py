"""Step 2: the header, each key of each kind (SPEC.md section 3)."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from typing import Any

import pytest
from support.both_readers import parse_header
from support.envelopes import NOW, agent, message_id, signing_key

from sealbus.envelopes.encoding.codec import pack
from sealbus.envelopes.errors import Code, EnvelopeError, SealError
from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.message.header import Header, is_grant, is_subject, is_uuid7, make_header
from sealbus.envelopes.message.kinds import KINDS, RULES, Kind

MAX = 2**53 - 1
DAY = 86_400 * SECOND
HASH = bytes(range(32))

ENTRIES: Mapping[str, object] = {
    "aud": "spiffe://example.org/agent/inventory",
    "crd": HASH,
    "ctx": HASH,
    "dig": HASH,
    "end": NOW + 60 * SECOND,
    "exp": NOW + 60 * SECOND,
    "ext": {"a": 1},
    "fin": True,
    "grt": ("inventory.*",),
    "iat": NOW,
    "id": message_id(1),
    "idm": "order-1",
    "iss": "spiffe://example.org/agent/planner",
    "key": signing_key("planner").public.raw,
    "par": HASH,
    "re": HASH,
    "rpl": "_INBOX.planner.1",
    "sch": "update/1",
    "seq": 0,
    "tid": bytes(16),
    "to": "task.inventory.update",
    "typ": "application/json",
}
"""A valid value for each key but `t`."""


def entries(kind: str = "task", /, **changes: object) -> dict[str, object]:
    """Return the entries that a header of `kind` must have, in order, with `changes`."""
    rule = RULES[KINDS[kind]]
    values = {key: ENTRIES[key] for key in rule.must - {"t"}} | {"t": kind} | changes
    return {key: values[key] for key in sorted(values)}


def refused(fields: Mapping[Any, object]) -> str:
    with pytest.raises(EnvelopeError) as caught:
        parse_header(pack(fields))
    assert (caught.value.code, caught.value.step) == (Code.MALFORMED, 2)
    # What a reader refuses, a sealer does too.
    with pytest.raises(SealError):
        make_header(dict(fields))
    return caught.value.detail


@pytest.mark.parametrize("kind", KINDS)
def test_step_2_a_kind_with_exactly_what_it_must_have(kind: str) -> None:
    fields = entries(kind)
    header = parse_header(pack(fields))
    assert header.kind is Kind(kind)
    assert header.raw == pack(fields)
    assert header.digest == sha256(header.raw).digest()
    assert make_header(fields) == header


@pytest.mark.parametrize("kind", KINDS)
def test_step_2_each_key_that_a_kind_must_have_is_missed(kind: str) -> None:
    for key in RULES[KINDS[kind]].must:
        refused({name: value for name, value in entries(kind).items() if name != key})


@pytest.mark.parametrize("kind", KINDS)
def test_step_2_each_key_that_a_kind_may_have_and_no_other(kind: str) -> None:
    rule = RULES[KINDS[kind]]
    for key in set(ENTRIES) - rule.must:
        fields = entries(kind, **{key: ENTRIES[key]})
        if key in rule.may:
            assert make_header(fields) == parse_header(pack(fields))
        else:
            assert refused(fields) == "header: keys of its kind"
    for key in ("", "a", "T", "zzz", "task", "é"):
        refused(entries(kind, **{key: 1}))
    every = {key: ENTRIES[key] for key in rule.may}
    assert make_header(entries(kind, **every)) == parse_header(pack(entries(kind, **every)))


def test_every_entry_has_its_place() -> None:
    task = parse_header(pack(entries("task", **{key: ENTRIES[key] for key in RULES[Kind.TASK].may})))
    assert task == Header(
        kind=Kind.TASK,
        id=message_id(1),
        iss=agent("planner"),
        to="task.inventory.update",
        aud=agent("inventory"),
        iat=NOW,
        exp=NOW + 60 * SECOND,
        end=NOW + 60 * SECOND,
        key=signing_key("planner").public,
        crd=HASH,
        dig=HASH,
        typ="application/json",
        sch="update/1",
        ctx=HASH,
        par=HASH,
        re=HASH,
        rpl=None,
        seq=None,
        fin=False,
        grt=("inventory.*",),
        idm="order-1",
        tid=bytes(16),
        ext={"a": 1},
        raw=task.raw,
        digest=sha256(task.raw).digest(),
    )
    chunk = parse_header(pack(entries("chunk", fin=True, seq=7)))
    assert (chunk.seq, chunk.fin, chunk.end, chunk.ext) == (7, True, None, None)
    assert parse_header(pack(entries("call"))).rpl == "_INBOX.planner.1"
    assert parse_header(pack(entries("event"))).aud is None


def test_a_header_that_was_parsed_cannot_be_changed() -> None:
    header = parse_header(pack(entries(ext={"a": 1})))
    with pytest.raises(AttributeError):
        header.to = "x"  # type: ignore[misc]
    assert header.ext is not None
    with pytest.raises(TypeError):
        header.ext["b"] = 2  # type: ignore[index]


def test_step_2_order_of_keys() -> None:
    fields = entries()
    swapped = {key: fields[key] for key in ("crd", "aud", *list(fields)[2:])}
    assert refused(swapped) == "header: order of keys"
    assert refused(dict(reversed(fields.items()))) == "header: order of keys"


def test_step_2_a_header_is_a_map_of_text() -> None:
    for data in (b"", b"\x80", b"\x90", b"\x01", b"\xa1a", b"\xc4\x00", b"\xc0", b"\x81\x01\x01"):
        with pytest.raises(EnvelopeError) as caught:
            parse_header(data)
        assert (caught.value.code, caught.value.step) == (Code.MALFORMED, 2)
    refused({key.encode(): value for key, value in entries().items()})
    raw = pack(entries())
    for data in (raw + b"\x00", raw[:-1], b"\x91" + raw):
        with pytest.raises(EnvelopeError):
            parse_header(data)
    long_form = raw.replace(b"\xa1t\xa4task", b"\xa1t\xd9\x04task")
    assert len(long_form) == len(raw) + 1
    with pytest.raises(EnvelopeError, match="not canonical"):
        parse_header(long_form)


@pytest.mark.parametrize("kind", ["", "Task", "tasks", "request", "task\x00"])
def test_step_2_unknown_kinds(kind: str) -> None:
    assert refused(entries() | {"t": kind}) == "header: t"


@pytest.mark.parametrize("kind", [1, b"task", True, ("task",), {"task": 1}])
def test_step_2_a_kind_is_text(kind: object) -> None:
    assert refused(entries() | {"t": kind}) == "header: t"


WRONG_TYPES: list[object] = [1, True, "text", b"bytes", 1.5, (), {}, None]


def test_step_2_each_entry_has_its_type() -> None:
    for kind in KINDS:
        for key in RULES[KINDS[kind]].may | RULES[KINDS[kind]].must - {"t"}:
            for value in WRONG_TYPES:
                if type(value) is not type(ENTRIES[key]):
                    refused(entries(kind, **{key: value}))


HASHES = ["crd", "dig", "ctx", "par", "re"]


@pytest.mark.parametrize("key", HASHES)
@pytest.mark.parametrize("length", [0, 31, 33, 64])
def test_step_2_hashes_have_32_bytes(key: str, length: int) -> None:
    refused(entries(**{key: bytes(length)}))


@pytest.mark.parametrize("length", [0, 15, 17, 32])
def test_step_2_ids_and_trace_ids_have_16_bytes(length: int) -> None:
    refused(entries(tid=bytes(length)))
    refused(entries(id=(message_id(1) * 2)[:length]))
    refused(entries("record", id=(message_id(1) * 2)[:length]))


def test_step_2_ids_are_uuid7_by_version_and_variant() -> None:
    for version in range(16):
        for variant in range(16):
            value = bytearray(message_id(1))
            value[6] = version << 4 | 0xA
            value[8] = variant << 4 | 0x5
            good = version == 7 and variant in (8, 9, 10, 11)
            assert is_uuid7(bytes(value)) is good
            if not good:
                assert refused(entries(id=bytes(value))) == "header: id"
                # A record may have the guard id of section 7, which is any 16 bytes.
            parse_header(pack(entries("record", id=bytes(value))))
    parse_header(pack(entries(id=b"\xff" * 6 + b"\x7f\xff\xbf" + b"\xff" * 7)))


def test_step_2_life_by_kind() -> None:
    for kind in KINDS:
        life = RULES[KINDS[kind]].life
        end = {"end": NOW + DAY} if "end" in RULES[KINDS[kind]].must else {}
        assert parse_header(pack(entries(kind, exp=NOW + life, **end))).exp == NOW + life
        assert parse_header(pack(entries(kind, exp=NOW + 1, **end))).exp == NOW + 1
        for exp in (NOW + life + 1, NOW, NOW - 1, 0):
            assert refused(entries(kind, exp=exp, **end)) == "header: iat or exp"


def test_step_2_times_are_in_order() -> None:
    exp = NOW + 10 * SECOND
    for end in (exp, exp + 1, NOW + DAY):
        assert parse_header(pack(entries(exp=exp, end=end))).end == end
    for end in (exp - 1, NOW + DAY + 1, NOW, 0, MAX):
        assert refused(entries(exp=exp, end=end)) == "header: end"


def test_step_2_times_are_within_the_integers() -> None:
    assert parse_header(pack(entries(iat=0, exp=1, end=1))).iat == 0
    assert parse_header(pack(entries(iat=MAX - 1, exp=MAX, end=MAX))).exp == MAX
    refused(entries(iat=-1, exp=1, end=1))
    refused(entries(iat=MAX, exp=MAX + 1, end=MAX + 1))
    refused(entries(iat=MAX - 1, exp=MAX, end=MAX + 1))
    refused(entries("event", iat=MAX, exp=MAX + 1))


@pytest.mark.parametrize("key", ["iss", "aud"])
@pytest.mark.parametrize(
    "value", ["", "planner", "spiffe://Example.org/agent", "spiffe://example.org", "spiffe://e/" + "a" * 2048]
)
def test_step_2_ids_are_spiffe_ids(key: str, value: str) -> None:
    assert refused(entries(**{key: value})) == "SPIFFE ID"


@pytest.mark.parametrize("key", ["iss", "aud"])
def test_step_2_ids_may_be_as_long_as_ids_can_be(key: str) -> None:
    value = "spiffe://e/" + "a" * (2048 - len("spiffe://e/"))
    assert parse_header(pack(entries(**{key: value}))).raw == make_header(entries(**{key: value})).raw


@pytest.mark.parametrize("key", ["to", "rpl"])
@pytest.mark.parametrize("value", ["", ".", "a.", ".a", "a..b", "a.*", "a.>", "a b", "a\n", "é", "$SYS.x", "a" * 256])
def test_step_2_subjects_are_tokens(key: str, value: str) -> None:
    assert refused(entries("call", **{key: value})) == f"header: {key}"
    assert not is_subject(value)


@pytest.mark.parametrize("value", ["a", "a.b-c._D", "a" * 255])
def test_step_2_other_subjects_are_for_step_3(value: str) -> None:
    assert parse_header(pack(entries("call", to=value, rpl=value))).to == value
    assert is_subject(value)


@pytest.mark.parametrize("key", ["typ", "sch", "idm"])
def test_step_2_texts(key: str) -> None:
    for good in ("", "a" * 256, "é" * 128, "text with spaces; and=marks"):
        assert getattr(parse_header(pack(entries(**{key: good}))), key) == good
    for bad in ("a" * 257, "é" * 129, "\n", "a\x7f", "\x85"):
        refused(entries(**{key: bad}))
    with pytest.raises(SealError):
        make_header(entries(**{key: "\ud800"}))


@pytest.mark.parametrize("kind", ["chunk", "status"])
def test_step_2_seq_and_fin(kind: str) -> None:
    assert parse_header(pack(entries(kind, seq=2**32 - 1, fin=True))).fin is True
    for seq in (-1, 2**32, MAX):
        assert refused(entries(kind, seq=seq)) == "header: seq, fin or tid"
    assert refused(entries(kind, fin=False)) == "header: seq, fin or tid"


def test_step_2_key_is_on_the_curve() -> None:
    raw = signing_key("planner").public.raw
    for value in (bytes(64), raw[:63], raw + b"\x00", raw[:-1] + bytes([raw[-1] ^ 1])):
        assert refused(entries(key=value)).startswith("key")


@pytest.mark.parametrize(
    "grants", [(), ("a",), ("a.b", "a.*", "a.b.c.*"), ("a" * 256,), ("a",) * 32, ("A-Z_0",), ("a.*",)]
)
def test_step_2_grants(grants: tuple[str, ...]) -> None:
    assert parse_header(pack(entries(grt=grants))).grt == grants
    assert make_header(entries(grt=grants)).grt == grants


@pytest.mark.parametrize(
    "grants",
    [("",), ("*",), (".*",), ("a.",), ("a*",), ("a.*.b",), ("a.*.*",), ("a b",), ("a\n",), ("é",), ("a" * 257,)],
)
def test_step_2_other_grants_are_malformed(grants: tuple[str, ...]) -> None:
    assert not is_grant(grants[0])
    assert refused(entries(grt=grants)) == "header: grt"


@pytest.mark.parametrize("grants", [(1,), (b"a",), (None,), (("a",),), ("a", ""), ("", "a"), (1, "a"), ("a",) * 33])
def test_step_2_grants_are_an_array_of_at_most_32_texts(grants: tuple[object, ...]) -> None:
    refused(entries(grt=grants))


@pytest.mark.parametrize(
    "ext",
    [
        {},
        {"": ""},
        {"a": "text", "b": b"bytes", "c": 1, "d": True, "e": False, "f": -1, "g": MAX, "h": -MAX},
        {f"{number:02}": number for number in range(16)},
        {"a": "a" * 256, "b": b"b" * 1000},
        {"é" * 128: 1},
        {"a": 1, "é": 2, "\uffff": 3, "\U00010000": 4},
    ],
    ids=str,
)
def test_step_2_extensions_are_not_interpreted(ext: dict[str, object]) -> None:
    assert parse_header(pack(entries(ext=ext))).ext == ext
    assert make_header(entries(ext=ext)) == parse_header(pack(entries(ext=ext)))


@pytest.mark.parametrize(
    "ext",
    [
        {f"{number:02}": number for number in range(17)},
        {"a": 1.5},
        {"a": None},
        {"a": ()},
        {"a": {}},
        {"a": MAX + 1},
        {"a": -MAX - 1},
        {"a": "\n"},
        {"a": "a" * 257},
        {"\n": 1},
        {"\n": 1, "a": 1},
        {"a": 1, "b\n": 1},
        {"a" * 257: 1},
        {b"a": 1},
        {"b": 1, "a": 2},
    ],
    ids=str,
)
def test_step_2_other_extensions_are_malformed(ext: dict[object, object]) -> None:
    refused(entries(ext=ext))


def test_nothing_is_sealed_as_nil() -> None:
    for key in ("ctx", "fin", "rpl"):
        refused(dict(sorted((entries() | {key: None}).items())))
