"""From a folder to a bundle, and from there to a file."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from support.policies import ALLOW, SCRIPTED, bundle, folder

from sealbus.envelopes.encoding.strict_json import Json
from sealbus.envelopes.errors import ConfigurationError
from sealbus.policies.bundle.files import (
    STARTER,
    build_bundle,
    load_bundle,
    remembered_bundle,
    write_bundle,
    write_file,
)
from sealbus.policies.bundle.format import Bundle
from sealbus.policies.bundle.library import in_library
from sealbus.policies.lint.module import PolicyRefused

FILES: dict[str, str | dict[str, Json]] = {
    "authz/policy.rego": SCRIPTED,
    "authz/policy_test.rego": "package sealbus.authz_test\n\ntest_x if { true }\n",
    "answers/data.json": {"yes": ALLOW},
    "answers/more/data.json": {"x": 1},
    "README.md": "about",
    ".hidden/x.rego": "package hidden",
    "notes.txt": "x",
}


def own(found: Bundle) -> list[str]:
    return [module.path for module in found.modules if not in_library(module.path)]


def test_a_folder_becomes_a_bundle(tmp_path: Path) -> None:
    found = build_bundle(folder(tmp_path, FILES))
    assert own(found) == ["authz/policy.rego"]
    assert found.data["answers"] == {"yes": ALLOW, "more": {"x": 1}}
    assert found.data.keys() == {"answers", "sealbus"}
    assert found.roots == ("",)
    assert build_bundle(tmp_path) == found
    assert build_bundle(tmp_path, revision="mine").revision == "mine"


def test_the_manifest_of_a_folder(tmp_path: Path) -> None:
    folder(tmp_path, {**FILES, ".manifest": {"revision": "said", "roots": ["sealbus", "answers"], "rego_version": 1}})
    found = build_bundle(tmp_path)
    assert (found.revision, found.roots) == ("said", ("sealbus", "answers"))
    assert build_bundle(tmp_path, revision="given").revision == "given"


def test_the_starter_policy_is_a_bundle() -> None:
    assert build_bundle(STARTER).modules


def test_a_remembered_bundle_is_built_anew_when_a_file_changed(tmp_path: Path) -> None:
    folder(tmp_path, FILES)
    first = remembered_bundle(tmp_path)
    assert remembered_bundle(tmp_path) is first
    folder(tmp_path, {"answers/more/data.json": {"x": 22}})
    second = remembered_bundle(tmp_path)
    assert second.data["answers"] == {"yes": ALLOW, "more": {"x": 22}}
    with pytest.raises(ConfigurationError, match="is not a folder"):
        remembered_bundle(tmp_path / "none")


def test_links_are_left_out(tmp_path: Path) -> None:
    folder(tmp_path / "policy", FILES)
    outside = tmp_path / "secret.rego"
    outside.write_text("package secret")
    (tmp_path / "policy" / "link.rego").symlink_to(outside)
    assert own(build_bundle(tmp_path / "policy")) == ["authz/policy.rego"]


@pytest.mark.parametrize("name", ["agents.json", "data.yaml", "policy.wasm", "x"])
def test_files_that_opa_would_not_read(tmp_path: Path, name: str) -> None:
    with pytest.raises(PolicyRefused, match="OPA reads only"):
        build_bundle(folder(tmp_path, {**FILES, name: "{}"}))


def test_a_folder_that_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PolicyRefused, match=r"authz/policy\.rego:1:1"):
        build_bundle(folder(tmp_path, {"authz/policy.rego": "nonsense"}))
    with pytest.raises(PolicyRefused, match="no decision"):
        build_bundle(folder(tmp_path / "empty", {"README.md": ""}))


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="is not a folder"):
        build_bundle(tmp_path / "none")


def test_a_written_bundle_is_the_one_loaded(tmp_path: Path) -> None:
    file = tmp_path / "bundle.tar.gz"
    write_bundle(bundle(revision="r1"), file)
    write_bundle(bundle(revision="r2"), file)
    assert load_bundle(file).revision == "r2"
    assert [path.name for path in tmp_path.iterdir()] == ["bundle.tar.gz"]
    assert file.stat().st_mode & 0o777 == 0o644


def test_a_bad_bundle_is_neither_written_nor_loaded(tmp_path: Path) -> None:
    file = tmp_path / "bundle.tar.gz"
    write_bundle(bundle(revision="r1"), file)
    bad = bundle(revision="r2", policy="package nothing\n")
    with pytest.raises(PolicyRefused):
        write_bundle(bad, file)
    assert load_bundle(file).revision == "r1"
    file.write_bytes(bad.raw)
    with pytest.raises(PolicyRefused):
        load_bundle(file)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "bundle.tar.gz"
    write_bundle(bundle(revision="r1"), file)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space"):
            write_bundle(bundle(revision="r2"), file)
    assert load_bundle(file).revision == "r1"
    assert [path.name for path in tmp_path.iterdir()] == ["bundle.tar.gz"]


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="No such file"):
        load_bundle(tmp_path / "none")


def test_a_file_is_replaced_whole_whether_or_not_it_must_last(tmp_path: Path) -> None:
    file = tmp_path / "b.tar.gz"
    for durable in (True, False):
        write_file(b"%d" % durable, file, durable=durable)
        assert file.read_bytes() == b"%d" % durable
    assert [one.name for one in tmp_path.iterdir()] == ["b.tar.gz"]
