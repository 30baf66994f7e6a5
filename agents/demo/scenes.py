"""The scenes: each says who does what for whom, what must come of it, and asserts it by the audit stream itself."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass

from sealbus.agents.bodies import JSON
from sealbus.agents.composing import Origin, call_letter
from sealbus.agents.demo.shop import Item, Quote, Update
from sealbus.agents.demo.stage import STRANGER, Stage
from sealbus.agents.sending import encoded
from sealbus.bus.clock import uuid7
from sealbus.bus.outbox import Overloaded
from sealbus.bus.ports import Outgoing, PubAck
from sealbus.envelopes.errors import Denied, SealbusError
from sealbus.envelopes.seal import seal
from sealbus.envelopes.wire import encode_envelope, parse_envelope

__all__ = ["SCENES", "Result", "Scene", "play"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """How one scene went. `got` is `allow`, `deny` or `refused`; `code` says why, with the reasons for a denial."""

    name: str
    expected: str
    expected_code: str
    got: str
    code: str

    @property
    def ok(self) -> bool:
        """Tell whether it went as it must."""
        return (self.got, self.code) == (self.expected, self.expected_code)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """One scene: what is shown, what must come of it, and how it is played."""

    name: str
    expected: str
    code: str
    play: Callable[[Stage], Awaitable[tuple[str, str]]]


async def play(stage: Stage) -> AsyncGenerator[Result, None]:
    """Play all scenes in order and yield how each went; a scene that breaks is a result, not the end."""
    for scene in SCENES:
        try:
            got, code = await scene.play(stage)
        except (SealbusError, TimeoutError) as error:
            got, code = "error", str(error) or type(error).__name__
        yield Result(name=scene.name, expected=scene.expected, expected_code=scene.code, got=got, code=code)


def _task(
    user: str, item: str = "42", quantity: int = 3, *, sender: str = "shop-web", session: str = ""
) -> Callable[[Stage], Awaitable[tuple[str, str]]]:
    async def run(stage: Stage) -> tuple[str, str]:
        statement = await stage.user(user, sender, session)
        receipt = await stage.clients[sender].submit(
            "inventory.update", Update(item_id=item, quantity=quantity), user=statement
        )
        record = await stage.decision(receipt.message_id)
        if record.allow:
            return "allow", ""
        return "deny", ",".join(record.reasons) or str(record.code)

    return run


async def _read(stage: Stage) -> tuple[str, str]:
    try:
        await stage.clients["shop-web"].call(
            "inventory.read", Quote(item_id="42"), returns=Item, user=await stage.user("alice")
        )
    except Denied as error:
        return "deny", ",".join(error.reasons)
    return "allow", ""


async def _sent_again(stage: Stage) -> tuple[str, str]:
    """Publish the captured bytes of the last task again, under their own id."""
    task = await stage.last_task()
    message_id = task.header_block.split(b"Nats-Msg-Id: ")[1][:32].decode()
    (ack,) = await stage.operator.publish(
        [Outgoing(subject=task.subject, payload=task.payload, message_id=message_id)], deadline=5.0
    )
    if isinstance(ack, PubAck) and ack.duplicate:
        return "refused", "replayed"
    return "allow", ""


async def _sent_again_otherwise(stage: Stage) -> tuple[str, str]:
    """Publish the captured bytes again under another id, so that the stream takes them."""
    task = await stage.last_task()
    return await _publish_raw(stage, task.subject, task.payload, "malformed", message_id="0" * 32)


async def _flipped_bit(stage: Stage) -> tuple[str, str]:
    """Seal a good call, flip one bit of its body and send it: core NATS carries what a stream would not store twice."""
    node = stage.clients["shop-web"].node
    now = node.clock()
    letter = call_letter(
        "inventory.read",
        encoded(Quote(item_id="42"), JSON),
        names=node.deployment.names,
        origin=Origin.user(await stage.user("alice")),
        reply_to=node.requests.address(),
    )
    (sealed,) = seal([letter.draft(now=now, new_id=uuid7(now))], node.identity.sealer())
    envelope = parse_envelope(sealed.wire)
    body = bytes([envelope.body[0] ^ 1]) + envelope.body[1:]
    before = stage.refused.get("bad_digest", 0)
    node.transport.send([Outgoing(subject=letter.to, payload=encode_envelope(envelope._replace(body=body)))])
    await stage.refusal("bad_digest", before)
    return "refused", "bad_digest"


async def _copied_context(stage: Stage) -> tuple[str, str]:
    """Attach a context that was minted for another workload to a message of the stranger's own."""
    statement = await stage.user("alice", "shop-web")
    before = stage.refused.get("bad_chain", 0)
    await stage.clients[STRANGER].submit("inventory.update", Update(item_id="42", quantity=1), user=statement)
    await stage.refusal("bad_chain", before)
    return "refused", "bad_chain"


