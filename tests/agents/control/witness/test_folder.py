"""What a witness remembers: one process at a time, and only what it can read."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.plain_log import PlainLog, leaf

from sealbus.agents.control.witness import folder
from sealbus.agents.control.witness.folder import CosignedLog, locked_folder
from sealbus.agents.control.witness.submission import OldSizeDiffers, SubmissionRefused, WitnessedLog, open_submission
from sealbus.envelopes.errors import ConfigurationError, StateUnavailable
from sealbus.envelopes.log.cosignature import CosignatureSigner, CosignatureType
from sealbus.envelopes.log.note import NoteSigner

ORIGIN = "log.example.com/plain"
LOG = PlainLog(NoteSigner(ORIGIN, bytes(32)), [leaf(number) for number in range(30)])
FORK = PlainLog(LOG.signer, [leaf(number, "fork") for number in range(30)])
KNOWN = WitnessedLog.parse(ORIGIN, (LOG.signer.verifier.text,))
SIGNERS = [CosignatureSigner("witness", kind, bytes(32)) for kind in CosignatureType]


def add(cosigned: CosignedLog, old: int, new: int, now: int = 1_000) -> str:
    return cosigned.add(open_submission(LOG.request(old, new), {ORIGIN: KNOWN}), now)


def test_it_goes_on_where_it_was(tmp_path: Path) -> None:
    cosigned = CosignedLog(KNOWN, tmp_path, SIGNERS)
    assert (cosigned.note, cosigned.checkpoint, cosigned.time) == (b"", None, 0)
    add(cosigned, 0, 9)
    lines = add(cosigned, 9, 20, 2_000)
    again = CosignedLog(KNOWN, tmp_path, SIGNERS)
    assert (again.note, again.checkpoint, again.time) == (cosigned.note, cosigned.checkpoint, 2_000)
    assert again.note == LOG.note(20) + lines.encode()
    with pytest.raises(OldSizeDiffers):
        add(again, 9, 30)
    assert CosignedLog(KNOWN, tmp_path, SIGNERS[1:]).time == 2_000
    new_keys = CosignedLog(KNOWN, tmp_path, [CosignatureSigner("w", CosignatureType.ED25519, bytes(32))])
    assert (new_keys.checkpoint, new_keys.time) == (cosigned.checkpoint, 0)
    add(new_keys, 20, 20)


def test_the_name_is_on_the_disk_before_anything_is_given_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[bytes] = []
    monkeypatch.setattr(folder, "sync_folder", lambda path: synced.append((path / KNOWN.origin_hash).read_bytes()))
    cosigned = CosignedLog(KNOWN, tmp_path, SIGNERS)
    add(cosigned, 0, 9)
    assert synced == [cosigned.note]

    def fails(path: Path) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(folder, "sync_folder", fails)
    with pytest.raises(StateUnavailable, match="Input/output error"):
        add(cosigned, 9, 20)
    assert cosigned.note == synced[0]


def test_two_roots_of_one_size_are_kept_as_proof(tmp_path: Path) -> None:
    cosigned = CosignedLog(KNOWN, tmp_path, SIGNERS)
    add(cosigned, 0, 9)
    first = cosigned.note
    kept = [tmp_path / f"{KNOWN.origin_hash}.{name}" for name in ("cosigned", "refused")]
    for refused in (FORK.request(9, 12), FORK.request(0, 9), LOG.request(9, 12, path=[])):
        with pytest.raises(SubmissionRefused):
            cosigned.add(open_submission(refused, {ORIGIN: KNOWN}), 1_000)
        assert not any(file.exists() for file in kept)
    for old, fork in ((9, FORK), (20, PlainLog(LOG.signer, [leaf(number, "third") for number in range(30)]))):
        with pytest.raises(SubmissionRefused, match="two roots"):
            cosigned.add(open_submission(fork.request(old, old), {ORIGIN: KNOWN}), 1_000)
        assert [file.read_bytes() for file in kept] == [first, FORK.note(9)]
        add(cosigned, old, 20)
    CosignedLog(KNOWN, tmp_path, SIGNERS)


def test_what_it_cannot_read_ends_it(tmp_path: Path) -> None:
    add(CosignedLog(KNOWN, tmp_path, SIGNERS), 0, 9)
    file = tmp_path / KNOWN.origin_hash
    good = file.read_bytes()
    for data in (
        b"",
        good[:-1],
        good[: len(good) // 2],
        bytes(len(good)),
        good.replace(b"\n9\n", b"\n8\n"),
        good.replace(ORIGIN.encode(), b"another", 1),
        b"text\n\n" + good.partition(b"\n\n")[2],
    ):
        file.write_bytes(data)
        with pytest.raises(ConfigurationError, match="is damaged"):
            CosignedLog(KNOWN, tmp_path, SIGNERS)
    others = [CosignatureSigner("another", CosignatureType.ED25519, bytes(32))]
    for origin in (ORIGIN.upper(), ORIGIN[:-1], f"{ORIGIN}x"):
        file.write_bytes(good.replace(ORIGIN.encode(), origin.encode(), 1))
        with pytest.raises(ConfigurationError, match="of another log"):
            CosignedLog(KNOWN, tmp_path, others)
    file.unlink()
    file.mkdir()
    with pytest.raises(ConfigurationError, match="cannot be read"):
        CosignedLog(KNOWN, tmp_path, SIGNERS)


def test_one_process_at_a_time_and_no_leftovers(tmp_path: Path) -> None:
    place = tmp_path / "a" / "witness"
    with locked_folder(place):
        (place / ".half.written").write_bytes(b"x")
        with pytest.raises(ConfigurationError, match="another witness uses"), locked_folder(place):
            pass
        assert (place / ".half.written").exists()
    with locked_folder(place):
        assert [path.name for path in place.iterdir()] == ["witness.lock"]
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="cannot be used"), locked_folder(tmp_path / "file"):
        pass
