"""Witness policies: their text, what is refused, and which witnesses together are the quorum."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import replace
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.cosigners import ML_DSA_44, Cosigner, policy_text
from support.log_world import LogKey

from sealbus.envelopes.errors import Code, LogError
from sealbus.envelopes.limits import DEFAULT_LIMITS
from sealbus.envelopes.log.cosignature import CosignatureSigner, CosignatureType, CosignatureVerifier
from sealbus.envelopes.log.note import NoteVerifier
from sealbus.envelopes.log.witness_policy import PolicyGroup, PolicyLog, PolicyWitness, WitnessPolicy

LOG = LogKey("log 0")
MANY = [Cosigner(f"w{number}") for number in range(DEFAULT_LIMITS.witness_policy_lines + 1)]
ONE, TWO, THREE = MANY[:3]
NESTED = (
    "group X 2 w0 w1 w2",
    "group Y any w3 w4",
    "group both all X Y",
    "quorum both",
)


def policy(*rows: str, witnesses: int = 3) -> WitnessPolicy:
    return WitnessPolicy.parse(policy_text([LOG], MANY[:witnesses], *rows).encode())


def test_what_it_says() -> None:
    text = (
        "# ours\n\n \t \n"
        f"  log {LOG.vkey}\thttps://log.example/\n"
        f"witness first\t \t{ONE.vkey}  https://w.example/add \n"
        "\t# theirs: \u00e9\n"
        f"witness \u212a {Cosigner('pq', ML_DSA_44).vkey}\n"
        "group g any first\n"
        "quorum g\n"
        "group later 01 x\n"
    )
    with pytest.raises(LogError, match="line 10: "):
        WitnessPolicy.parse(text.encode())
    parsed = WitnessPolicy.parse(text.replace("group later 01 x\n", "group later all \u212a\n").encode())
    assert parsed == WitnessPolicy(
        logs=(PolicyLog(NoteVerifier.parse(LOG.vkey), "https://log.example/"),),
        witnesses=(
            PolicyWitness("first", CosignatureVerifier.parse(ONE.vkey), "https://w.example/add"),
            PolicyWitness("\u212a", CosignatureVerifier.parse(Cosigner("pq", ML_DSA_44).vkey)),
        ),
        groups=(PolicyGroup("g", 1, ("first",)), PolicyGroup("later", 1, ("\u212a",))),
        quorum="g",
    )
    assert WitnessPolicy.parse(parsed.text.encode()) == parsed


@pytest.mark.parametrize(
    ("rows", "enough", "missing"),
    [
        (("quorum none",), [""], []),
        (("quorum w0",), ["w0", "w0 w1 w2"], ["", "w1 w2", "w00", "none"]),
        (("group g any w0 w1", "quorum g"), ["w0", "w1"], ["", "w2", "g"]),
        (("group g all w0 w1", "quorum g"), ["w0 w1", "w0 w1 w2"], ["w0", "w1", "w0 w2", "g"]),
        (("group g 2 w0 w1 w2", "quorum g"), ["w0 w1", "w1 w2", "w0 w1 w2"], ["w0", "", "w0 g"]),
        (("group g any w0", "quorum w1"), ["w1"], ["w0"]),
    ],
)
def test_quorum(rows: tuple[str, ...], enough: list[str], missing: list[str]) -> None:
    parsed = policy(*rows)
    assert [parsed.has_quorum(names.split()) for names in enough] == [True] * len(enough)
    assert [parsed.has_quorum(names.split()) for names in missing] == [False] * len(missing)


def test_names_are_compared_whole() -> None:
    """Of a name that is another's beginning, or in another case."""
    rows = [f"witness {name} {witness.vkey}" for name, witness in zip(("a", "A", "ab"), MANY[:3], strict=True)]

    def of(*further: str) -> WitnessPolicy:
        return WitnessPolicy.parse("".join(f"{row}\n" for row in (*rows, *further)).encode())

    for quorum in ("a", "A", "ab"):
        parsed = of(f"quorum {quorum}")
        assert [name for name in ("a", "A", "ab", "abc", "AB") if parsed.has_quorum([name])] == [quorum]
    parsed = of("group g any a", "group gh any A", "quorum g")
    assert (parsed.has_quorum(["a"]), parsed.has_quorum(["A"]), parsed.has_quorum(["ab"])) == (True, False, False)
    for name in ("aB", "abc", "AB", "b"):
        for members in (f"{name} a", f"a {name}", f"a {name} A"):
            with pytest.raises(LogError):
                of(f"group g any {members}", "quorum a")
        with pytest.raises(LogError):
            of(f"quorum {name}")