async def _publish_raw(stage: Stage, subject: str, payload: bytes, code: str, *, message_id: str) -> tuple[str, str]:
    before = stage.refused.get(code, 0)
    (ack,) = await stage.operator.publish(
        [Outgoing(subject=subject, payload=payload, message_id=message_id)], deadline=5.0
    )
    if not isinstance(ack, PubAck):
        raise Overloaded("the damaged message was not stored")
    await stage.refusal(code, before)
    return "refused", code


async def _limit_raised(stage: Stage) -> tuple[str, str]:
    def raise_limit(actions: dict[str, object]) -> None:
        action = actions["inventory.update"]
        if not isinstance(action, dict):
            raise TypeError("inventory.update")
        action["limits"] = {"quantity": 1_000}

    stage.edit_data("actions", raise_limit)
    return await _until(stage, _task("alice", quantity=500), "allow")


async def _session_revoked(stage: Stage) -> tuple[str, str]:
    def revoke(revoked: dict[str, object]) -> None:
        revoked["sessions"] = {"stolen-laptop": True}

    stage.edit_data("revoked", revoke)
    return await _until(stage, _task("alice", session="stolen-laptop"), "deny")


async def _until(stage: Stage, task: Callable[[Stage], Awaitable[tuple[str, str]]], wanted: str) -> tuple[str, str]:
    """Play `task` until the change has reached the worker: within 200 ms, by far fewer than these tries."""
    got, code = await task(stage)
    for _ in range(50):
        if got == wanted:
            break
        got, code = await task(stage)
    return got, code


async def _replayed(stage: Stage) -> tuple[str, str]:
    """Every record so far was verified as it was read."""
    return ("deny", "findings") if stage.findings or not stage.records else ("allow", "")


SCENES = (
    Scene(name="alice updates her own item", expected="allow", code="", play=_task("alice")),
    Scene(name="carol tries alice's item", expected="deny", code="not_owner", play=_task("carol")),
    Scene(name="bob manages the customer of alice's item", expected="allow", code="", play=_task("bob")),
    Scene(
        name="alice, out of the region's business hours",
        expected="deny",
        code="outside_business_hours",
        play=_task("alice", item="43"),
    ),
    Scene(name="alice, over the limit", expected="deny", code="over_limit", play=_task("alice", quantity=500)),
    Scene(
        name="an agent that the policy does not know",
        expected="deny",
        code="action_not_granted,unknown_agent,unknown_chain_agent",
        play=_task("alice", sender=STRANGER),
    ),
    Scene(name="alice reads her item by a call", expected="allow", code="", play=_read),
    Scene(name="a captured task, sent again", expected="refused", code="replayed", play=_sent_again),
    Scene(
        name="a captured task, sent again under another id",
        expected="refused",
        code="malformed",
        play=_sent_again_otherwise,
    ),
    Scene(name="a call with one bit flipped", expected="refused", code="bad_digest", play=_flipped_bit),
    Scene(
        name="alice's context, copied by an agent outside the chain",
        expected="refused",
        code="bad_chain",
        play=_copied_context,
    ),
    Scene(name="the limit is raised while all runs", expected="allow", code="", play=_limit_raised),
    Scene(
        name="alice's session is revoked while all runs",
        expected="deny",
        code="revoked_session",
        play=_session_revoked,
    ),
    Scene(name="the audit stream, replayed: every record verifies", expected="allow", code="", play=_replayed),
)
