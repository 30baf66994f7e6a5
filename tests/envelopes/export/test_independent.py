"""The independent verifier, part by part: what the vectors of the archive say, it says as well, and what ours say."""

from __future__ import annotations

import json
from collections.abc import Mapping
from hashlib import sha256
from io import BytesIO
from random import Random

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from independent import verify_export as independent
from support.both_readers import agreed
from support.envelopes import private_key
from support.kept_log import root_of as log_root
from support.log_world import Frame, LogKey, World, encode_frame, files_of, note, root_document
from support.vectors import Given, load, octets
from vectors.issuing import INVENTORY, Json

from sealbus.envelopes.errors import ConfigurationError, EnvelopeError, LogError
from sealbus.envelopes.export.format import read_frames
from sealbus.envelopes.export.trust_root import Root
from sealbus.envelopes.log.tiles import TileName
from sealbus.envelopes.trust.keys import PublicKey
from sealbus.envelopes.trust.merkle import path, root, root_of_path
from sealbus.envelopes.trust.names import Names
from sealbus.envelopes.trust.spiffe_id import SpiffeId, TrustDomain

WORLD = load("world.json")


def given_of(case: Given) -> Given:
    return {**WORLD["defaults"][case["profile"]], **case.get("given", {})}


def root_of(given: Given) -> independent.Root:
    """Return the root file of the deployment that a case plays in; the log's own part of it is asked by nobody here."""
    return independent.Root(
        origin="log",
        keys=(),
        bundles=frozenset(),
        checkpoints=(),
        trust_domain=given["trust_domain"],
        template=given["template"],
        table=given["table"],
        minters=frozenset(given.get("minters", ())),
        notaries=frozenset(),
    )


def bundles_of(given: Given) -> independent.Bundles:
    found = independent.Bundles()
    for domain, jwks in WORLD["bundles"][given["bundles"]].items():
        found.add(domain, 0, independent.read_bundle(jwks.encode()))
    return found


def opened(case: Given) -> independent.Audit:
    given = given_of(case)
    audit = independent.open_record(octets(case["payload"]), given["time"], bundles_of(given), root_of(given))
    independent.need(audit.header["to"] == given["subject"], "wrong_subject")
    return audit


def judged(case: Given) -> independent.Audit:
    audit, given = opened(case), given_of(case)
    if case["profile"] == "decided":
        record = audit.records[bytes.fromhex(given["record"])]
        if "body" in given:
            header = independent.read_header(record["hdr"])
            independent.need(independent.H(bytes.fromhex(given["body"])) == header["dig"], "bad_digest")
        independent.check_decided(record, audit, given["time"], bundles_of(given), root_of(given))
    return audit


@pytest.mark.parametrize("case", load("accept_archive.json"), ids=lambda case: case["name"])
def test_what_the_archive_takes(case: Given) -> None:
    audit = judged(case)
    if case["profile"] == "archive":
        assert [leaf.hex() for leaf in audit.records] == [record["leaf"] for record in case["expect"]["records"]]


@pytest.mark.parametrize("case", load("reject_archive.json"), ids=lambda case: case["name"])
def test_what_the_archive_refuses(case: Given) -> None:
    with pytest.raises(independent.Bad):
        judged(case)


ORDER = independent.ORDER
LEAVES = [sha256(bytes([number])).digest() for number in range(7)]


def root_by_path(leaf: bytes, size: int, index: int, nodes: list[bytes]) -> bytes:
    found = agreed(
        lambda: root_of_path(leaf, size, index, nodes), lambda: independent.root_by_path(leaf, size, index, nodes)
    )
    assert independent.root_by_path(leaf, size, index, nodes) == found
    return found


def test_a_path_has_the_length_that_its_place_demands() -> None:
    for size in range(1, 8):
        for index in range(size):
            nodes = list(path(LEAVES[:size], index))
            assert root_by_path(LEAVES[index], size, index, nodes) == root(LEAVES[:size])
            for other in ([*nodes, bytes(32)], nodes[1:] if nodes else [bytes(32)]):
                with pytest.raises(EnvelopeError):
                    root_by_path(LEAVES[index], size, index, other)
        with pytest.raises(EnvelopeError):
            root_by_path(LEAVES[0], size, size, list(path(LEAVES[:size], size - 1)))


