"""`TestBus` itself: the starter policy where none is given, and assertions that fail when they should."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.engines import ScriptedEngine, allow, deny
from support.shop import Price, Shop, Update

from sealbus import Denied
from sealbus.agents.login.approvals import Refused
from sealbus.envelopes.errors import ConfigurationError
from sealbus.testing import LiveBus, SubjectType, TestBus


async def test_the_starter_policy_decides_where_no_other_is_given() -> None:
    shop = Shop()
    async with TestBus(shop.pricing) as bus:
        client = await bus.client("shop-web")
        price = await client.call("pricing.quote", Update(item_id="1", quantity=2), returns=Price)
        assert price == Price(item_id="1", price=14)
        with pytest.raises(Denied):
            await (await bus.client("stranger")).call("pricing.quote", Update(item_id="1"), returns=Price)
        await bus.assert_denied("pricing.quote", reason="unknown_agent")
    assert shop.handled == [("quote", 2)]


async def test_the_assertions_fail_when_they_should() -> None:
    shop = Shop()
    engine = ScriptedEngine()
    async with TestBus(shop.inventory, engine=engine) as bus:
        with pytest.raises(AssertionError, match="nothing was decided"):
            await bus.assert_allowed("inventory.update")
        client = await bus.client("shop-web")
        await client.submit("inventory.update", Update(item_id="1"))
        await bus.idle()
        await bus.assert_allowed("inventory.update")
        with pytest.raises(AssertionError, match="allow True"):
            await bus.assert_denied("inventory.update")
        engine.verdict = lambda _: deny("not_owner")
        await client.submit("inventory.update", Update(item_id="1"))
        await bus.idle()
        await bus.assert_denied("inventory.update", reason="not_owner")
        with pytest.raises(AssertionError, match="not_owner"):
            await bus.assert_allowed("inventory.update")
        with pytest.raises(AssertionError, match="not_owner"):
            await bus.assert_denied("inventory.update", reason="over_limit")


async def test_a_user_has_logged_in_as_the_test_says() -> None:
    engine = ScriptedEngine()
    async with TestBus(Shop().inventory, engine=engine) as bus:
        client = await bus.client("shop-web")
        for user in (
            bus.user("alice", "shop-web", acr="urn:mfa", amr=["pwd", "otp"], login_age=3_600),
            bus.user("alice", "shop-web", login_age=0),
        ):
            await client.submit("inventory.update", Update(item_id="1"), user=user)
            await bus.idle()
    first, second = (one["context"]["user"] for one in engine.asked if one["action"]["name"] == "inventory.update")
    assert (first["acr"], second["acr"]) == ("urn:mfa", "")
    assert 3_590 <= second["auth_time"] - first["auth_time"] <= 3_610


async def test_a_user_is_whose_and_what_the_test_says() -> None:
    engine = ScriptedEngine()
    async with TestBus(Shop().inventory, engine=engine) as bus:
        client = await bus.client("shop-web")
        for user in (
            bus.user("mia", "shop-web", domain="partner.example"),
            bus.user("reports", "shop-web", typ=SubjectType.CLIENT),
        ):
            await client.submit("inventory.update", Update(item_id="1"), user=user)
            await bus.idle()
    asked = [one["context"]["user"] for one in engine.asked if one["action"]["name"] == "inventory.update"]
    assert [(one["id"], one["type"], one["domain"]) for one in asked] == [
        ("mia@partner.example", "user", "partner.example"),
        ("reports", "client", ""),
    ]


async def test_it_is_used_inside_async_with() -> None:
    with pytest.raises(RuntimeError, match="async with"):
        await TestBus().client("shop-web")


async def test_leaving_finishes_what_was_taken() -> None:
    shop = Shop()
    async with TestBus(shop.inventory, engine=ScriptedEngine()) as bus:
        await (await bus.client("shop-web")).submit("inventory.update", Update(item_id="1"))
        await bus.idle()
    assert shop.handled == [("1", 1)]
    assert bus.broker.subscriptions == []


async def test_what_became_of_a_task_is_asserted() -> None:
    engine = ScriptedEngine()
    async with TestBus(Shop().inventory, engine=engine) as bus:
        client = await bus.client("shop-web")
        done = await client.submit("inventory.update", Update(item_id="1"))
        await bus.idle()
        await bus.assert_task(done, "completed")
        assert [one.final for one in await bus.statuses(done)] == [True]
        engine.verdict = lambda _: deny("not_owner")
        denied = await client.submit("inventory.update", Update(item_id="1"))
        await bus.idle()
        await bus.assert_task(denied, "rejected", "denied")
        with pytest.raises(AssertionError, match=r"inventory.update: rejected denied"):
            await bus.assert_task(denied, "completed")
        nobody = await client.submit("pricing.update", Update(item_id="1"))
        await bus.assert_task(nobody, "submitted")


async def test_what_is_raised_inside_a_bus_comes_out_as_itself() -> None:
    shop = Shop()
    engine = ScriptedEngine(lambda _: deny("not_owner"))

    async def denied() -> None:
        async with TestBus(shop.inventory, shop.pricing, engine=engine) as bus:
            client = await bus.client("shop-web")
            await client.call("pricing.quote", Update(item_id="1"), returns=Price)

    async def failed() -> None:
        async with TestBus(shop.inventory, shop.pricing, engine=engine):
            raise AssertionError("1 is not 2")

    with pytest.raises(Denied):
        await denied()
    with pytest.raises(AssertionError, match=r"^1 is not 2$"):
        await failed()


async def test_a_denial_that_is_expected_is_the_recorded_one() -> None:
    engine = ScriptedEngine()
    async with TestBus(Shop().inventory, engine=engine) as bus:
        client = await bus.client("shop-web")
        engine.verdict = lambda _: deny("not_owner")
        # Its reasons are shown to nobody here: the record has them.
        async with bus.expect_denied("inventory.update", reason="not_owner"):
            await (await client.submit("inventory.update", Update(item_id="1"))).result(Price)
        async with bus.expect_denied("inventory.update"):
            await client.submit("inventory.update", Update(item_id="1"))
        with pytest.raises(AssertionError, match="over_limit was expected, and decided was: denied not_owner"):
            async with bus.expect_denied("inventory.update", reason="over_limit"):
                await client.submit("inventory.update", Update(item_id="1"))
        with pytest.raises(AssertionError, match="decided was: nothing"):
            async with bus.expect_denied("inventory.update", reason="not_owner"):
                pass
        engine.verdict = lambda _: allow()
        with pytest.raises(AssertionError, match="decided was: allowed"):
            async with bus.expect_denied("inventory.update"):
                await client.submit("inventory.update", Update(item_id="1"))
        with pytest.raises(ZeroDivisionError):
            async with bus.expect_denied("inventory.update"):
                raise ZeroDivisionError
        with pytest.raises(ConfigurationError):
            async with bus.expect_denied("inventory.update"):
                raise ConfigurationError("another one")


PROJECT = """
trust_domain = "shop.example"
[client]
name = "web"
[dev.agents]
pricing = "project_pricing:agent"
"""
PRICING = """
from pydantic import BaseModel
from sealbus import Agent, Context
agent = Agent("pricing")
class Ask(BaseModel):
    item_id: str
    quantity: int = 1