@pytest.mark.parametrize("character", ["\x00", "\x08", "\x0b", "\x0c", "\r", "\x1f", "\x7f"])
def test_control_characters_not_even_in_comments(character: str) -> None:
    for comment in (f"{character}# x", f"#{character} x", f"# x{character}"):
        with pytest.raises(LogError, match="control character"):
            policy(comment, "quorum w0")


def test_what_is_just_not_too_long() -> None:
    name, url = "\u00e9" * 128, "https://" + "a" * 2_040
    parsed = policy(f"witness {name} {MANY[9].vkey} {url}", f"quorum {name}")
    assert parsed.witnesses[-1] == PolicyWitness(name, CosignatureVerifier.parse(MANY[9].vkey), url)
    filled = policy_text([LOG], [ONE], "quorum w0").encode()
    filled = b"#" * (DEFAULT_LIMITS.witness_policy_bytes - len(filled) - 1) + b"\n" + filled
    assert WitnessPolicy.parse(filled).quorum == "w0"
    with pytest.raises(LogError, match="too large"):
        WitnessPolicy.parse(b"#" + filled)


def test_a_quorum_of_groups() -> None:
    parsed = policy(*NESTED, witnesses=5)
    assert parsed.has_quorum(["w0", "w2", "w4"])
    assert not parsed.has_quorum(["w0", "w1", "w2"])
    assert not parsed.has_quorum(["w0", "w3", "w4"])
    assert not parsed.has_quorum(["X", "Y", "both"])


@pytest.mark.parametrize(
    "rows",
    [
        (),
        ("quorum none", "quorum none"),
        ("quorum",),
        ("quorum none w0",),
        ("quorum nobody",),
        ("quorum g", "group g any w0"),
        ("group g any", "quorum w0"),
        ("group g", "quorum w0"),
        ("group g all", "quorum w0"),
        ("group g 0 w0", "quorum w0"),
        ("group g 2 w0", "quorum w0"),
        ("group g 01 w0", "quorum w0"),
        ("group g +1 w0", "quorum w0"),
        ("group g \u0661 w0", "quorum w0"),
        ("group g none w0", "quorum w0"),
        ("group g w0", "quorum w0"),
        ("group g any none", "quorum w0"),
        ("group g any w0 w0", "quorum w0"),
        ("group g any w0", "group h any w0", "quorum w0"),
        ("group g any g", "quorum w0"),
        ("group g any h", "group h any g", "quorum w0"),
        ("group g any h", "group h any w0", "quorum w0"),
        ("group none any w0", "quorum none"),
        ("group w0 any w1", "quorum w0"),
        ("group g any w0", "group g any w1", "quorum g"),
        (f"group {'g' * 257} any w0", "quorum w0"),
        ("group " + "\u00e9" * 129 + " any w0", "quorum w0"),
        ("log no-key", "quorum w0"),
        ("log", "quorum w0"),
        (f"log {LogKey('other').vkey} a b", "quorum w0"),
        (f"log {LogKey('other').vkey} {'a' * 2_049}", "quorum w0"),
        (f"log {LOG.vkey}", "quorum w0"),
        (f"log {Cosigner('other').vkey}", "quorum w0"),
        ("witness w9", "quorum w0"),
        ("witness w9 no-key", "quorum w0"),
        (f"witness w9 {MANY[9].vkey} a b", "quorum w0"),
        (f"witness w9 {MANY[9].vkey} {'a' * 2_049}", "quorum w0"),
        (f"witness w0 {MANY[9].vkey}", "quorum w0"),
        (f"witness none {MANY[9].vkey}", "quorum none"),
        (f"witness w9 {ONE.vkey}", "quorum w0"),
        (f"witness w9 {LogKey('other').vkey}", "quorum w0"),
        (f"Witness w9 {MANY[9].vkey}", "quorum w0"),
        ("more", "quorum w0"),
        ("quorum w0\r",),
        ("quorum\x0bw0",),
        ("quorum w0\x7f",),
        ("quorum\u00a0w0",),
    ],
)
def test_what_it_may_not_say(rows: tuple[str, ...]) -> None:
    with pytest.raises(LogError) as raised:
        policy(*rows)
    assert raised.value.code is Code.BAD_NOTE