def signature_with(s: int) -> tuple[bytes, bytes]:
    """Return a key and its signature over b"m" that has this `s`: the key is chosen so, d = (s k - e) / r."""
    nonce = private_key("nonce")
    r = nonce.public_key().public_numbers().x % ORDER
    digest = int.from_bytes(sha256(b"m").digest(), "big")
    secret = pow(r, -1, ORDER) * (s * nonce.private_numbers().private_value - digest) % ORDER
    numbers = ec.derive_private_key(secret, ec.SECP256R1()).public_key().public_numbers()
    key = numbers.x.to_bytes(32, "big") + numbers.y.to_bytes(32, "big")
    return key, r.to_bytes(32, "big") + s.to_bytes(32, "big")


def test_low_s_is_from_1_to_half_the_order() -> None:
    half = (ORDER - 1) // 2
    for s in (1, 2, half - 1, half):
        key, signature = signature_with(s)
        PublicKey(key).verify(b"m", signature)
        assert independent.es256(key, signature, b"m")
    for s in (half + 1, ORDER - 1):
        assert not independent.es256(*signature_with(s), b"m")


JWK = (
    '{"kty":"EC","crv":"P-256","kid":"KID","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",'
    '"y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}'
)


def kept(*known: tuple[str, int]) -> independent.Bundles:
    """Return bundles of one key each, with the times from which they count."""
    found = independent.Bundles()
    for kid, since in known:
        found.add("example.org", since, independent.read_bundle(f'{{"keys":[{JWK.replace("KID", kid)}]}}'.encode()))
    return found


def finds(bundles: independent.Bundles, kid: str, time: int) -> bool:
    try:
        bundles.find("example.org", kid, time)
    except independent.Bad:
        return False
    return True


def test_a_bundle_counts_from_its_time_and_a_minute_beyond_its_end() -> None:
    minute = 60_000_000
    bundles = kept(("a", 0), ("b", minute), ("c", 3 * minute))
    assert all(finds(bundles, kid, minute) for kid in "abc")
    assert finds(bundles, "a", 2 * minute - 1)
    assert not finds(bundles, "a", 2 * minute)
    assert not finds(bundles, "a", 3 * minute)
    assert finds(bundles, "b", 3 * minute)
    assert finds(bundles, "b", 4 * minute - 1)
    assert not finds(bundles, "b", 4 * minute)
    for time, kid in ((0, "a"), (minute - 1, "a"), (minute, "b"), (3 * minute - 1, "b"), (3 * minute, "c")):
        now = bundles.current(time)
        assert [one for one in "abc" if finds(now, one, time)] == [kid]


def test_names_are_those_that_our_reader_finds() -> None:
    table = {
        "stock": "spiffe://example.org/ns/Prod/inventory",
        "Price": "spiffe://example.org/elsewhere/pricing",
        "third": "spiffe://other.org/ns/Prod/third",
    }
    names = Names(
        TrustDomain("example.org"), "/ns/Prod/{name}/v1", {name: SpiffeId(one) for name, one in table.items()}
    )
    independent_root = root_with(names.template, table)
    paths = [one.split("/", 3)[3] for one in table.values()]
    paths += [f"{one}x" for one in paths] + [one[:-1] for one in paths] + [one.upper() for one in paths]
    paths += [
        f"{start}{name}{end}"
        for start in ("ns/Prod/", "ns/prod/", "NS/Prod/", "ns/Pro/", "ns/Prod/x/")
        for name in [
            "a",
            "stock",
            "Stock",
            "stocks",
            "stoc",
            "Price",
            "price",
            "third",
            "id-a",
            "ID-a",
            "Id-a",
            "idx",
            "a.b",
        ]
        for end in ("/v1", "/V1", "", "/v", "/v1x")
    ]
    for domain in ("example.org", "other.org", "example.orgs"):
        for one in paths:
            spiffe_id = f"spiffe://{domain}/{one}"
            assert independent_root.token(spiffe_id) == names.token(SpiffeId(spiffe_id)), spiffe_id