@agent.call("quote")
async def quote(body: Ask, ctx: Context) -> int:
    return 7 * body.quantity
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return a folder with an agent, its settings, and the starter policy for its trust domain."""
    (tmp_path / "project_pricing.py").write_text(PRICING)
    (tmp_path / "sealbus.toml").write_text(PROJECT)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    yield tmp_path
    sys.modules.pop("project_pricing", None)


async def test_the_agents_of_a_project_run_in_memory(project: Path) -> None:
    bus = TestBus.of_project(project)
    assert bus.trust_domain.name == "shop.example"
    # The starter policy, which knows nobody of this trust domain.
    async with bus, bus.expect_denied("pricing.quote", reason="unknown_agent"):
        await (await bus.client("web")).call("pricing.quote", {"item_id": "1"}, returns=int)


def test_a_project_without_agents_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"\[dev.agents\]"):
        TestBus.of_project(tmp_path)


@pytest.mark.nats
@pytest.mark.workload_api
async def test_the_agents_of_a_project_run_on_a_real_server(
    project: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    (project / "sealbus.toml").write_text(PROJECT.replace("shop.example", "example.org").replace('"web"', '"shop-web"'))
    async with LiveBus.of_project(project, tmp_path_factory.mktemp("state")) as bus:
        user = await bus.user("alice", "shop-web")
        client = await bus.client("shop-web")
        assert await client.call("pricing.quote", {"item_id": "1", "quantity": 2}, returns=int, user=user) == 14
        assert await bus.client("shop-web") is client
        with pytest.raises(ConfigurationError):
            await bus.user("nobody", "shop-web")
        async with bus.expect_denied("pricing.quote", code="bad_body"):
            await client.call("pricing.quote", {"item_id": 1}, returns=int, user=user)
        with pytest.raises(AssertionError, match=r"pricing.quote: denied .* decided was: allowed$"):
            async with bus.expect_denied("pricing.quote", within=5.0):
                await client.call("pricing.quote", {"item_id": "1"}, returns=int, user=user)
        # Only what is decided in the body counts.
        with pytest.raises(AssertionError, match="decided was: nothing"):
            async with bus.expect_denied("pricing.quote", code="bad_body", within=0.5):
                pass
        with pytest.raises(ZeroDivisionError):
            async with bus.expect_denied("pricing.quote"):
                raise ZeroDivisionError


PAYING = """
[client]
name = "shop-web"
[dev.agents]
payments = "sealbus.agents.examples.payments:agent"
"""


@pytest.mark.nats
@pytest.mark.workload_api
async def test_a_person_approves_at_the_edge_of_a_live_bus(tmp_path: Path) -> None:
    (tmp_path / "sealbus.toml").write_text(PAYING)
    async with LiveBus.of_project(tmp_path, tmp_path / "state") as bus:
        client, alice = await bus.client("shop-web"), await bus.user("alice", "shop-web")
        handle = await client.submit("payments.pay", {"invoice_id": "2041", "amount": 420_000}, user=alice)
        with pytest.raises(Denied):
            await bus.approve(handle, "bob")
        await bus.approve(handle, "bob", acr="urn:example:silver", note="as agreed")
        assert await handle.result(object) is not None
        with pytest.raises(Refused) as closed:
            await bus.approve(handle, "bob", acr="urn:example:silver")
        assert closed.value.code == "approval_closed"
        small = await client.submit("payments.pay", {"invoice_id": "2041", "amount": 1}, user=alice)
        with pytest.raises(LookupError):
            await bus.approve(small, "bob")


async def test_a_live_project_without_agents_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"\[dev.agents\]"):
        async with LiveBus.of_project(tmp_path, tmp_path / "state"):
            pass


@pytest.mark.parametrize("there", [True, False])
def test_the_plug_in_disturbs_no_tests_of_those_without_pytest_asyncio(there: bool, tmp_path: Path) -> None:
    (tmp_path / "test_one.py").write_text("def test_one() -> None:\n    assert True\n")
    hidden = (
        "" if there else "importlib.util.find_spec = lambda name: None if name == 'pytest_asyncio' else find(name)\n"
    )
    program = "import importlib.util, sys, pytest\nfind = importlib.util.find_spec\n" + hidden
    asyncio_of_pytest = ["-p", "pytest_asyncio", "-o", "asyncio_default_fixture_loop_scope=function"]
    plugins = [*(asyncio_of_pytest if there else []), "-p", "sealbus.pytest_plugin"]
    done = subprocess.run(
        [sys.executable, "-c", f"{program}sys.exit(pytest.main(sys.argv[1:]))", *plugins, "--fixtures", "test_one.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert ("live_bus" in done.stdout) is there
