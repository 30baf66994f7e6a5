"""Denials by themselves: the policy has the data that a new bundle of the platform would give it, and nothing is compiled."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from secrets import token_hex

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.policies import document, signing_key
from support.teams import naming, revocations, signed_platform, signed_team

from sealbus.envelopes.encoding.strict_json import Json
from sealbus.envelopes.trust.keys import SigningKey, key_id
from sealbus.envelopes.trust.spiffe_id import SpiffeId
from sealbus.policies.bundle.check import check_bundle
from sealbus.policies.bundle.composition import MOST_REFUSED, PartSet
from sealbus.policies.bundle.denials import DENIAL, extended, is_denied, pack_denial, takes_denials, with_denial
from sealbus.policies.bundle.files import STARTER, build_bundle
from sealbus.policies.bundle.format import Bundle, Manifest, pack_bundle, read_bundle
from sealbus.policies.bundle.in_force import InForce
from sealbus.policies.bundle.ownership import PLATFORM
from sealbus.policies.bundle.revocations import issued_before
from sealbus.policies.bundle.signing import sign_bundle
from sealbus.policies.decision.decision import Decision
from sealbus.policies.decision.documents import DataDocument, canonical, checked_document
from sealbus.policies.engines.embedded import EmbeddedEngine
from sealbus.policies.lint.module import PolicyRefused

ROOT, STOCK = signing_key(), signing_key()
ANCHORS = {key_id(ROOT.public): ROOT.public}
PLANNER = "spiffe://example.org/agent/planner"
CAROL = "carol"


def denied(kind: str, identity: str, **members: str) -> DataDocument:
    return {"sealbus": {"registry": {"revoked": {kind: {identity: dict(members)}}}}}


def before(identity: str, time: Json) -> DataDocument:
    return {"sealbus": {"registry": {"issued_before": {identity: time}}}}


def entry(data: DataDocument, serial: int, key: SigningKey = ROOT, scope: str = DENIAL) -> bytes:
    return sign_bundle(pack_denial(data, serial), key, scope=scope).raw


def starter(serial: int = 1, *more: DataDocument, upto: int = 0) -> bytes:
    """Return the signed starter policy, with the denials `more` in its data, which are those up to the serial `upto`."""
    built = build_bundle(STARTER, serial=serial, part=True)
    data = built.data
    for added in more:
        data = with_denial(data, added)
    modules = {module.path: module.text.encode() for module in built.modules}
    raw = pack_bundle(modules, data, Manifest(roots=built.roots, serial=serial, denials=upto))
    return sign_bundle(read_bundle(raw), ROOT, scope=PLATFORM).raw


def parts(platform: bytes, *entries: bytes) -> PartSet:
    found = PartSet(ANCHORS)
    found.offer(PLATFORM, platform)
    for raw in entries:
        found.offer(DENIAL, raw)
    return found


def composed(found: PartSet) -> Bundle:
    assert found.composed is not None
    return found.composed


def labels(found: PartSet) -> str:
    return composed(found).revision.partition(".")[2]


@pytest.mark.parametrize(
    ("data", "why"),
    [
        ({}, "not an object with one denial"),
        ({"sealbus": {"registry": {}}}, "not an object with one denial"),
        ({"sealbus": {"registry": {"revoked": {}}}}, "neither"),
        ({"sealbus": {"registry": {"revoked": {"robots": {"x": {}}}}}}, "neither"),
        ({"sealbus": {"registry": {"revoked": {"users": {"a": {}}, "agents": {"b": {}}}}}}, "neither"),
        ({"sealbus": {"registry": {"revoked": {"users": {}}}}}, "exactly one id"),
        ({"sealbus": {"registry": {"revoked": {"users": {"a": {}, "b": {}}}}}}, "exactly one id"),
        ({"sealbus": {"registry": {"revoked": {"users": ["a"]}}}}, "exactly one id"),
        ({"sealbus": {"registry": {"revoked": {"users": {"a": False}}}}}, "no object"),
        ({"sealbus": {"registry": {"users": {"a": {}}}}}, "neither"),
        ({"sealbus": {"registry": {"revoked": {"users": {"a": {}}}, "users": {}}}}, "not an object with one denial"),
        ({"sealbus": {"registry": {"revoked": {"users": {"a": {}}}}, "platform": {}}}, "not an object with one denial"),
        (before("spiffe://example.org/agent/a", "now"), "microseconds"),
        (before("carol", 7), "not a SPIFFE ID"),
        ({"sealbus": {"registry": {"issued_before": {}}}}, "exactly one id"),
    ],
)
def test_an_entry_denies_one_id_and_does_nothing_else(data: DataDocument, why: str) -> None:
    with pytest.raises(PolicyRefused, match=why):
        pack_denial(data, 2)
    found = parts(starter())
    raw = pack_bundle({}, data, Manifest(roots=("sealbus/registry",), serial=2))
    with pytest.raises(PolicyRefused, match=why):
        found.offer(DENIAL, sign_bundle(read_bundle(raw), ROOT, scope=DENIAL).raw)
    assert found.denials == ()


def test_an_entry_has_no_rego_and_one_root() -> None:
    found = parts(starter())
    rego = {"x.rego": b"package sealbus.registry.x\n"}
    for modules, roots in ((rego, ("sealbus/registry",)), ({}, ("",)), ({}, ("sealbus/registry", "x"))):
        raw = pack_bundle(modules, denied("users", CAROL), Manifest(roots=roots, serial=2))
        with pytest.raises(PolicyRefused, match="one root"):
            found.offer(DENIAL, sign_bundle(read_bundle(raw), ROOT, scope=DENIAL).raw)


def test_an_entry_is_in_the_data_and_in_the_revision() -> None:
    found = parts(starter(), entry(denied("users", CAROL, at="now"), 2))
    assert labels(found) == "platform-2"
    assert [(part.name, part.serial) for part in found.parts] == [(PLATFORM, 2)]
    whole = parts(starter(2, denied("users", CAROL, at="now")))
    assert composed(found).data == composed(whole).data == found.platform_data()
    # The parts are others, and so is the hash.
    assert labels(whole) == labels(found)
    assert composed(whole).revision != composed(found).revision
    platform = found.bundle(PLATFORM)
    assert platform is not None
    assert not is_denied(platform.data, denied("users", CAROL))


def test_each_revision_names_one_content() -> None:
    """Two denials under one serial, in the stores of two deployments or after a restore, are two policies."""
    platforms = [starter(), starter(1, denied("users", "dave"))]
    data = [denied("users", CAROL), denied("users", CAROL, at="now"), denied("agents", CAROL), before(PLANNER, 2)]
    found = [parts(platform, entry(one, 2)) for platform in platforms for one in data]
    assert len({composed(one).revision for one in found}) == len(found)
    assert {labels(one) for one in found} == {"platform-2"}


def test_the_packed_bundle_is_whole() -> None:
    found = composed(parts(starter(), entry(denied("users", CAROL), 2), entry(before(PLANNER, 7), 3)))
    read = read_bundle(found.raw)
    check_bundle(read)
    assert (read.revision, read.roots, read.modules, read.data) == (
        found.revision,
        found.roots,
        found.modules,
        found.data,
    )
    assert read.digest == found.digest


def test_teams_are_denied_above_their_own_decisions() -> None:
    found = PartSet(ANCHORS)
    found.offer(PLATFORM, signed_platform(ROOT, {"stock": STOCK}))
    found.offer("stock", signed_team("stock", STOCK))
    found.offer(DENIAL, entry(denied("agents", PLANNER), 2))
    assert labels(found) == "platform-2.stock-1"
    found.offer("stock", signed_team("stock", STOCK, serial=5))
    assert labels(found) == "platform-2.stock-5"
    assert is_denied(composed(found).data, denied("agents", PLANNER))


@pytest.mark.parametrize("scope", [PLATFORM, "denial", "", "revocations"])
def test_a_signature_for_something_else_is_none_for_a_denial(scope: str) -> None:
    found = parts(starter())
    with pytest.raises(PolicyRefused, match="scope"):
        found.offer(DENIAL, entry(denied("users", CAROL), 2, scope=scope))
    assert "scope" in found.problems[DENIAL]
    found.offer(DENIAL, entry(denied("users", CAROL), 3))
    # It is told until a bundle of the platform has it, or would: the one that was taken says nothing about it.
    assert "scope" in found.problems[DENIAL]
    found.offer(PLATFORM, starter(4, upto=3))
    assert found.problems == {}


def test_only_a_key_of_the_platform_denies() -> None:
    found = PartSet(ANCHORS)
    found.offer(PLATFORM, naming(ROOT, {"stock": STOCK}, STOCK, serial=1))
    found.offer("revocations", revocations(STOCK))
    with pytest.raises(PolicyRefused, match="may not sign"):
        found.offer(DENIAL, entry(denied("users", CAROL), 2, STOCK))
    assert labels(found) == "platform-1"


def test_an_entry_is_no_part_and_a_part_no_entry() -> None:
    found = parts(starter())
    with pytest.raises(PolicyRefused, match="scope"):
        found.offer(PLATFORM, entry(denied("users", CAROL), 2))
    with pytest.raises(PolicyRefused, match="scope"):
        found.offer(DENIAL, starter(2))
    empty = PartSet(ANCHORS)
    with pytest.raises(PolicyRefused):
        empty.offer(DENIAL, entry(denied("users", CAROL), 2))
    assert (empty.composed, empty.platform_data()) == (None, None)


def test_a_bundle_of_the_platform_has_what_it_says_that_it_has() -> None:
    entries = [entry(denied("users", name), serial) for serial, name in ((2, "a"), (3, "b"), (5, "d"))]
    found = parts(starter(), *entries)
    found.offer(PLATFORM, starter(4, denied("users", "a"), denied("users", "b"), upto=3))
    assert [one.serial for one in found.denials] == [5]
    assert labels(found) == "platform-5"
    assert all(is_denied(composed(found).data, denied("users", name)) for name in "abd")
    now = found.composed
    for late in entries:
        found.offer(DENIAL, late)
        assert found.composed is now
    # One that was pushed by a command of 0.1.0 ends no denial, and may have a later serial than they.
    found.offer(PLATFORM, starter(7))
    assert [one.serial for one in found.denials] == [5]
    assert labels(found) == "platform-7"
    found.offer(DENIAL, entries[1])
    assert labels(found) == "platform-7"
    assert [is_denied(composed(found).data, denied("users", name)) for name in "abd"] == [False, True, True]


@pytest.mark.parametrize("upto", [4, 5, 99])
def test_no_bundle_has_denials_that_come_after_it(upto: int) -> None:
    found = parts(starter(), entry(denied("users", CAROL), 2))
    with pytest.raises(PolicyRefused, match="cannot be in a bundle of serial 4"):
        found.offer(PLATFORM, starter(4, upto=upto))
    assert [one.serial for one in found.denials] == [2]
    found.offer(PLATFORM, starter(4, upto=3))


def test_a_folder_that_was_a_bundle_says_nothing_of_denials(tmp_path: Path) -> None:
    """An unpacked bundle is pushed to another store, whose denials are others."""
    folder = tmp_path / "policy"
    shutil.copytree(STARTER, folder)
    (folder / ".manifest").write_text('{"roots": [""], "metadata": {"sealbus": {"serial": 41, "denials": 40}}}')
    assert build_bundle(folder, serial=1).denials == 0


def test_two_denials_of_one_serial_both_count() -> None:
    """The store was restored, and the serial given again."""
    first, second = entry(denied("users", "a"), 2), entry(denied("users", "b"), 2)
    found, other = parts(starter(), first, second), parts(starter(), second, first)
    assert composed(found).revision == composed(other).revision
    assert all(is_denied(composed(found).data, denied("users", name)) for name in "ab")


def test_what_is_refused_is_offered_again_with_the_next_bundle_of_the_platform() -> None:
    anchors = dict(ANCHORS)
    found = PartSet(anchors)
    found.offer(PLATFORM, starter())
    for serial, name in ((2, "a"), (3, "b")):
        with pytest.raises(PolicyRefused, match="may not sign"):
            found.offer(DENIAL, entry(denied("users", name), serial, STOCK))
    with pytest.raises(PolicyRefused):
        found.offer(DENIAL, b"junk")
    found.offer(DENIAL, entry(denied("users", "c"), 4))
    assert found.problems[DENIAL].endswith("(and 2 more denials are refused)")
    anchors[key_id(STOCK.public)] = STOCK.public
    found.offer(PLATFORM, starter(5, denied("users", "a"), denied("users", "c"), upto=2))
    assert found.problems == {}
    assert [one.serial for one in found.denials] == [3, 4]


def test_what_is_refused_fills_no_memory() -> None:
    found = parts(starter())
    for number in range(MOST_REFUSED + 3):
        with pytest.raises(PolicyRefused):
            found.offer(DENIAL, b"%d" % number)
    assert found.problems[DENIAL].endswith(f"(and {MOST_REFUSED - 1} more denials are refused)")


def test_an_entry_without_a_serial_is_refused() -> None:
    with pytest.raises(PolicyRefused, match="serial"):
        parts(starter(), entry(denied("users", CAROL), 0))


def test_the_order_in_which_entries_come_changes_nothing() -> None:
    entries = [entry(denied("users", CAROL, at=str(serial)), serial) for serial in (2, 3, 4)]
    found = [parts(starter(), *(entries[index] for index in order)) for order in ((0, 1, 2), (2, 0, 1), (1, 2, 0))]
    assert len({composed(one).revision for one in found}) == 1
    assert all(composed(one).data == composed(found[0]).data for one in found)
    # The later denial of one id is the one that counts.
    assert str(composed(found[0]).data).count("'at': '4'") == 1


MINIMAL = """package sealbus.authz

