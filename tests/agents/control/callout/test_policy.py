"""By what the callout decides before anybody can read the bucket, and that it follows the bucket afterwards."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path
from typing import cast

import pytest
from support.lab import running, until
from support.policies import put, signing_key
from support.settings import changed

from sealbus.agents.control.callout import policy as module
from sealbus.agents.control.callout.policy import (
    CACHE,
    NOT_KNOWN,
    WAITING,
    StartingEngine,
    first_bundle,
    follow_bucket,
)
from sealbus.agents.control.callout.role import OrdinaryConnection
from sealbus.agents.runtime.policy import sync as policy_sync
from sealbus.agents.runtime.policy.store import PolicyStore
from sealbus.agents.runtime.settings.schema import PolicyTable
from sealbus.bus.nats.connection.connection import Connection
from sealbus.bus.telemetry import Counters
from sealbus.envelopes.errors import ConfigurationError, PolicyUnavailable
from sealbus.envelopes.trust.keys import SigningKey, public_pem
from sealbus.envelopes.trust.spiffe_id import SpiffeId
from sealbus.policies.bundle.files import STARTER, build_bundle
from sealbus.policies.bundle.format import Bundle
from sealbus.policies.bundle.in_force import InForce
from sealbus.policies.bundle.signing import sign_bundle
from sealbus.policies.decision.connect import ConnectAnswer, ConnectRequest, connect_document

CONNECTION = cast("Connection", object())


KEY = signing_key()


def signed(folder: Path = STARTER, *, serial: int = 1, revision: str = "", key: SigningKey = KEY) -> Bundle:
    return sign_bundle(build_bundle(folder, serial=serial, revision=revision), key, scope="platform")


@pytest.fixture
def settings(tmp_path: Path) -> PolicyTable:
    (tmp_path / "platform.pub").write_text(public_pem(KEY.public), encoding="ascii")
    return PolicyTable(
        engine="embedded",
        opa=(),
        deadline=1.0,
        bundle="nats://policies",
        cache=tmp_path / "cache",
        keys=(tmp_path / "platform.pub",),
    )


@pytest.fixture
def bootstrap(tmp_path: Path) -> Path:
    put(signed().raw, tmp_path / "bootstrap.tar.gz")
    return tmp_path / "bootstrap.tar.gz"


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    """The part that the callout kept."""
    file = tmp_path / "cache" / CACHE / "parts" / "platform.tar.gz"
    file.parent.mkdir(parents=True)
    put(signed(serial=7).raw, file)
    return file


@pytest.mark.parametrize("engine", ["embedded", "native"])
def test_the_first_time_it_is_what_the_operator_gave(settings: PolicyTable, bootstrap: Path, engine: str) -> None:
    settings = changed(settings, engine=engine)
    first = first_bundle(settings, bootstrap)
    assert first is not None
    assert (first.bundle.raw, first.bootstrap) == (bootstrap.read_bytes(), True)
    put(signed(revision="newer").raw, bootstrap)
    again = first_bundle(settings, bootstrap)
    assert again is not None
    assert again.bundle.revision == "newer"


@pytest.mark.parametrize(
    ("made", "says"),
    [
        (build_bundle(STARTER, serial=1), "the bundle is not signed"),
        (signed(key=signing_key()), "its key may not sign"),
        (sign_bundle(build_bundle(STARTER, serial=1), KEY, scope="stock"), "its scope is not platform"),
        (signed(serial=0), "has no serial"),
    ],
)
def test_what_the_operator_gave_is_verified_as_what_is_pushed(
    settings: PolicyTable, bootstrap: Path, made: Bundle, says: str
) -> None:
    put(made.raw, bootstrap)
    with pytest.raises(ConfigurationError, match=rf"control\.callout\.bootstrap: .*{says}.*sealbus policy sign FILE"):
        first_bundle(settings, bootstrap)


def test_later_it_is_what_the_bucket_had(settings: PolicyTable, bootstrap: Path, kept: Path) -> None:
    for beside in (bootstrap, None):
        first = first_bundle(settings, beside)
        assert first is not None
        assert first.bundle.revision.endswith(".platform-7")
        assert not first.bootstrap


@pytest.mark.parametrize("torn", [b"", b"junk", signed(key=signing_key()).raw], ids=["empty", "junk", "another's"])
def test_what_was_kept_is_verified_again(
    settings: PolicyTable, bootstrap: Path, kept: Path, torn: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    put(torn, kept)
    first = first_bundle(settings, bootstrap)
    assert first is not None
    assert (first.bundle.raw, first.bootstrap) == (bootstrap.read_bytes(), True)
    assert f"policy part platform in {kept.parents[1]} is refused" in caplog.text


def test_what_was_composed_is_not_read(settings: PolicyTable, bootstrap: Path, tmp_path: Path) -> None:
    composed = tmp_path / "cache" / CACHE / "composed" / "bundle.tar.gz"
    composed.parent.mkdir(parents=True)
    for raw in (b"", build_bundle(STARTER, revision="forged").raw):
        put(raw, composed)
        first = first_bundle(settings, bootstrap)
        assert first is not None
        assert (first.bundle.raw, first.bootstrap) == (bootstrap.read_bytes(), True)


def test_without_either_there_is_no_callout(settings: PolicyTable, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"control\.callout\.bootstrap is not set"):
        first_bundle(settings, None)
    for missing in ("cache", "keys"):
        with pytest.raises(ConfigurationError, match=rf"policy\.{missing} is not set"):
            first_bundle(changed(settings, **{missing: () if missing == "keys" else None}), None)
    (tmp_path / "junk").write_bytes(b"junk")
    with pytest.raises(ConfigurationError, match="not a gzipped tar"):
        first_bundle(settings, tmp_path / "junk")
    with pytest.raises(ConfigurationError, match="cannot be read"):
        first_bundle(settings, tmp_path)


@pytest.mark.parametrize("change", [{"bundle": None}, {"engine": "central"}])
def test_what_has_no_bucket_or_no_bundle_needs_none(settings: PolicyTable, change: dict[str, str | None]) -> None:
    assert first_bundle(changed(settings, **change), None) is None


async def test_a_bucket_without_a_policy_is_looked_into_again(
    settings: PolicyTable, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    asked, following, known = [0], asyncio.Event(), asyncio.Event()
    known.set()

    @asynccontextmanager
    async def open_sync(name: str, *_: object, **__: object) -> AsyncIterator[None]:
        assert name == "callout"
        asked[0] += 1
        if asked[0] < 4:
            raise ConfigurationError("nothing was pushed yet")
        following.set()
        yield

    monkeypatch.setattr(module, "open_sync", open_sync)
    monkeypatch.setattr(module, "AGAIN_AFTER", 0.0)
    follower = asyncio.create_task(follow_bucket(settings, CONNECTION, Counters(), InForce(), known))
    await following.wait()
    assert caplog.text.count("nothing was pushed yet") == 1
    follower.cancel()
    await asyncio.wait({follower})
    assert follower.cancelled()


@pytest.mark.nats
async def test_on_a_full_disk_a_denial_is_in_force_and_the_callout_goes_on(
    settings: PolicyTable, bootstrap: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(raw: bytes, file: Path, *, durable: bool = True) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(policy_sync, "write_file", full)
    in_force, first, known = InForce(), first_bundle(settings, bootstrap), asyncio.Event()
    assert first is not None
    await in_force.put(first.bundle)
    async with running(tmp_path / "nats", "a") as lab, lab.connection("a") as connection:
        store = PolicyStore(connection, "policies")
        await store.create()
        await store.push("platform", signed().raw, 1, last=0)
        ordinary = OrdinaryConnection(
            lambda: nullcontext(connection),
            [lambda one: follow_bucket(settings, one, Counters(), in_force, known)],
        )
        following = asyncio.create_task(ordinary.run())
        try:
            await until(known.is_set)
            assert in_force.bundle is not first.bundle
            pushed = await store.read("platform")
            assert pushed is not None
            await store.push("platform", signed(serial=2).raw, 2, last=pushed.last)
            await until(lambda: in_force.bundle is not None and in_force.bundle.revision.endswith(".platform-2"))
            assert not following.done()
        finally:
            following.cancel()
            await asyncio.wait({following})


class _Deciding:
    """An engine that allows everybody, and counts."""

    def __init__(self) -> None:
        self.asked = 0

    async def connect(self, document: bytes) -> ConnectAnswer:
        self.asked += 1
        return PolicyUnavailable(str(self.asked))


def question(name: str) -> bytes:
    return connect_document(
        ConnectRequest(
            subject=f"spiffe://example.org/{name}", trust_domain="example.org", token=name, server="N", server_name="n",
            time=0, not_after=1,
        )
    )  # fmt: skip


async def test_until_the_bucket_is_known_it_decides_about_its_own_process_alone() -> None:
    known, deciding = asyncio.Event(), _Deciding()
    starting = StartingEngine(deciding, SpiffeId("spiffe://example.org/control"), known)
    others = [asyncio.create_task(starting.connect(question("agent/a"))) for _ in range(WAITING)]
    await asyncio.sleep(0)
    # Those that wait take a bounded number of places, and none of the process's own.
    beyond = await starting.connect(question("agent/a"))
    assert isinstance(beyond, PolicyUnavailable)
    assert beyond.detail == NOT_KNOWN
    await starting.connect(question("control"))
    assert deciding.asked == 1
    assert not any(one.done() for one in others)
    others[0].cancel()
    await asyncio.wait(others[:1])
    others.append(asyncio.create_task(starting.connect(question("agent/b"))))
    await asyncio.sleep(0)
    known.set()
    # Those that wait have not gone on yet, and still take all places.
    await starting.connect(question("agent/c"))
    assert deciding.asked == 2
    await asyncio.gather(*others[1:])
    assert deciding.asked == 2 + WAITING


@pytest.mark.parametrize(
    "near",
    [
        "spiffe://example.org/controls",
        "spiffe://example.org/contro",
        "spiffe://example.org/Control",
        "spiffe://other.org/control",
    ],
)
async def test_who_is_nearly_its_own_process_waits_like_others(near: str) -> None:
    deciding = _Deciding()
    starting = StartingEngine(deciding, SpiffeId(near), asyncio.Event())
    asked = asyncio.create_task(starting.connect(question("control")))
    await asyncio.sleep(0)
    assert deciding.asked == 0
    asked.cancel()
    await asyncio.wait([asked])


@pytest.mark.nats
@pytest.mark.parametrize("bucket", ["missing", "empty", "emptied", "junk", "policy"])
async def test_a_bootstrap_counts_where_nothing_was_ever_pushed(
    settings: PolicyTable, bootstrap: Path, tmp_path: Path, bucket: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Where the bucket was emptied, or holds nothing that may be in force, nobody knows who is denied."""
    known, in_force = asyncio.Event(), InForce()
    async with running(tmp_path / "nats", "a") as lab, lab.connection("a") as connection:
        store = PolicyStore(connection, "policies")
        if bucket != "missing":
            await store.create()
        if bucket in ("emptied", "junk", "policy"):
            await store.push("platform", b"junk" if bucket == "junk" else signed().raw, 1, last=0)
        if bucket == "emptied":
            for info in await store.objects.objects():
                await store.objects.remove(info)
        following = asyncio.create_task(follow_bucket(settings, connection, Counters(), in_force, known))
        try:
            if bucket in ("emptied", "junk"):
                await until(lambda: "the callout keeps using its present policy" in caplog.text)
                assert not known.is_set()
            else:
                await until(known.is_set)
            assert (in_force.bundle is not None) == (bucket == "policy" and known.is_set())
        finally:
            following.cancel()
            await asyncio.wait({following})
