"""Approvals of a real run, and the bounds of what an export lets count."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from independent import verify_export as independent
from support.approved_world import Approval, approval_world, compact, judged, leaf_of
from support.bus_export import exported, frames_of_bus
from support.kept_log import root_of
from support.log_world import EPOCH, Frame, World
from support.memory_files import MemoryFiles
from support.near import near, nearly
from support.payments import ASKED, Payments
from vectors.issuing import INVENTORY, SECOND

from sealbus.agents.evidence.approvals import LATEST, ApprovalChains
from sealbus.agents.evidence.verify import verify_export
from sealbus.envelopes.export.approvals import ApprovalAsked, ApprovalFact, ApprovalSaid, ApprovalUsed
from sealbus.envelopes.export.entries import EntryReader
from sealbus.envelopes.export.format import Frame as ReadFrame
from sealbus.envelopes.export.trust import TrustReader
from sealbus.envelopes.log.entries import EntryKind
from sealbus.envelopes.trust.spiffe_id import SpiffeId
from sealbus.testing import TestBus

DAY = 86_400 * SECOND


def found(bus: TestBus, frames: list[Frame] | None = None) -> list[tuple[str, str]]:
    """Return what both verifiers find in the export of `bus`."""
    files, root, document = exported(bus, frames)
    ours = [(one.place, str(one.code)) for one in verify_export(MemoryFiles(files), root, processes=1).findings]
    theirs = independent.verify(files, independent.read_root(document)).findings
    assert ours == [(place, code) for place, code, _ in theirs]
    return ours


async def test_what_people_have_approved_is_found_in_an_export() -> None:
    payments = Payments(asked={**ASKED, "acr": ["urn:x:2"], "max_age": 300, "follows": ["ledger.post"]}, enough=2)
    async with TestBus(payments.agent, engine=payments.engine) as bus:
        first = await payments.submitted(bus)
        second = await payments.submitted(bus, invoice="43", user="mallory")
        await bus.approve(first, "boss", acr="urn:x:2")
        await bus.idle()
        await bus.approve(second, "boss", verdict="deny", acr="urn:x:2")
        await bus.approve(first, "chief", acr="urn:x:2", note="the second")
        await bus.idle()
        assert payments.paid == [("42", ("boss", "chief"))]
        assert found(bus) == []


async def test_what_is_redelivered_is_found_as_well() -> None:
    payments = Payments(fail=2)
    async with TestBus(payments.agent, engine=payments.engine) as bus:
        handle = await payments.submitted(bus)
        await bus.approve(handle, "boss")
        assert await handle.result(str, timeout=60) == "paid"
        await bus.idle()
        assert found(bus) == []


async def test_without_the_message_of_who_approved_it_is_told() -> None:
    payments = Payments()
    async with TestBus(payments.agent, engine=payments.engine) as bus:
        handle = await payments.submitted(bus)
        await bus.approve(handle, "boss")
        assert await handle.result(str, timeout=60) == "paid"
        await bus.idle()
        frames = frames_of_bus(bus)
        [said] = [at for at, one in enumerate(frames) if b"control.payments.approve" in one.data]
        kept = [one._replace(sequence=number) for number, one in enumerate([*frames[:said], *frames[said + 1 :]])]
        rested = [one for one in kept if b'"record":"' in one.data]
        assert found(bus, kept) == [(f"#{one.sequence}", "bad_approval") for one in rested] != []


@pytest.mark.parametrize(("late", "counts"), [(-1, True), (0, False)])
def test_an_approval_comes_in_time(late: int, counts: bool) -> None:
    world = approval_world()
    approval = Approval(world=world)
    approval.put("D")
    world.time = world.frames[-1].stored + 3600 * SECOND + LATEST + late
    approval.put("A R")
    assert (judged(world) == []) is counts


@pytest.mark.parametrize(("late", "counts"), [(-1, True), (0, False)])
def test_no_approval_comes_after_a_month(late: int, counts: bool) -> None:
    world = approval_world()
    approval = Approval(world=world)
    approval.asked = {**approval.asked, "until": 30 * 86_400}
    made = world.time
    approval.make("D")
    world.time += 3600 * SECOND
    approval.put("D")
    epoch = 30 * DAY // EPOCH
    world.record_bundle("k0", f"k{epoch}")
    world.epoch, world.time = epoch, made + 30 * DAY
    world.record_bundle(f"k{epoch}")
    world.time = made + 30 * DAY + LATEST + late
    approval.put("A R")
    assert (judged(world) == []) is counts


def test_tiles_are_read_by_several_processes_and_put_together_in_order() -> None:
    world = approval_world()
    true, forged = Approval(world=world), Approval(world=world, entry={"user": "chief"})
    true.put("D")
    forged.put("D")
    while len(world.frames) < 260:
        world.put(b"", 0)
    true.put("A")
    forged.put("A")
    while len(world.frames) < 520:
        world.put(b"", 0)
    true.put("R")
    assert judged(world) == []
    forged.put("R")
    told = [(f"#{world.sequence}", "bad_approval")]
    assert judged(world) == told
    files, root = MemoryFiles(world.files()), root_of(world)
    assert [(one.place, one.code) for one in verify_export(files, root, processes=2).findings] == told


BODIES = [
    b'{"v":1,"decision":"%s","verdict":"approve","note":""}',
    b'{"v":1.0,"decision":"%s","verdict":"approve","note":""}',
    b'{"v":true,"decision":"%s","verdict":"approve","note":""}',
    b'{"v":2,"decision":"%s","verdict":"approve","note":""}',
    b'{"v":1,"decision":"%s","verdict":"\\u0061pprove","note":""}',
    b'{"v":1,"decision":"%s","verdict":"Approve","note":""}',
    b'{"v":1,"decision":"%s","verdict":"approve","note":null}',
    b'{"v":1,"decision":"%s","verdict":"approve"}',
    b'{"v":1,"decision":"%s","verdict":"approve","note":"","more":""}',
    b'{"v":1,"decision":"%s","verdict":"approve","note":"","note":""}',
    b'{"v":1,"decision":"%s","verdict":"approve","note":"\\n"}',
    b'{"v":1,"decision":"%s","verdict":"approve","note":"\\ud800"}',
    b'{"v":1,"decision":"%s","verdict":"approve","note":"\xc3\xa4"}',
    b'{"v":1,"decision":"%s","verdict":"approve","note":"\xff"}',
    b'{"v":1,"decision":"%s","verdict":"approve","note":[]}',
    b'{"v":1,"decision":"%s","verdict":"approve","note":"' + b"x" * 256 + b'"}',
    b'{"v":1,"decision":"%s","verdict":"approve","note":"' + b"x" * 257 + b'"}',
    b' {"v" : 1, "decision" : "%s", "verdict" : "approve", "note" : "" } ',
    b'{"v":1,"decision":"%s","verdict":"approve","note":""}' + b" " * 4000,
    b'{"v":1,"decision":"%s","verdict":"approve","note":""}x',
    b'[{"v":1,"decision":"%s","verdict":"approve","note":""}]',
    b'\xef\xbb\xbf{"v":1,"decision":"%s","verdict":"approve","note":""}',
    b"",
]


def test_both_read_the_same_in_what_a_person_said() -> None:
    counted, longest = 0, BODIES[0].replace(b"%s", bytes(64)).ljust(4096)
    for body in (*BODIES, longest.replace(bytes(64), b"%s"), longest.replace(bytes(64), b"%s") + b" "):
        world = approval_world()
        approval = Approval(world=world)
        approval.put("D")
        approval.body = body.replace(b"%s", leaf(approval))
        approval.put("A R")
        counted += judged(world) == []
        approval = Approval(world=world)
        approval.put("D")
        approval.body = body.replace(b"%s", leaf(approval).upper())
        approval.put("A R")
        assert (f"#{world.sequence}", "bad_approval") in judged(world)
    assert counted == 6


def leaf(approval: Approval) -> bytes:
    return leaf_of(approval.made["D"]).hex().encode()


GOOD = {"type": "approval", "queue": "managers", "text": "Pay ACME", "until": 3600}
MEMBERS: dict[str, list[object]] = {
    "type": ["approval", "Approval", "", None, 1, ["approval"]],
    "queue": ["m", "m" * 64, "m" * 65, "", "a.b", "\u00e4", 1, None, "id-1"],
    "text": ["x" * 256, "x" * 257, "\u00e4" * 128, "\u00e4" * 129, "", "\n", 1, None],
    "until": [1, 0, -1, 2_592_000, 2_592_001, 3600.0, True, "3600", None, 10**400],
    "count": [1, 0, 2, True, 1.0, None, "1"],
    "acr": [[], ["urn:x:2"], ["urn:x:2", "b"], ["a b"], [""], "urn:x:2", None, [1], ["x" * 250], ["x" * 257], ["\\"]],
    "max_age": [300, 0, 31_536_000, 31_536_001, -1, None, 300.0, False, "300"],
    "follows": [[], ["a.b"], ["a.*"], ["*"], [""], "a.b", None, [1], ["a" * 256], ["a" * 257]],
    "body": [True, False, None, 0, "false"],
    "more": [True],
}


def test_both_read_the_same_in_what_was_asked_for() -> None:
    counted = 0
    asked: list[bytes] = [compact([{**GOOD, name: value}]) for name, values in MEMBERS.items() for value in values]
    asked += [compact([{key: value for key, value in GOOD.items() if key != name}]) for name in GOOD]
    good = compact(GOOD)
    asked += [
        b"[%b]" % good, b"[%b,%b]" % (good, good), b'[{"type":"show_reasons"},%b]' % good, good, b"[[%b]]" % good,
        b"[1,%b]" % good, b"[%b,1]" % good,
        b'[%b],"obl":[]' % good, b'[%b],"obligations":[]' % good, b'[%b],"more":[]' % good,
        b"[%b" % good, b"[%b]]" % good, b" [ %b ] " % good, b"[" * 32 + b"]" * 32, b"[" * 33 + b"]" * 33,
        good.replace(b"approval", b"\\u0061pproval").join((b"[", b"]")), b"[%b]" % good.replace(b'"until"', b'"un\\u0074il"'),
        b"[%b]" % good.replace(b'"until"', b'"until":1,"until"'), b"[%b]" % good.replace(b"3600", b"NaN"),
        b"[%b]" % good.replace(b"3600", b"36e2"), b"[%b]" % good.replace(b"Pay ACME", b"\\ud800"),
        b'[{"type":"other","a":%b},%b]' % (b"[" * 29 + b"]" * 29, good),
        b'[%b,{"type":"approvals"},{"type":"Approval"},{"type":"approva"}]' % good,
        compact([{**GOOD, **{name: values[0] for name, values in MEMBERS.items() if name != "more"}}]),
        b'[{"type":"other","a":%b},%b]' % (b"[" * 30 + b"]" * 30, good),
        b'[{"type":"other","a":%b},%b]' % (b"[" * 31 + b"]" * 31, good),
    ]  # fmt: skip
    for obl in asked:
        world = approval_world()
        try:
            follows = independent.asked_approval(obl).get("follows", [])
        except independent.Bad:
            follows = []
        Approval(world=world, denial={"obl": obl}, verdict_fields={"grt": follows}).put()
        counted += judged(world) == []
    assert counted == 29


ENTRIES: dict[str, list[object]] = {
    "verdict": ["approve", "deny", "withdraw", "view", "", None, 1],
    "user": ["boss", "\ud800", "x" * 257, None, 1, ""],
    "acr": ["urn:x:2", None, [], "\x00"],
    "auth_time": [0, None, True, -1, 1.0, "0", 2**53 - 1, 2**53, 10**400],
    "time": ["", None, 1_764_000_000],
    "message": ["", None, "00" * 32, "0" * 63, "g" * 64],
    "record": ["", None, "00" * 32, "A" * 64],
    "more": [""],
}


def test_both_read_the_same_in_what_a_decision_rests_on() -> None:
    for name, values in ENTRIES.items():
        for value in values:
            world = approval_world()
            Approval(world=world, entry={name: value}).put()
            good = (name, value) in (("verdict", "approve"), ("user", "boss"), ("acr", "urn:x:2"))
            assert (judged(world) == []) is good, (name, value)
    for name in ("verdict", "user", "auth_time", "record"):
        world = approval_world()
        approval = Approval(world=world)
        approval.put("D A")
        approval.entries = [{key: value for key, value in approval.one().items() if key != name}]
        approval.put("R")
        assert judged(world) == [(f"#{world.sequence}", "bad_approval")]


PIECES = [
    b"{", b"}", b"[", b"]", b'"context"', b'"approvals"', b'"\\u0061pprovals"', b'"approvals":[]', b":", b",", b"[]", b"null",
    b'"x"', b"1", b"1.5", b" ", b'\\"', b"\xff", b'"', b"\\u",
    b'{"context":{"approvals":[]}}', b'{"context":{"approvals":[ ]}}',
]  # fmt: skip


def test_both_read_the_same_in_documents_that_are_hardly_any() -> None:
    rng, told = random.Random(4), 0  # noqa: S311  a run that can be made again
    world = approval_world()
    made: list[bytes] = []
    for _ in range(300):
        document = b"".join(rng.choices(PIECES, k=rng.randint(1, 9)))
        if rng.random() < 0.3:
            document = b'{"context":{"approvals":[]%b}}' % document
        made.append(document)
        Approval(world=world, user=None, document=document).put("R")
    findings = judged(world)
    told = len(findings)
    assert {code for _, code in findings} == {"bad_approval"}
    assert 30 < told < 270
    for _, one in zip(range(100), made, strict=False):
        assert (independent_refuses(one)) == (f"#{2 + made.index(one)}" in {place for place, _ in findings})


def independent_refuses(document: bytes) -> bool:
    try:
        return independent.given_approvals(document) != []
    except independent.Bad:
        return True


def test_what_is_nearly_right() -> None:
    world = approval_world()
    Approval(world=world).put()
    asked, said, used = facts_in(world)
    assert isinstance(asked, ApprovalAsked)
    assert isinstance(said, ApprovalSaid)
    assert isinstance(used, ApprovalUsed)
    [entry] = used.entries

    def told(*facts: ApprovalFact) -> list[str]:
        return [one.code for one in ApprovalChains().take_facts(facts)]

    assert told(asked, said, used) == []
    wrong = ["bad_approval"]
    for other in near(SpiffeId(INVENTORY)):
        assert told(asked._replace(recorder=other.value), said, used) == wrong
        assert told(asked, said._replace(recorder=other.value), used) == wrong
        assert told(asked._replace(recorder=other.value), said._replace(recorder=other.value), used) == wrong
        assert told(asked, said, used._replace(recorder=other.value)) == wrong
    assert told(asked._replace(leaf=nearly(asked.leaf)), said, used) == wrong
    assert told(asked._replace(message=nearly(asked.message)), said, used) == wrong
    assert told(asked, said._replace(leaf=nearly(said.leaf)), used) == wrong
    assert told(asked, said._replace(message=nearly(said.message)), used) == wrong
    assert told(asked, said._replace(about=nearly(asked.message)), used) == wrong
    other_task = nearly(used.message)
    assert told(asked, said, used._replace(message=other_task)) == wrong
    assert told(asked._replace(message=other_task), said._replace(about=other_task), used) == wrong
    # Of nearly the same name, each record counts.
    first = asked._replace(leaf=nearly(asked.leaf), obligations=b"[]"), said._replace(leaf=nearly(said.leaf), body=b"")
    assert told(*first, asked, said, used) == []
    for name in ("user", "idp", "session", "client", "acr", "time"):
        text = getattr(entry, name)
        for bent in (f"{text}x", text[:-1], text.swapcase()):
            change: dict[str, Any] = {name: bent}
            changed = used._replace(entries=(entry._replace(**change),))
            assert told(asked, said, changed) == (wrong if bent != text else [])
    idp = "https://idp.example"
    assert told(asked, said, used._replace(requester=(idp, "boss"))) == wrong
    for bent in ("bos", "bosss", "Boss"):
        assert told(asked, said, used._replace(requester=(idp, bent))) == []
    strong = json.loads(asked.obligations)[0] | {"acr": ["urn:x:2"]}
    for bent in ("urn:x:", "urn:x:22", "URN:X:2"):
        weak = said._replace(acr=bent), used._replace(entries=(entry._replace(acr=bent),))
        assert told(asked, *weak) == []
        assert told(asked._replace(obligations=compact([strong])), *weak) == wrong


def facts_in(world: World) -> list[ApprovalFact]:
    root, frames = root_of(world), [ReadFrame(EntryKind(one.kind), *one[1:]) for one in world.frames]
    trust = TrustReader(root)
    for index, frame in enumerate(frames):
        trust.take(frame, index)
    reader = EntryReader(root, trust.archive)
    for frame in frames:
        reader.read(frame)
    return reader.approvals


def decisions_in(world: World) -> tuple[independent.Root, list[tuple[bytes, independent.Decided]]]:
    """Return the decisions of a log as the independent verifier keeps them."""
    root, report = independent.read_root(json.dumps(world.root()).encode()), independent.Report()
    frames = [independent.Frame(*one) for one in world.frames]
    bundles, found = independent.collect_bundles(frames, root, report), dict[bytes, independent.Decided]()
    for index, frame in enumerate(frames):
        independent.check_entry(index, frame, bundles, root, [], set(), found, independent.Grants(), report)
    assert not report.findings
    return root, list(found.items())


def test_what_is_nearly_right_to_the_independent_one() -> None:
    world = approval_world()
    approval = Approval(world=world, asked={**GOOD, "acr": ["urn:x:2"], "max_age": 10})
    approval.put()
    root, [(denial, asked), (verdict, said), (_, used)] = decisions_in(world)

    def counts(
        *, by: independent.Decided = asked, of: independent.Decided = said, on: independent.Decided = used
    ) -> bool:
        try:
            independent.check_approvals(on, {denial: by, verdict: of}, root)
        except independent.Bad:
            return False
        return True

    def bent(one: independent.Decided, **changes: object) -> independent.Decided:
        return one._replace(record={**one.record, **changes})

    def headed(**changes: object) -> independent.Decided:
        return said._replace(header={**said.header, **changes})

    def resting(**changes: object) -> independent.Decided:
        return bent(used, inp=compact({"context": {"approvals": [{**approval.one(), **changes}]}}))

    assert counts()
    for other in near(SpiffeId(INVENTORY)):
        assert not counts(by=asked._replace(recorder=other.value))
        assert not counts(of=said._replace(recorder=other.value))
        assert not counts(on=used._replace(recorder=other.value))
    assert not counts(of=headed(re=nearly(asked.message)))
    assert not counts(by=asked._replace(place=said.place))
    for name, text in (("to", said.header["to"]), ("t", "task"), ("typ", said.header["typ"])):
        for other_text in (f"{text}s", text[:-1], text.upper()):
            assert not counts(of=headed(**{name: other_text}))
    for text in ("inventory._approv", "inventory._approves", "Inventory._approve"):
        assert not counts(of=bent(said, act=text))
    for text in ("denie", "deniedly", "Denied"):
        assert not counts(by=bent(asked, cod=text))
    one = approval.one()
    for name in ("user", "idp", "session", "client", "acr", "time", "message", "record"):
        for text in (f"{one[name]}x", one[name][:-1], one[name].swapcase(), f"{one[name][:-1]}0"):
            assert counts(on=resting(**{name: text})) == (text == one[name])
    for text in ("urn:x:", "urn:x:22", "URN:X:2"):
        weak = said._replace(context={**(said.context or {}), "acr": text})
        assert not counts(of=weak, on=resting(acr=text))
    for text in ("bos", "bosss", "Boss"):
        assert counts(on=used._replace(context={**(used.context or {}), "sub": text}))
    assert not counts(on=used._replace(context={**(used.context or {}), "sub": "boss"}))


BENT: dict[str, list[object]] = {
    "asked": [
        GOOD,
        {**GOOD, "acr": ["urn:x:2"]},
        {**GOOD, "max_age": 10},
        {**GOOD, "follows": ["a.b"]},
        {"type": "other"},
    ],
    "user": [{"sub": "u-1"}, {"sub": "boss"}, {"sub": "boss", "idp": "https://other.example"}, None],
    "login": [None, 10 * SECOND, 10 * SECOND + 1, 0],
    "person": [{"sub": "boss", "acr": "urn:x:2"}, {"sub": "boss"}, {"sub": "boss", "typ": "client"}, None],
    "verdict_fields": [{}, {"grt": ["a.b"]}, {"grt": None}, {"re": None}, {"to": "control.inventory.cancel"}],
    "said": [{}, {"verdict": "deny"}, {"verdict": "withdraw"}, {"note": "for ACME"}],
    "verdict": [{}, {"bdy": None}, {"act": "inventory.approve"}, {"alw": False, "cod": "denied"}, {"dlv": 2}],
    "entry": [{}, {"verdict": "deny"}, {"acr": ""}, {"session": "s-2"}, {"auth_time": 0}],
    "denial": [{}, {"dlv": 2}, {"obl": None}, {"alw": True, "cod": None}],
    "allowed": [{}, {"red": ["/context"]}, {"red": ["/a"]}, {"alw": False, "cod": "denied"}],
    "wait": [0, 3600 * SECOND, 3700 * SECOND],
}


def test_both_say_the_same_of_whatever_is_bent_at_once() -> None:
    rng, good = random.Random(7), 0  # noqa: S311  a run that can be made again
    for _ in range(200):
        changes: dict[str, Any] = {name: BENT[name][0] for name in ("user", "person", "login")}
        changes |= {name: rng.choice(BENT[name]) for name in rng.sample(list(BENT), rng.randint(0, 3))}
        world = approval_world()
        Approval(world=world, **changes).put(rng.choice(["D A R", "D A R", "DAR", "A D R"]))
        good += judged(world) == []
    assert 20 < good < 180