decision := decide(input)

batch := [decide(request) | some request in input.batch]

decide(request) := {"allow": true, "reasons": [], "obligations": [], "policy": "minimal"} if request.v
"""


def platform(rule: str, *roots: str, serial: int = 1) -> bytes:
    """Return a platform's bundle of a minimal policy with another rule."""
    modules = {"authz.rego": MINIMAL.encode(), **({"rule.rego": rule.encode()} if rule else {})}
    raw = pack_bundle(modules, {}, Manifest(roots=roots or ("",), serial=serial))
    return sign_bundle(read_bundle(raw), ROOT, scope=PLATFORM).raw


@pytest.mark.parametrize(
    ("rule", "roots", "why"),
    [
        ("", ("sealbus/authz",), "outside the roots"),
        ("", ("sealbus/authz", "sealbus/registry/revoked"), "issued_before is outside the roots"),
        ('package sealbus.registry\n\nrevoked := {"users": {"dave": true}}\n', (), "a rule stands"),
        ("package sealbus.registry.revoked\n\nusers := {}\n", (), "a rule stands"),
        ("package sealbus\n\nregistry.issued_before := {}\n", (), "a rule stands"),
        ("package sealbus\n\nregistry := {}\n", (), "a rule stands"),
    ],
)
def test_no_entry_comes_where_it_does_not_fit(rule: str, roots: tuple[str, ...], why: str) -> None:
    """Data in the place of a rule would hide it: whom the rule denies would be allowed."""
    found = parts(platform(rule, *roots))
    assert not takes_denials(composed(found))
    with pytest.raises(PolicyRefused, match=why):
        found.offer(DENIAL, entry(denied("users", CAROL), 2))
    assert [one.serial for one in found.unfit] == [2]
    for number in range(MOST_REFUSED):
        with pytest.raises(PolicyRefused):
            found.offer(DENIAL, b"%d" % number)
    assert found.unfit == ()
    # Nor does such a bundle come where there are entries that it lacks.
    late = parts(starter(), entry(denied("users", CAROL), 9))
    refused = late.composed
    with pytest.raises(PolicyRefused, match=why):
        late.offer(PLATFORM, platform(rule, *roots, serial=2))
    assert late.composed is refused


