"""Steps 1 and 2 of the live profile, clause by clause: what is refused by its form alone (SPEC.md sections 1 to 3)."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
from support.acceptance import BODY, INVENTORY, PLANNER, Delivery, Message, refuses, root_task, statement
from support.envelopes import HOUR, MINUTE, NOW, agent, message_id

from sealbus.envelopes.encoding.codec import decode, pack
from sealbus.envelopes.errors import Code
from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.message.kinds import Kind
from sealbus.envelopes.message.wire import Ancestor, Statement
from sealbus.envelopes.trust.keys import PublicKey
from sealbus.envelopes.trust.proof import Credential, Proof
from sealbus.envelopes.trust.spiffe_id import SpiffeId, TrustDomain

DAY = 24 * HOUR
PROOF = Message().prf()
CREDENTIAL = PLANNER.credential
MAX_INTEGER = 2**53 - 1


def element(number: int, value: object) -> bytes:
    """Return the valid message with one element of the wire array replaced."""
    return Message(elements={number: value}).payload()


def entry(**fields: object) -> Message:
    """Return the valid message with header entries changed, signed by its sender."""
    return Message(fields=fields)


# Step 1.


def test_step_01_accepts_a_message_at_its_limits() -> None:
    token = CREDENTIAL.token
    # A proof of a batch and eight ancestors are as well formed as one of one and none; what they say fails later.
    full = Message(
        elements={
            3: Proof(4096, 4095, (bytes(32),) * 12, bytes(64)),
            4: Credential(1, token + b"." * (4096 - len(token))),
            6: (root_task().ancestor,) * 8,
        }
    )
    refuses(Code.BAD_CREDENTIAL, 7, lambda: Delivery().accept(full))
    large = Message(body=bytes(917_504))
    assert len(Delivery().accept(large).body) == 917_504


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"\x97\x02" + Message().payload()[2:], id="2"),
        pytest.param(b"\x97\x02", id="2 and nothing else"),
        pytest.param(b"\x91\x02", id="2 in an array of another length"),
        pytest.param(b"\x97\x00", id="0"),
        pytest.param(b"\x97\x7f\xff", id="127 and garbage"),
        pytest.param(b"\x97\xcc\xff", id="in 8 bits"),
        pytest.param(b"\x97\xcd\x01\x00", id="in 16 bits"),
        pytest.param(b"\x97\xce\x00\x01\x00\x00", id="in 32 bits"),
        pytest.param(b"\x97\xcf\x00\x00\x00\x01\x00\x00\x00\x00", id="in 64 bits"),
        pytest.param(b"\xdc\x00\x10\x02", id="array with a length of 16 bits"),
        pytest.param(b"\xdd\x00\x01\x00\x00\x02", id="array with a length of 32 bits"),
        pytest.param(b"\x97\x02" + bytes(1_048_576), id="too large besides"),
    ],
)
def test_step_01_refuses_another_format(data: bytes) -> None:
    refuses(Code.UNSUPPORTED_FORMAT, 1, lambda: Delivery().accept(data))


def test_step_01_refuses_a_format_that_is_not_configured() -> None:
    profile = replace(Delivery().profile, formats=frozenset({2}))
    refuses(Code.UNSUPPORTED_FORMAT, 1, lambda: Delivery(profile=profile).accept(Message()))


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(bytes(1_048_577), id="envelope"),
        pytest.param(b"\x97\x01" + bytes(1_048_575), id="envelope that starts well"),
        pytest.param(element(1, bytes(8193)), id="header"),
        pytest.param(element(2, bytes(917_505)), id="body"),
        pytest.param(element(4, [1, bytes(4097)]), id="token"),
        pytest.param(element(5, [bytes(8193), PROOF, CREDENTIAL]), id="context payload"),
        pytest.param(element(5, [b"", PROOF, [1, bytes(4097)]]), id="context token"),
        pytest.param(element(6, [[bytes(8193), PROOF, CREDENTIAL]]), id="ancestor header"),
        pytest.param(element(6, [[b"", PROOF, [1, bytes(4097)]]]), id="ancestor token"),
    ],
)
def test_step_01_refuses_what_is_too_large(data: bytes) -> None:
    refuses(Code.TOO_LARGE, 1, lambda: Delivery().accept(data))


@pytest.mark.parametrize("count", [9, 12, 13, 16, 70_000])
def test_step_01_refuses_more_than_eight_ancestors(count: int) -> None:
    many = element(6, [root_task().ancestor] * min(count, 16))
    if count == 70_000:
        # Only declared: nothing may be allocated for it.
        many = element(6, [])[:-1] + b"\xdd" + count.to_bytes(4, "big")
    refuses(Code.CHAIN_TOO_LONG, 1, lambda: Delivery().accept(many))


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"\x97", id="an array and nothing in it"),
        pytest.param(b"\xc1", id="a byte that is never used"),
        pytest.param(Message().payload()[:-1], id="cut short"),
        pytest.param(Message().payload() + b"\xc0", id="something after it"),
        pytest.param(b"\x97\xcc\x01" + Message().payload()[2:], id="format not in its shortest form"),
        pytest.param(b"\xdc\x00\x07" + Message().payload()[1:], id="array not in its shortest form"),
        pytest.param(b"\x97\xcc", id="format without its digits"),
        pytest.param(b"\x97\xff", id="a negative format"),
        pytest.param(b"\x97\xa1\x31", id="a format that is text"),
        pytest.param(element(0, -1), id="a negative format in a whole envelope"),
        pytest.param(element(0, True), id="a format that is true"),
        pytest.param(element(0, "1"), id="a format that is text in a whole envelope"),
        pytest.param(b"\x97\x01\xdd\xff\xff\xff\xff", id="a length beyond what is left"),
        pytest.param(b"\x97\x01\xc6\xff\xff\xff\xff", id="bytes beyond what is left"),
        pytest.param(b"\x91" * 5000, id="nested for ever"),
        pytest.param(pack({}), id="a map"),
        pytest.param(pack([]), id="an array of none"),
        pytest.param(pack(Message().array()[:6]), id="an array of six"),
        pytest.param(pack([*Message().array(), None]), id="an array of eight"),
        pytest.param(pack(1), id="an integer"),
    ],
)
def test_step_01_refuses_what_is_no_envelope(data: bytes) -> None:
    refuses(Code.MALFORMED, 1, lambda: Delivery().accept(data))


BAD_PROOFS: dict[str, object] = {
    "nil": None,
    "three": [1, 0, []],
    "five": [1, 0, [], bytes(64), 0],
    "a map": {},
    "size 0": [0, 0, [], bytes(64)],
    "size over 4,096": [4097, 0, [], bytes(64)],
    "size true": [True, 0, [], bytes(64)],
    "size text": ["1", 0, [], bytes(64)],
    "index of size": [1, 1, [], bytes(64)],
    "index negative": [1, -1, [], bytes(64)],
    "index false": [1, False, [], bytes(64)],
    "path nil": [1, 0, None, bytes(64)],
    "path bytes": [1, 0, b"", bytes(64)],
    "path of 13": [4096, 0, [bytes(32)] * 13, bytes(64)],
    "node of 31 bytes": [2, 0, [bytes(31)], bytes(64)],
    "node of 33 bytes": [2, 0, [bytes(33)], bytes(64)],
    "node text": [2, 0, ["x" * 32], bytes(64)],
    "signature of 63 bytes": [1, 0, [], bytes(63)],
    "signature of 65 bytes": [1, 0, [], bytes(65)],
    "signature text": [1, 0, [], "x" * 64],
}
BAD_CREDENTIALS: dict[str, object] = {
    "nil": None,
    "one": [1],
    "three": [1, b"", 0],
    "kind text": ["1", b""],
    "kind true": [True, b""],
    "kind negative": [-1, b""],
    "kind beyond 2^53-1": [MAX_INTEGER + 1, b""],
    "token text": [1, "token"],
    "token nil": [1, None],
}


@pytest.mark.parametrize("what", BAD_PROOFS)
@pytest.mark.parametrize("place", ["message", "context", "ancestor"])
def test_step_01_refuses_a_misshapen_proof(place: str, what: str) -> None:
    bad = BAD_PROOFS[what]
    changed = {"message": (3, bad), "context": (5, [b"", bad, CREDENTIAL]), "ancestor": (6, [[b"", bad, CREDENTIAL]])}
    refuses(Code.MALFORMED, 1, lambda: Delivery().accept(element(*changed[place])))


@pytest.mark.parametrize("what", BAD_CREDENTIALS)
@pytest.mark.parametrize("place", ["message", "context", "ancestor"])
def test_step_01_refuses_a_misshapen_credential(place: str, what: str) -> None:
    bad = BAD_CREDENTIALS[what]
    changed = {"message": (4, bad), "context": (5, [b"", PROOF, bad]), "ancestor": (6, [[b"", PROOF, bad]])}
    refuses(Code.MALFORMED, 1, lambda: Delivery().accept(element(*changed[place])))


@pytest.mark.parametrize(
    ("number", "value"),
    [
        pytest.param(1, "text", id="header text"),
        pytest.param(1, None, id="header nil"),
        pytest.param(1, {}, id="header not in bytes"),
        pytest.param(2, "text", id="body text"),
        pytest.param(2, None, id="body nil"),
        pytest.param(5, False, id="context false"),
        pytest.param(5, [], id="context of none"),
        pytest.param(5, [b"", PROOF], id="context of two"),
        pytest.param(5, ["", PROOF, CREDENTIAL], id="context payload text"),
        pytest.param(6, None, id="ancestors nil"),
        pytest.param(6, b"", id="ancestors bytes"),
        pytest.param(6, "", id="ancestors text"),
        pytest.param(6, [None], id="an ancestor nil"),
        pytest.param(6, [[b"", PROOF]], id="an ancestor of two"),
        pytest.param(6, [["", PROOF, CREDENTIAL]], id="an ancestor header text"),
        pytest.param(2, 1.5, id="a float"),
    ],
)
def test_step_01_refuses_a_misshapen_element(number: int, value: object) -> None:
    refuses(Code.MALFORMED, 1, lambda: Delivery().accept(element(number, value)))


def test_step_01_refuses_an_extension_type() -> None:
    data = Message().payload()
    refuses(Code.MALFORMED, 1, lambda: Delivery().accept(data[:2] + b"\xd4\x01\x00" + data[2:]))


@pytest.mark.parametrize(
    "value",
    [
        pytest.param([[[[[[]]]]]], id="six arrays"),
        pytest.param({"a": {"a": {"a": {"a": {"a": {}}}}}}, id="six maps"),
        pytest.param(None, id="nil"),
        pytest.param([None], id="nil inside"),
        pytest.param(1.5, id="a float"),
        pytest.param([1.5], id="a float inside"),
        pytest.param({b"a": 1}, id="a key that is bytes"),
        pytest.param({"b": 1, "a": 1}, id="keys in another order"),
        pytest.param(["\x00"], id="a control character inside"),
        pytest.param(-1, id="a negative integer"),
        pytest.param(2**53, id="an integer beyond 2^53-1"),
    ],
)
def test_step_01_refuses_a_value_outside_the_encoding(value: object) -> None:
    # The one decoder of contexts and records; envelopes and headers check each node by its own type.
    refuses(Code.MALFORMED, 1, lambda: decode(pack(value)))
    if value is not None and value != [None]:
        refuses(Code.MALFORMED, 1, lambda: decode(pack(value), nil=True))


def test_step_01_accepts_values_at_the_edges_of_the_encoding() -> None:
    values: list[object] = [[[[[[]]]]], {"a": {"a": {"a": {"a": {}}}}}, MAX_INTEGER, 0, True, "", b""]
    for value in values:
        assert decode(pack(value)) == value
    assert decode(pack([None]), nil=True) == [None]
    assert decode(pack(-MAX_INTEGER), negative=True) == -MAX_INTEGER


# Step 2.


def test_step_02_accepts_every_entry_that_a_task_may_have() -> None:
    message = entry(
        tid=bytes(16),
        sch="update/1",
        ext={"a": "text", "b": b"bytes", "c": -MAX_INTEGER, "d": MAX_INTEGER, "e": True},
        grt=["inventory.update", "pricing.*", "a.b.c"],
        idm="",
        re=bytes(32),
        typ="x" * 256,
    )
    header = Delivery().accept(message).header
    assert header.ext is not None
    assert header.ext["c"] == -MAX_INTEGER
    assert header.grt == ("inventory.update", "pricing.*", "a.b.c")
    assert (header.idm, header.sch, len(header.typ)) == ("", "update/1", 256)


def test_step_02_accepts_a_life_of_24_hours() -> None:
    message = Message(fields={"exp": NOW + DAY, "end": NOW + DAY, "ctx": None, "par": None}, context=None, ancestors=())
    assert Delivery().accept(message).header.exp == NOW + DAY


EVENT = {"t": "event", "to": "event.planner.done", "aud": None, "end": None, "ctx": None, "par": None}
CALL = {"t": "call", "to": "call.inventory.update", "rpl": "_INBOX.planner.1", "exp": NOW + MINUTE, "end": NOW + MINUTE}


def test_step_02_accepts_an_event() -> None:
    event = Message(fields=EVENT, context=None, ancestors=())
    delivery = Delivery(subject="event.planner.done")
    assert delivery.accept(event).header.kind is Kind.EVENT


@pytest.mark.parametrize(
    "header",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"\xc1", id="not msgpack"),
        pytest.param(pack([]), id="an array"),
        pytest.param(pack(1), id="an integer"),
        pytest.param(Message().raw() + b"\xc0", id="something after it"),
        pytest.param(b"\xde\x00\x0e" + Message().raw()[1:], id="map not in its shortest form"),
        pytest.param(pack(dict(reversed(Message().entries().items()))), id="keys in another order"),
        pytest.param(b"\x82" + pack("t") + pack("task") + pack("t") + pack("task"), id="a key twice"),
        pytest.param(pack({1: 2}), id="a key that is no text"),
        pytest.param(pack({}), id="an empty map"),
        pytest.param(b"\xdf\xff\xff\xff\xff", id="a length beyond what is left"),
        pytest.param(pack(Message().entries() | {"typ": "a\x00b"}), id="a control character in typ"),
    ],
)
def test_step_02_refuses_what_is_no_header(header: bytes) -> None:
    refuses(Code.MALFORMED, 2, lambda: Delivery().accept(Message(header=header)))


@pytest.mark.parametrize("key", ["t", "id", "iss", "to", "aud", "iat", "exp", "end", "key", "crd", "dig", "typ"])
def test_step_02_refuses_a_task_without(key: str) -> None:
    refuses(Code.MALFORMED, 2, lambda: Delivery().accept(entry(**{key: None})))


@pytest.mark.parametrize(
    ("key", "value"), [("rpl", "_INBOX.planner.1"), ("seq", 0), ("fin", True), ("new", 1), ("", 1), ("v", 1)]
)
def test_step_02_refuses_a_task_with(key: str, value: object) -> None:
    refuses(Code.MALFORMED, 2, lambda: Delivery().accept(entry(**{key: value})))


@pytest.mark.parametrize("key", ["end", "ctx", "par", "grt", "rpl", "seq", "fin"])
def test_step_02_refuses_an_event_with(key: str) -> None:
    value = {"end": NOW + HOUR, "ctx": bytes(32), "par": bytes(32), "grt": [], "rpl": "_INBOX.planner.1", "seq": 0}
    event = Message(fields={**EVENT, key: value.get(key, True)}, context=None, ancestors=())
    refuses(Code.MALFORMED, 2, lambda: Delivery(subject="event.planner.done").accept(event))


@pytest.mark.parametrize("key", ["aud", "end", "rpl"])
def test_step_02_refuses_a_call_without(key: str) -> None:
    refuses(Code.MALFORMED, 2, lambda: Delivery(core=True).accept(Message(fields={**CALL, key: None})))


LONG_ID = "spiffe://example.org/" + "a" * 2_028
BAD_ENTRIES: list[tuple[str, object]] = [
    ("t", "order"), ("t", ""), ("t", "Task"), ("t", 1), ("t", b"task"), ("t", {}), ("t", []),
    ("id", bytes(15)), ("id", message_id(2) + b"\0"), ("id", bytes(16)), ("id", "x" * 16),
    ("id", message_id(2)[:6] + b"\x40" + message_id(2)[7:]), ("id", message_id(2)[:8] + b"\x40" + message_id(2)[9:]),
    ("iss", "spiffe://example.org"), ("iss", "spiffe://example.org/"), ("iss", "spiffe://Example.org/agent/planner"),
    ("iss", "SPIFFE://example.org/agent/planner"), ("iss", "spiffe://example.org/agent/planner\n"),
    ("iss", "spiffe://example.org/agent/../planner"), ("iss", "spiffe://example.org/agent/."), ("iss", "planner"),
    ("iss", "spiffe://example.org/agent//planner"), ("iss", "spiffe:///agent"), ("iss", ""), ("iss", LONG_ID),
    ("iss", 1),
    ("iss", "spiffe://" + "a" * 256 + "/agent"), ("iss", "spiffe://example.org/agent/pl%61nner"),
    ("aud", "spiffe://example.org/"), ("aud", LONG_ID), ("aud", b"x"), ("aud", ""),
    ("to", "task.inventory."), ("to", "task..update"), ("to", "task.inventory.*"), ("to", "task.inventory.>"),
    ("to", ""),
    ("to", "task.inventory.up date"), ("to", "task.inventory." + "x" * 241), ("to", 1), ("to", "task.inventory.updaté"),
    ("iat", -1), ("iat", NOW + HOUR), ("iat", NOW + 2 * HOUR), ("iat", "0"), ("iat", True),
    ("exp", NOW), ("exp", NOW + DAY + 1), ("exp", MAX_INTEGER + 1), ("exp", False), ("exp", -1), ("exp", None),
    ("end", NOW + HOUR - 1), ("end", NOW + DAY + 1), ("end", b""), ("end", MAX_INTEGER + 1),
    ("key", bytes(64)), ("key", PLANNER.key.public.raw[:63]), ("key", PLANNER.key.public.raw + b"\0"),
    ("key", "x" * 64),
    ("key", b"\x04" + PLANNER.key.public.raw[:63]), ("key", PLANNER.key.public.raw[:63] + b"\0"),
    ("crd", bytes(31)), ("crd", bytes(33)), ("crd", "x" * 32),
    ("dig", bytes(31)), ("dig", bytes(33)), ("dig", "x" * 32),
    ("typ", "x" * 257), ("typ", "a\nb"), ("typ", "a\x7fb"), ("typ", "a\x85b"), ("typ", "é" * 129), ("typ", b"x"),
    ("sch", "x" * 257), ("sch", "\x1f"), ("sch", 1), ("sch", "\x9f"),
    ("idm", "x" * 257), ("idm", "\x00"), ("idm", b"x"),
    ("ctx", bytes(31)), ("ctx", bytes(33)), ("ctx", "x" * 32),
    ("par", bytes(31)), ("par", bytes(33)), ("par", "x" * 32),
    ("re", bytes(31)), ("re", bytes(33)), ("re", "x" * 32),
    ("tid", bytes(15)), ("tid", bytes(17)), ("tid", "x" * 16),
    ("grt", "inventory.update"), ("grt", ["a"] * 33), ("grt", ["*"]), ("grt", [".*"]), ("grt", ["a."]), ("grt", [1]),
    ("grt", ["a.**"]), ("grt", ["a.*.b"]), ("grt", ["a b"]), ("grt", [""]), ("grt", ["x" * 257]), ("grt", [b"a"]),
    ("grt", ["a..b"]), ("grt", ["a", "b", None]), ("grt", {}),
    ("ext", {"a": 1.5}), ("ext", {"a": None}), ("ext", {"a": []}), ("ext", {"a": {}}), ("ext", {"a": MAX_INTEGER + 1}),
    ("ext", {"a": -MAX_INTEGER - 1}), ("ext", {"a": "x" * 257}), ("ext", {"a": "\x00"}), ("ext", {"x" * 257: 1}),
    ("ext", {"\x00": 1}), ("ext", {"b": 1, "a": 2}), ("ext", {f"{n:02}": n for n in range(17)}), ("ext", {b"a": 1}),
    ("ext", []),
]  # fmt: skip


@pytest.mark.parametrize(
    "times",
    [
        (-1, 1, 1),
        (MAX_INTEGER, MAX_INTEGER + 1, MAX_INTEGER + 1),
        (MAX_INTEGER - 2, MAX_INTEGER - 1, MAX_INTEGER + 1),
    ],
)
def test_step_02_refuses_times_that_are_no_times(times: tuple[int, int, int]) -> None:
    iat, exp, end = times
    refuses(Code.MALFORMED, 2, lambda: Delivery().accept(entry(iat=iat, exp=exp, end=end)))
    event = Message(fields={**EVENT, "iat": iat, "exp": end}, context=None, ancestors=())
    if end > MAX_INTEGER:
        refuses(Code.MALFORMED, 2, lambda: Delivery(subject="event.planner.done").accept(event))


@pytest.mark.parametrize("case", BAD_ENTRIES, ids=lambda case: f"{case[0]}={case[1]!r:.24}")
def test_step_02_refuses_a_bad(case: tuple[str, object]) -> None:
    refuses(Code.MALFORMED, 2, lambda: Delivery().accept(entry(**{case[0]: case[1]})))


def test_step_02_refuses_text_that_is_not_utf_8() -> None:
    raw = Message(fields={"typ": "xyz"}).raw().replace(b"\xa3xyz", b"\xa3\xed\xa0\x80")
    refuses(Code.MALFORMED, 2, lambda: Delivery().accept(Message(header=raw)))


@pytest.mark.parametrize("rpl", ["", "_INBOX.planner.", "_INBOX.planner.>", "_INBOX.planner." + "x" * 241, 1])
def test_step_02_refuses_a_bad_rpl(rpl: object) -> None:
    call = Message(fields={**CALL, "rpl": rpl})
    refuses(Code.MALFORMED, 2, lambda: Delivery(core=True, subject="call.inventory.update").accept(call))


def test_step_02_refuses_a_call_that_lives_over_a_minute() -> None:
    call = Message(fields={**CALL, "exp": NOW + MINUTE + 1, "end": NOW + HOUR})
    refuses(Code.MALFORMED, 2, lambda: Delivery(core=True, subject="call.inventory.update").accept(call))


def test_step_02_refuses_an_event_that_lives_over_a_day() -> None:
    event = Message(fields={**EVENT, "exp": NOW + DAY + 1}, context=None, ancestors=())
    refuses(Code.MALFORMED, 2, lambda: Delivery(subject="event.planner.done").accept(event))


@pytest.mark.parametrize("seq", [-1, 2**32, "0", True])
def test_step_02_refuses_a_bad_seq(seq: object) -> None:
    chunk = Message(
        fields={"t": "chunk", "re": bytes(32), "seq": seq, "end": None, "exp": NOW + MINUTE}, context=None, ancestors=()
    )
    refuses(Code.MALFORMED, 2, lambda: Delivery().accept(chunk))


@pytest.mark.parametrize("fin", [False, 1, "true"])
def test_step_02_refuses_a_fin_that_is_not_true(fin: object) -> None:
    fields = {"t": "chunk", "re": bytes(32), "seq": 0, "fin": fin, "end": None, "exp": NOW + MINUTE}
    refuses(Code.MALFORMED, 2, lambda: Delivery().accept(Message(fields=fields, context=None, ancestors=())))


@pytest.mark.parametrize(
    "fields", [{"id": bytes(16)}, {"exp": NOW}, {"exp": NOW + 2 * HOUR}, {"end": NOW + DAY + 1}], ids=str
)
def test_step_02_refuses_after_a_good_one_of_the_form(fields: dict[str, object]) -> None:
    delivery = Delivery()
    delivery.accept(entry())
    refuses(Code.MALFORMED, 2, lambda: delivery.accept(entry(**fields)))


def test_step_02_refuses_values_that_no_wire_can_say() -> None:
    # Keys and IDs are also made from settings and evidence; there, no decoder has seen to types and lengths.
    for raw in ("x" * 64, bytearray(64), PLANNER.key.public.raw[:63], PLANNER.key.public.raw + b"x"):
        refuses(Code.MALFORMED, 2, partial(PublicKey, raw))  # type: ignore[arg-type]
    for text in (1, None, b"spiffe://example.org/agent"):
        refuses(Code.MALFORMED, 0, partial(SpiffeId, text))  # type: ignore[arg-type]
    for name in (1, None, "", "Example.org", "example.org/", "a" * 256):
        refuses(Code.MALFORMED, 0, partial(TrustDomain, name))  # type: ignore[arg-type]


def test_step_02_comes_after_step_01_and_before_step_03() -> None:
    both = Message(fields={"t": "nothing"}, elements={2: None})
    refuses(Code.MALFORMED, 1, lambda: Delivery().accept(both))
    refuses(Code.MALFORMED, 2, lambda: Delivery(subject="task.other.update").accept(entry(typ=1)))


def test_step_02_keeps_what_was_signed() -> None:
    message = Message()
    accepted = Delivery().accept(message.payload())
    assert accepted.header.raw == message.raw()
    assert (accepted.body, accepted.statement) == (BODY, statement())
    assert isinstance(accepted.statement, Statement)
    assert isinstance(accepted.ancestors[1], Ancestor)
    assert (accepted.header.aud, accepted.header.iss) == (INVENTORY, agent("planner"))
    assert accepted.header.iat + HOUR - SECOND < accepted.header.exp