def root_with(template: str, table: Mapping[str, str]) -> independent.Root:
    return independent.Root(
        origin="log", keys=(), bundles=frozenset(), checkpoints=(), trust_domain="example.org", template=template,
        table=table, minters=frozenset(), notaries=frozenset(),
    )  # fmt: skip


DOCUMENT = root_document([LogKey("log 0"), LogKey("log 1"), LogKey("log 2")], [bytes(32), bytes([1]) * 32])


def read_root(**changes: Json) -> independent.Root:
    """Read a root file with both; the independent one's command takes a `ValueError` for a refusal as well."""
    document = json.dumps(DOCUMENT | changes).encode()
    agreed(lambda: Root.parse(document), lambda: _strictly(document))
    return independent.read_root(document)


def _strictly(document: bytes) -> independent.Root:
    try:
        return independent.read_root(document)
    except ValueError as error:
        raise independent.Bad("bad_root") from error


@pytest.mark.parametrize("name", ["keys", "bundles", "checkpoints", "minters", "notaries"])
@pytest.mark.parametrize("place", range(3))
def test_a_root_file_with_something_else_among_its_texts(name: str, place: int) -> None:
    held = [note(size, bytes(32), [LogKey("log 0")]).decode() for size in (1, 2)]
    texts: dict[str, list[Json]] = {
        "keys": [LogKey(f"log {number}").vkey for number in range(2)],
        "bundles": [(bytes([number]) * 32).hex() for number in range(2)],
        "checkpoints": [*held],
        "minters": [INVENTORY, f"{INVENTORY}2"],
        "notaries": [INVENTORY, f"{INVENTORY}2"],
    }
    read_root(**{name: texts[name]})
    mixed = [*texts[name][:place], 1, *texts[name][place:]]
    with pytest.raises(ConfigurationError):
        read_root(**{name: mixed})
    with pytest.raises(independent.Bad):
        independent.read_root(json.dumps(DOCUMENT | {name: mixed}).encode())
    with pytest.raises(independent.Bad):
        independent.read_root(json.dumps(DOCUMENT | {name: {"a": 1}}).encode())


def test_a_key_of_the_log_in_another_spelling() -> None:
    name, identifier, encoded = LogKey("log 0").vkey.split("+", 2)
    assert read_root(keys=[f"{name}+{identifier}+{encoded}"]).keys
    for other in (
        f"{name}+{identifier.upper()}+{encoded}",
        f"{name}+{identifier[:6]}+{encoded}",
        f"{name}+{identifier}00+{encoded}",
        f"{name}+{identifier}+{encoded}=",
    ):
        with pytest.raises(ConfigurationError):
            read_root(keys=[other])


def test_base64_has_one_spelling() -> None:
    assert independent.canonical64("AAAA") == bytes(3)
    for text in ("AAAA=", "AAB=", "AB==", "AA", "AAA A"):
        with pytest.raises(independent.Bad):
            independent.canonical64(text)


def test_paths_of_tiles() -> None:
    for number in (0, 1, 999, 1000, 1001, 999_999, 1_000_000, 1_234_067):
        assert f"tile/0/{independent.tile_name(number)}" == TileName(0, number, 256).path


def test_frames_are_as_large_as_may_be() -> None:
    top = 2**53 - 1
    good = [Frame(0, top, 5, b""), Frame(0, 5, top, b"x"), Frame(4, 0, 0, b"")]
    for frame in good:
        [ours] = read_frames(BytesIO(encode_frame(frame)).read)
        assert [tuple(ours)] == [tuple(one) for one in independent.read_frames(encode_frame(frame))] == [tuple(frame)]
    for frame in (Frame(0, top + 1, 5, b""), Frame(0, 5, top + 1, b""), Frame(7, 1, 5, b"")):
        data = encode_frame(frame)
        with pytest.raises(LogError):
            list(read_frames(BytesIO(data).read))
        with pytest.raises(independent.Bad):
            list(independent.read_frames(data))