def test_a_policy_that_would_not_pass_its_check_with_a_denial_takes_none() -> None:
    """It counts on what a denied id has beside it."""
    rule = "package counts\n\nall := [n | some user in data.sealbus.registry.revoked.users; n := user + 1]\n"
    modules = {"authz.rego": MINIMAL.encode(), "rule.rego": rule.encode()}
    data: DataDocument = {"sealbus": {"registry": {"revoked": {"users": {"dave": 1}}}}}
    bundle = read_bundle(pack_bundle(modules, data, Manifest(serial=1)))
    check_bundle(bundle)
    assert not takes_denials(bundle)


def test_other_rules_of_the_registry_are_no_hindrance() -> None:
    found = parts(platform("package sealbus.registry\n\nrevoked_twice := {}\n"))
    assert found.unfit == ()
    assert takes_denials(composed(found))
    found.offer(DENIAL, entry(denied("users", CAROL), 2))


def test_the_policies_of_sealbus_take_denials() -> None:
    assert takes_denials(composed(parts(starter())))
    found = PartSet(ANCHORS)
    found.offer(PLATFORM, signed_platform(ROOT, {"stock": STOCK}))
    found.offer("stock", signed_team("stock", STOCK))
    assert takes_denials(composed(found))


def test_an_entry_is_small() -> None:
    with pytest.raises(PolicyRefused, match="at most 8192 bytes"):
        pack_denial(denied("users", CAROL, reason=token_hex(8_192)), 2)


