"""A log in memory whose decisions follow from policies that it names, so that all of them can be made again."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from support.log_world import World
from support.policies import ALLOW, DENY, bundle, document
from vectors.issuing import INVENTORY
from vectors.recorded import decision, evidence

from sealbus.envelopes.encoding.codec import Value
from sealbus.policies.bundle.format import Bundle

__all__ = ["FIRST", "SECOND", "decide", "decided_world"]

FIRST = bundle({"yes": ALLOW, "no": DENY}, revision="first")
SECOND = bundle({"yes": DENY, "no": ALLOW}, revision="second")


def decide(world: World, action: str, revision: str, *, allow: bool, **changes: Value) -> None:
    """Let the inventory record a decision about the document of `action`, as `FIRST` and `SECOND` answer."""
    said: dict[str, Value] = {"alw": allow, "obl": None, "rsn": None, "inp": bytes(document(action))}
    if not allow:
        said |= {"cod": "denied", "rsn": ["no"], "obl": b'[{"notify":"owner"}]'}
    task, above = world.task(user=False, chain=0)
    record = decision(task, sto=world.time, rev=revision, pol="scripted", **(said | changes))
    world.put(world.audit(INVENTORY, evidence(task, *above), [record]))


def decided_world(rounds: int = 3, *, bundles: Sequence[Bundle] = (FIRST, SECOND)) -> World:
    """Return a log of four decisions a round, two by each policy; every key is replaced after each."""
    world = World(Random(1))  # noqa: S311
    world.creation()
    world.record_bundle("k0")
    for one in bundles:
        world.record_policy(one.raw, one.revision)
    for _ in range(rounds):
        for action, revision, allow in (
            ("yes", "first", True), ("no", "first", False), ("yes", "second", False), ("no", "second", True),
        ):  # fmt: skip
            decide(world, action, revision, allow=allow)
        world.denials()
        world.garbage()
        world.rotate()
    return world
