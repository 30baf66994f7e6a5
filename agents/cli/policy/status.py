"""`sealbus policy status`: the parts in the store and their composition, or the policy that an engine or OPA has."""

from __future__ import annotations

import click

from sealbus.agents.cli.options import Invocation, invocation_options
from sealbus.agents.cli.output import note, print_facts, print_json, print_table
from sealbus.agents.cli.policy.push import open_store
from sealbus.bus.inspection.documents import part_documents


@click.command("status")
@click.option(
    "--opa", "url", default=None, metavar="URL", help="Ask a running OPA instead, for instance http://127.0.0.1:8181."
)
@click.option("--engine", "of_engine", is_flag=True, help="Ask the engine of the settings instead, as this workload.")
@invocation_options("operator")
async def status(url: str | None, of_engine: bool, invocation: Invocation) -> int:
    """Print the parts in force with their serials and keys; exit code 1 if a part is refused."""
    if url is not None:
        return await _of_opa(url, as_json=invocation.as_json)
    if of_engine:
        return await _of_engine(invocation)
    return await _of_store(invocation)


async def _of_store(invocation: Invocation) -> int:
    from sealbus.agents.runtime.policy.push import stored_parts

    async with open_store(invocation) as (store, anchors):
        parts, current = await stored_parts(store, anchors)
        kept = {name: await store.serials(name) for name in sorted(current)}
    rows = part_documents(parts, kept)
    if invocation.as_json:
        for row in rows:
            print_json(row)
    else:
        print_table(
            "", ("part", "serial", "revision", "key", "kept", "problem"),
            [tuple("" if value is None else str(value) for value in row.values()) for row in rows],
        )  # fmt: skip
        note(f"policy {parts.composed.revision}" if parts.composed is not None else "no policy is in force")
    return 1 if parts.problems or parts.composed is None else 0


async def _of_engine(invocation: Invocation) -> int:
    from sealbus.agents.cli.operate.examination import policy_status

    engine = await policy_status(invocation.settings(), invocation.as_name)
    rows = {
        "engine": engine.engine,
        "revision": engine.revision,
        "problem": engine.problem,
        "missed": list(engine.missed),
    }
    print_facts(("engine", engine.engine), rows, as_json=invocation.as_json)
    return 0 if engine.revision and not engine.problem and not engine.missed else 1


async def _of_opa(url: str, *, as_json: bool) -> int:
    from sealbus.policies.opa.admin import OpaAdmin

    facts = await OpaAdmin(url).status()
    rows: dict[str, object] = {"healthy": facts.healthy, "version": facts.version, "revisions": dict(facts.revisions)}
    if facts.policies:
        rows["policies"] = list(facts.policies)
    if facts.problems:
        rows["problems"] = dict(facts.problems)
    print_facts(("opa", url), rows, as_json=as_json)
    return 0 if facts.healthy and not facts.problems else 1
