"""The packages on which the project's user decided: each stays a dependency, and product code really uses it.

A package is used if code of ours calls code of the package while a test runs the product. An import alone is no use.
"""

from __future__ import annotations

import asyncio
import socket
import sys
import tomllib
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import dependency_groups
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from support.idp import Browser, Pkce, answer_of, browsing
from support.lab import make_stream, running
from support.opa_answers import answering

from sealbus.agents.identity.workload_api import Endpoint, RawClient
from sealbus.agents.runtime.settings.settings import load_settings
from sealbus.envelopes.encoding.codec import encode, unpack
from sealbus.envelopes.trust.keys import SigningKey
from sealbus.policies.opa.admin import OpaAdmin

ROOT = Path(__file__).parent.parent
SETTINGS = """trust_domain = "example.org"
nats = ["tls://nats:4222"]
[policy]
engine = "native"
bundle = "bundle.tar.gz"
"""
OWN = ("sealbus.agents.", "sealbus.bus.", "sealbus.envelopes.", "sealbus.policies.")


async def nats(folder: Path) -> None:
    async with running(folder, "a") as lab, lab.connection("a") as connection:
        await make_stream(connection)


async def spiffe(folder: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(folder / "s"))
        RawClient(Endpoint(str(folder / "s"))).close()


async def cryptography(_: Path) -> None:
    SigningKey(ec.generate_private_key(ec.SECP256R1())).sign(b"message")


async def authlib(_: Path) -> None:
    async with browsing() as browser:
        await log_in(browser)


async def log_in(browser: Browser) -> None:
    pkce = Pkce()
    chosen = await browser.post("authorize", request=await browser.page(browser.asked(pkce)), user="alice")
    assert (await browser.exchange(answer_of(chosen)["code"], pkce)).status_code == 200


async def opa_client(_: Path) -> None:
    async with answering({"result": True}) as url:
        assert await OpaAdmin(url).query("data.a") is True


async def msgpack(_: Path) -> None:
    unpack(encode({"a": 1}), items=1, entries=1)


async def pydantic(folder: Path) -> None:
    (folder / "sealbus.toml").write_text(SETTINGS)
    assert load_settings(str(folder / "sealbus.toml")).policy.engine == "native"


KEPT: dict[str, tuple[str, Callable[[Path], Awaitable[None]]]] = {
    "nats-py": ("nats", nats),
    "spiffe": ("spiffe", spiffe),
    "cryptography": ("cryptography", cryptography),
    "authlib": ("authlib", authlib),
    "opa-python-client": ("opa_client", opa_client),
    "msgpack": ("msgpack", msgpack),
    "pydantic": ("pydantic", pydantic),
}
"""Each package, the module that it is imported as, and a use of it. py-spiffe is called `spiffe` on PyPI."""


def locked(file: str) -> set[str]:
    lines = (ROOT / file).read_text(encoding="utf-8").splitlines()
    return {canonicalize_name(line.partition("==")[0]) for line in lines if "==" in line and line[0] not in " #"}


def test_each_is_a_dependency_and_locked() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    asked = {canonicalize_name(Requirement(one).name) for one in project["project"]["dependencies"]}
    assert KEPT.keys() - asked == set()
    assert KEPT.keys() - locked("requirements.txt") == set()
    tests = {
        canonicalize_name(Requirement(one).name)
        for one in dependency_groups.resolve(project["dependency-groups"], "test")
    }
    assert "pytest-asyncio" in tests & locked("requirements-dev.txt")


@pytest.mark.parametrize("package", KEPT)
@pytest.mark.nats
def test_product_code_uses_it(package: str, tmp_path: Path) -> None:
    module, use = KEPT[package]
    assert called_from_ours(module, lambda: asyncio.run(use(tmp_path))), package  # type: ignore[arg-type]


async def test_tests_are_run_by_pytest_asyncio(request: pytest.FixtureRequest) -> None:
    assert request.config.pluginmanager.hasplugin("asyncio")
    assert request.config.getini("asyncio_mode") == "auto"
    await asyncio.sleep(0)


def test_an_import_alone_is_no_use() -> None:
    def imports() -> None:
        import sealbus.policies.opa.client  # noqa: F401

    assert not called_from_ours("opa_client", imports)


def called_from_ours(module: str, use: Callable[[], object]) -> bool:
    """Return whether code of the layers calls code of `module` while `use` runs, in this thread."""
    found: list[str] = []

    def seen(frame: FrameType, event: str, argument: object) -> None:
        if event == "call":
            caller, called = frame.f_back, frame.f_globals.get("__name__")
        elif event == "c_call":
            caller, called = frame, getattr(argument, "__module__", None)
        else:
            return
        if caller is not None and is_of(called, module) and is_ours(caller):
            found.append(str(called))

    with watched(module, found):
        sys.setprofile(seen)
        try:
            use()
        finally:
            sys.setprofile(None)
    return bool(found)


def is_of(name: object, module: str) -> bool:
    return isinstance(name, str) and (name == module or name.startswith(f"{module}."))


def is_ours(frame: FrameType) -> bool:
    return frame.f_code.co_name != "<module>" and str(frame.f_globals.get("__name__")).startswith(OWN)


@contextmanager
def watched(module: str, found: list[str]) -> Iterator[None]:
    """Note what our modules take from `module` by its name: compiled functions are called without a trace."""

    class Noting:
        def __getattr__(self, name: str) -> object:
            found.append(name)
            return getattr(there, name)

    there = sys.modules.get(module)
    ours = [one for name, one in list(sys.modules.items()) if name.startswith(OWN)]
    held = [(one, name) for one in ours for name, value in vars(one).items() if there is not None and value is there]
    with pytest.MonkeyPatch.context() as patch:
        for one, name in held:
            patch.setattr(one, name, Noting())
        yield