def test_a_group_may_not_name_a_witness_of_a_later_line() -> None:
    text = policy_text([LOG], [ONE], "group g any late", f"witness late {TWO.vkey}", "quorum g")
    with pytest.raises(LogError, match="line 3: a name in the policy that no earlier line defines"):
        WitnessPolicy.parse(text.encode())


def test_a_key_under_two_names() -> None:
    """Of one owner, who must not count twice; C2SP calls them duplicates."""
    second = CosignatureVerifier.parse(ONE.vkey)
    again = replace(second, name="another.example/witness")
    with pytest.raises(LogError, match="a public key occurs twice"):
        WitnessPolicy((), (PolicyWitness("a", second), PolicyWitness("b", again)), (), "a")


def test_two_keys_of_one_name_and_id() -> None:
    """The 4 bytes of an id collide among 98,500 keys, and a signature line would be by either."""
    seeds = [sha256(b"collision %d" % number).digest() for number in (9_274, 98_500)]
    first, second = (CosignatureSigner("w.example", CosignatureType.ED25519, seed).verifier for seed in seeds)
    assert first.key_id == second.key_id
    with pytest.raises(LogError, match="a key name and id occurs twice"):
        WitnessPolicy((), (PolicyWitness("a", first), PolicyWitness("b", second)), (), "a")


def test_a_log_that_is_its_own_witness() -> None:
    key = NoteVerifier(LOG.name, CosignatureVerifier.parse(ONE.vkey).public)
    with pytest.raises(LogError, match="a public key occurs twice"):
        WitnessPolicy((PolicyLog(key),), (PolicyWitness("w0", CosignatureVerifier.parse(ONE.vkey)),), (), "w0")


@pytest.mark.parametrize("data", [b"quorum none", b"\xff\nquorum none\n", b"", b"#" * 262_143 + b"\nquorum none\n"])
def test_what_is_no_text_of_a_policy(data: bytes) -> None:
    with pytest.raises(LogError) as raised:
        WitnessPolicy.parse(data)
    assert raised.value.code is Code.BAD_NOTE


def test_how_many_of_each() -> None:
    most = DEFAULT_LIMITS.witness_policy_lines
    groups = [f"group g{number} any w{number}" for number in range(most)]
    assert len(policy(*groups, "quorum g31", witnesses=most).groups) == most
    with pytest.raises(LogError, match="too many"):
        policy("quorum w0", witnesses=most + 1)
    with pytest.raises(LogError, match="too many"):
        policy(*groups, "group more all g0", "quorum w0", witnesses=most)
    logs = [LogKey(f"log {number}") for number in range(most + 1)]
    with pytest.raises(LogError, match="too many"):
        WitnessPolicy.parse(policy_text(logs, [ONE], "quorum w0").encode())


def test_values_that_no_text_says() -> None:
    witness = PolicyWitness("w0", CosignatureVerifier.parse(ONE.vkey))
    for name in ("", "a b", "a\n", "\ud800"):
        with pytest.raises(LogError):
            replace(witness, name=name)
        with pytest.raises(LogError):
            PolicyGroup(name, 1, ("w0",))
    with pytest.raises(LogError):
        replace(witness, url="a b")
    with pytest.raises(LogError):
        PolicyLog(NoteVerifier.parse(LOG.vkey), "a\tb")
    with pytest.raises(LogError):
        WitnessPolicy((), (witness,), (PolicyGroup("g", 1, ("h",)), PolicyGroup("h", 1, ("w0",))), "g")
    with pytest.raises(LogError):
        WitnessPolicy((), (witness,), (), "g")