def test_the_revision_is_no_longer_than_others() -> None:
    """A serial grows by digits; what is longer names its hash only."""
    base = replace(composed(parts(starter())), revision=f"0123456789ab.platform-9.{'x' * 225}-3", file=b"")
    assert len(extended(base, pack_denial(denied("users", CAROL), 99)).revision) == 252
    long = extended(base, pack_denial(denied("users", CAROL), 999_999))
    assert long.revision.endswith("...")
    read_bundle(long.raw)
    assert extended(long, pack_denial(denied("users", "dave"), 1_000_000)).revision.endswith("...")


def test_the_data_before_is_not_changed() -> None:
    data = build_bundle(STARTER).data
    kept = copy.deepcopy(data)
    changed = with_denial(with_denial(data, denied("users", CAROL)), before(PLANNER, 7))
    assert data == kept
    assert is_denied(changed, denied("users", CAROL))
    assert is_denied(changed, before(PLANNER, 9))
    # Credentials that one of two operators denied stay denied.
    assert issued_before(with_denial(changed, before(PLANNER, 5))) == {SpiffeId(PLANNER): 7}
    assert issued_before(with_denial(changed, before(PLANNER, 9))) == {SpiffeId(PLANNER): 9}
    assert not is_denied(changed, denied("agents", CAROL))
    with pytest.raises(PolicyRefused, match="not an object"):
        with_denial({"sealbus": {"registry": {"revoked": []}}}, denied("users", CAROL))


