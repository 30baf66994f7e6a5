"""The payload of a user context: its table of keys, entry by entry (SPEC.md section 6)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.acceptance import EDGE, EDGE_ID, refuses, statement
from support.both_readers import parse_payload
from support.envelopes import HOUR, MINUTE, NOW, TRUST_DOMAIN

from sealbus.envelopes.encoding.codec import Value, decode, pack
from sealbus.envelopes.errors import Code, EnvelopeError
from sealbus.envelopes.message.user_context import SubjectType
from sealbus.envelopes.trust.spiffe_id import TrustDomain

DAY = 24 * HOUR
GOOD = statement().payload


def payload(**changes: Value) -> bytes:
    """Return the valid payload with entries changed; nil takes one out."""
    fields = decode(GOOD, text_bytes=2048)
    assert isinstance(fields, dict)
    changed = fields | changes
    return pack({key: changed[key] for key in sorted(changed) if changed[key] is not None})


def test_a_payload_with_what_it_must_have() -> None:
    context = parse_payload(GOOD)
    assert (context.txn, context.iss, context.aud) == (bytes(range(16)), EDGE_ID, TRUST_DOMAIN)
    assert (context.iat, context.exp, context.end) == (NOW, NOW + 15 * MINUTE, NOW + 2 * HOUR)
    assert (context.key, context.crd) == (EDGE.key.public, EDGE.crd)
    assert (context.sub, context.idp, context.sid, context.cid) == ("u-1001", "https://idp.example", "s-1", "web")
    assert context.scp == ("inventory",)
    assert context.clm == {"department": "sales", "level": 3, "staff": True, "groups": ("a", "b")}
    assert (context.ten, context.wkl, context.acr, context.amr, context.aut, context.req) == (None,) * 6
    assert (context.typ, context.dom) == (None, None)


def test_a_payload_with_all_that_it_may_have() -> None:
    long_id = "spiffe://example.org/" + "a" * 2027
    all_of_it: dict[str, Value] = {
        "sub": "u@p.example", "clm": {"l": [], "n": -(2**53) + 1}, "ten": "", "wkl": long_id, "acr": "x" * 256,
        "amr": [], "aut": 0, "req": {"ip": ""}, "typ": "client", "dom": "p.example",
    }  # fmt: skip
    context = parse_payload(payload(**all_of_it))
    assert context.wkl is not None
    assert context.wkl.value == long_id
    assert (context.ten, context.acr, context.amr, context.aut) == ("", "x" * 256, (), 0)
    assert (context.req, context.clm) == ({"ip": ""}, {"l": (), "n": -(2**53) + 1})
    assert (context.typ, context.dom) == (SubjectType.CLIENT, TrustDomain("p.example"))
    refuses(Code.BAD_CONTEXT, 10, lambda: parse_payload(payload(**all_of_it, new=1)))


def test_a_subject_that_is_none_of_our_users() -> None:
    client, mia = parse_payload(payload(typ="client")), parse_payload(payload(sub="mia@p.example", dom="p.example"))
    assert (client.typ, client.dom) == (SubjectType.CLIENT, None)
    assert (mia.typ, mia.dom, mia.sub) == (None, TrustDomain("p.example"), "mia@p.example")
    build = parse_payload(payload(sub="repo:a@b@ci.example", dom="ci.example", typ="workload"))
    assert (build.typ, build.sub) == (SubjectType.WORKLOAD, "repo:a@b@ci.example")


def test_it_shows_no_user_and_cannot_be_changed() -> None:
    context = parse_payload(GOOD)
    assert "u-1001" not in repr(context)
    assert "sales" not in repr(context)
    with pytest.raises(AttributeError):
        context.sub = "u-1002"  # type: ignore[misc]
    with pytest.raises(TypeError):
        context.clm["level"] = 4  # type: ignore[index]


def test_many_claims_fit() -> None:
    assert len(parse_payload(payload(clm={f"{n:03}": n for n in range(500)})).clm) == 500


@pytest.mark.parametrize(
    "data",
    [
        b"", b"\xc1", pack([]), pack({}), GOOD + b"\0", GOOD[:-1],
        payload(new=1), payload(sub=None), payload(v=2), payload(v=True), payload(v="1"),
        payload(iat=NOW + 15 * MINUTE), payload(exp=NOW + 2 * HOUR + 1), payload(end=NOW + DAY + 1), payload(iat=-1),
        payload(iat="0"), payload(txn=b"x"), payload(txn="x" * 16), payload(iss="x"), payload(iss=1), payload(aud="X"),
        payload(key=bytes(64)), payload(crd=bytes(31)), payload(sub="x" * 257), payload(sub="\x00"), payload(sub=b"x"),
        payload(scp="x"), payload(scp=[1]), payload(scp=["\x00"]), payload(scp=[str(n) for n in range(33)]),
        payload(clm=[]), payload(clm={"x": b""}), payload(clm={"x": {}}), payload(clm={"x" * 257: 1}),
        payload(clm={"x": 2**53}), payload(wkl="x"), payload(amr="x"), payload(aut=-1), payload(acr=1), payload(ten=1),
        payload(req=[]), payload(req={"x": 1}), payload(typ="user"), payload(typ=""), payload(typ=1), payload(typ=b"client"),
        payload(dom="p.example"), payload(dom="", sub="u@"), payload(dom="P.example", sub="u@P.example"),
        payload(dom=1), payload(dom="p.example", sub="u@o.example"), payload(dom="p.example", sub="u@o.p.example"),
        payload(dom="p.example", sub="@p.example"), payload(dom="p.example", sub="u"), payload(dom="p", sub="u@p@"),
        payload(dom="p.example", sub="u@P.example"), payload(dom="p.example", sub="u@p.example2"),
        payload(dom="p.example", sub="u@p.exampl"), payload(dom="p.example", sub="u@p.examplf"),
        payload(typ="clients"), payload(typ="clien"), payload(typ="clienT"), payload(typ="workloae"), payload(typ="Workload"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("step", [10, 2])
def test_what_is_misshapen(data: bytes, step: int) -> None:
    refuses(Code.BAD_CONTEXT, step, lambda: parse_payload(data, step=step))


def test_the_edges_of_its_times() -> None:
    assert parse_payload(payload(exp=NOW + 1, end=NOW + 1)).end == NOW + 1
    assert parse_payload(payload(end=NOW + DAY)).end == NOW + DAY


@given(st.binary(max_size=100) | st.tuples(st.integers(0, len(GOOD) - 1), st.integers(1, 255)).map(
    lambda at: GOOD[: at[0]] + bytes([GOOD[at[0]] ^ at[1]]) + GOOD[at[0] + 1 :]
))  # fmt: skip
def test_any_bytes_are_a_context_or_an_envelope_error(data: bytes) -> None:
    try:
        context = parse_payload(data)
    except EnvelopeError as error:
        refused = (error.code, error.step)
    else:
        refused = (Code.BAD_CONTEXT, 10)
        assert context.iss.value.startswith("spiffe://")
    assert refused == (Code.BAD_CONTEXT, 10)


@pytest.mark.parametrize("place", range(3))
def test_each_claim_is_of_a_type_that_claims_have(place: int) -> None:
    names = "abc"
    assert parse_payload(payload(clm=dict.fromkeys(names, "x"), req=dict.fromkeys(names, "x"))).req is not None
    clm: Value = dict.fromkeys(names, "x") | {names[place]: b"x"}
    req: Value = dict.fromkeys(names, "x") | {names[place]: 1}
    for changed in (payload(clm=clm), payload(req=req)):
        with pytest.raises(EnvelopeError):
            parse_payload(changed)