@st.composite
def policies(draw: st.DrawFn) -> WitnessPolicy:
    """Return any policy of up to eight witnesses, whose groups have members that are in no other group."""
    witnesses = MANY[: draw(st.integers(1, 8))]
    free = [one.label for one in witnesses]
    rows = []
    for number in range(draw(st.integers(0, 6))):
        members = draw(st.lists(st.sampled_from(free), min_size=1, unique=True)) if free else []
        if not members:
            break
        word = draw(st.sampled_from(["any", "all", *map(str, range(1, len(members) + 1))]))
        rows.append(f"group g{number} {word} {' '.join(members)}")
        free = [name for name in free if name not in members] + [f"g{number}"]
    names = ["none", *(one.label for one in witnesses), *(row.split()[1] for row in rows)]
    return WitnessPolicy.parse(policy_text([LOG], witnesses, *rows, f"quorum {draw(st.sampled_from(names))}").encode())


@given(policies(), st.sets(st.sampled_from([*(one.label for one in MANY[:9]), "g0", "none"])))
def test_the_quorum_is_what_the_words_say(parsed: WitnessPolicy, cosigners: set[str]) -> None:
    groups = {group.name: group for group in parsed.groups}
    known = {witness.name for witness in parsed.witnesses} & cosigners

    def witnessed(name: str) -> bool:
        if name not in groups:
            return name in known
        return sum(map(witnessed, groups[name].members)) >= groups[name].threshold

    assert parsed.has_quorum(cosigners) == (parsed.quorum == "none" or witnessed(parsed.quorum))
    assert parsed.has_quorum([*cosigners, *known]) == parsed.has_quorum(cosigners)


@given(policies(), st.data())
def test_more_cosigners_are_never_less(parsed: WitnessPolicy, data: st.DataObject) -> None:
    names = [witness.name for witness in parsed.witnesses]
    some = data.draw(st.sets(st.sampled_from(names)))
    assert parsed.has_quorum(some) <= parsed.has_quorum(some | data.draw(st.sets(st.sampled_from(names))))
    assert parsed.has_quorum(names)


@given(policies(), st.sampled_from([" ", "\t", "  ", " \t "]), st.sampled_from(["", "\n", "# x\n"]))
def test_spaces_and_comments_say_nothing(parsed: WitnessPolicy, space: str, between: str) -> None:
    spread = "".join(f"{space}{line.replace(' ', space)}{space}\n{between}" for line in parsed.text.splitlines())
    assert WitnessPolicy.parse(spread.encode()) == parsed


WORDS = [
    "log",
    "witness",
    "group",
    "quorum",
    "none",
    "all",
    "any",
    "1",
    "g",
    "w0",
    "w1",
    "#",
    ONE.vkey,
    TWO.vkey,
    LOG.vkey,
]


@given(st.lists(st.lists(st.one_of(st.sampled_from(WORDS), st.text(max_size=3)), max_size=6), max_size=6))
def test_any_text_is_a_policy_or_refused(rows: list[list[str]]) -> None:
    text = "".join(" ".join(row) + "\n" for row in rows)
    data = text.encode(errors="replace")
    try:
        parsed = WitnessPolicy.parse(data)
    except LogError:
        return
    assert WitnessPolicy.parse(parsed.text.encode()) == parsed


@given(st.binary(max_size=60))
def test_any_bytes_are_a_policy_or_refused(data: bytes) -> None:
    with suppress(LogError):
        WitnessPolicy.parse(data)


def test_the_place_of_a_fault_is_said() -> None:
    with pytest.raises(LogError, match=re.escape("policy: line 2: the key's type")):
        WitnessPolicy.parse(f"\nlog {ONE.vkey}\nquorum none\n".encode())