async def test_revocations_by_time_come_with_the_entry() -> None:
    in_force, found = InForce(), parts(starter(1, before(PLANNER, 5)))
    await in_force.put(composed(found))
    other = "spiffe://example.org/agent/shop"
    for serial, data in ((2, before(other, 7)), (3, denied("users", CAROL)), (4, before(PLANNER, 9))):
        found.offer(DENIAL, entry(data, serial))
        assert await in_force.put(composed(found))
        assert not await in_force.put(composed(found))
    assert in_force.revoked_before == {SpiffeId(PLANNER): 9, SpiffeId(other): 7}
    found.offer(DENIAL, entry(before(PLANNER, 8), 4))
    await in_force.put(composed(found))
    assert in_force.revoked_before[SpiffeId(PLANNER)] == 9
    # Of two at once, the first was never in force by itself.
    for serial, identity in ((5, "spiffe://example.org/agent/a"), (6, "spiffe://example.org/agent/b")):
        found.offer(DENIAL, entry(before(identity, serial), serial))
    await in_force.put(composed(found))
    assert len(in_force.revoked_before) == 4


KINDS = st.sampled_from(
    [("agents", PLANNER), ("users", "alice"), ("users", "bob"), ("sessions", "s-1"), ("clients", "c-1")]
)


def asked(user: str, session: str, client: str) -> bytes:
    question = json.loads(document("pricing.quote"))
    question["context"]["user"] |= {"present": True, "type": "user", "id": user, "session": session, "client": client}
    return checked_document(canonical(question))


@settings(max_examples=25, deadline=None)
@given(
    denials=st.lists(st.tuples(KINDS, st.sampled_from(["now", "then", ""])), max_size=6),
    folded=st.integers(0, 6),
)
async def test_entries_decide_as_a_bundle_with_the_same_denials(
    denials: Sequence[tuple[tuple[str, str], str]], folded: int
) -> None:
    """Some of the denials are in the bundle at first; an id may be denied again, with another time or none."""
    data = [denied(kind, identity, **({"at": at} if at else {})) for (kind, identity), at in denials]
    folded = min(folded, len(data))
    found = parts(starter(folded + 1, *data[:folded]))
    in_force = InForce()
    await in_force.put(composed(found))
    questions = [
        asked(user, session, client)
        for user in ("alice", "bob")
        for session in ("s-1", "s-2")
        for client in ("c-1", "c")
    ]
    async with EmbeddedEngine(in_force) as engine:
        for serial, added in enumerate(data[folded:], folded + 2):
            found.offer(DENIAL, entry(added, serial))
            await in_force.put(composed(found))
            assert (await engine.status()).revision == composed(found).revision
        other = InForce()
        await other.put(composed(parts(starter(1, *data))))
        async with EmbeddedEngine(other) as whole:
            ours, theirs = await engine.decide(questions), await whole.decide(questions)
        assert [told(one) for one in ours] == [told(one) for one in theirs]
        assert all(isinstance(one, Decision) and one.revision == composed(found).revision for one in ours)


def told(answer: object) -> Mapping[str, object]:
    assert isinstance(answer, Decision), answer
    return {"allow": answer.allow, "reasons": answer.reasons, "obligations": answer.obligations}