def test_no_more_frames_are_read_than_there_are_entries() -> None:
    frames = [Frame(0, number, 5, b"") for number in (1, 2, 3)]
    report = independent.Report()
    data = b"".join(map(encode_frame, frames))
    found = independent.tile_frames({"messages/000": data}, "messages/000", 2, report)
    assert [tuple(one or ()) for one in found] == [tuple(one) for one in frames[:2]]
    assert [(place, code) for place, code, _ in report.findings] == [("messages/000", "bad_entry")]


@pytest.mark.parametrize(("count", "fits"), [(0, False), (1, True), (2**53 - 1, True), (2**53, False)])
def test_a_gap_has_a_size(count: int, fits: bool) -> None:
    report = independent.Report()
    frame, known = independent.Frame(2, 1, 5, count.to_bytes(8, "big")), root_of(WORLD["defaults"]["archive"])
    independent.check_order([frame], known, report, complete=False)
    assert (not report.findings) is fits


@pytest.mark.parametrize(("behind", "code"), [(0, "lost_records"), (1, "bad_entry")])
def test_what_the_restored_stream_holds_is_not_lost_by_it(behind: int, code: str) -> None:
    made = World(Random(3))  # noqa: S311  a log that can be made again
    made.creation()
    made.record_bundle("k0")
    lost = Frame(6, made.sequence + 1, 0, bytes(32))
    files = files_of([*made.frames, lost, made.restoration(made.sequence + behind)], made.keys)
    known = independent.read_root(log_root(made).encode())
    assert {found for _, found, _ in independent.verify(files, known).findings} == {code}


def test_a_restoration_is_of_this_log_and_says_so() -> None:
    known = root_of(WORLD["defaults"]["archive"])
    lines = ["sealbus.restored.v1", known.origin, "5", "6", "1", "spiffe://example.org/agent/operator", "7"]
    assert independent.read_restored(lines, known).last == 1
    for at, text in (
        (0, "sealbus.restored.v"), (0, "sealbus.restored.v11"), (0, "Sealbus.restored.v1"), (1, known.origin[:-1]),
        (1, f"{known.origin}x"), (1, known.origin.upper()), (4, str(2**53)), (5, "operator"),
    ):  # fmt: skip
        with pytest.raises(independent.Bad):
            independent.read_restored([*lines[:at], text, *lines[at + 1 :]], known)
    assert independent.read_restored([*lines[:4], str(2**53 - 1), *lines[5:]], known).last == 2**53 - 1


def test_a_restoration_of_streams_names_from_one_to_64_of_them() -> None:
    known = root_of(WORLD["defaults"]["archive"])
    first = ["sealbus.restored.v2", known.origin, "5", "6", "1", "spiffe://example.org/agent/operator", "7", "0" * 64]
    rows = [f"S{number:02} 1 2 3" for number in range(65)]
    for count in (1, 64):
        assert len(independent.read_restored([*first, *rows[:count]], known).streams) == count
    others = [
        [name, *first[1:], *rows[:1]] for name in ("sealbus.Restored.v2", "sealbus.restored.v22", "sealbus.restored.v")
    ]
    for lines in ([*first], [*first, *rows], *others):
        with pytest.raises(independent.Bad):
            independent.read_restored(lines, known)


@pytest.mark.parametrize("size", [1, 8192, 8193])
def test_a_previous_checkpoint_has_a_size(size: int) -> None:
    report = independent.Report()
    frame = independent.Frame(4, 0, 5, bytes(size))
    root, grants = root_with("/{name}", {}), independent.Grants()
    independent.check_entry(1, frame, independent.Bundles(), root, [], set(), {}, grants, report)
    assert bool(report.findings) == (size > 8192)
