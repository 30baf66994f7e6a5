"""Steps 14 to 16: decode the body, load the resource, ask the policy. In batches; each message fails on its own."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

from sealbus.bus.clocks import UNMEASURED_CLOCK, BusClock
from sealbus.bus.routing.stages import Decided, Opened
from sealbus.bus.routing.timers import being_cancelled
from sealbus.bus.telemetry import Counters, OperatorLog
from sealbus.envelopes.accept.live import VerifiedMessage
from sealbus.envelopes.errors import (
    BadBody,
    ConfigurationError,
    ObligationUnknown,
    PolicyFailed,
    PolicyUnavailable,
    ResourceNotFound,
    ResourceUnavailable,
    SealbusError,
)
from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.message.declaration import NOTHING_DECLARED, Declaration
from sealbus.envelopes.message.freshness import StreamArrival
from sealbus.envelopes.message.user_context import UserContext
from sealbus.envelopes.trust.spiffe_id import SpiffeId
from sealbus.policies.decision.decision import Decision, unknown_obligation
from sealbus.policies.decision.engine import PolicyEngine
from sealbus.policies.decision.request import NO_RESOURCE, NO_USER, Caller, Request, Resource, User, input_document

_logger = logging.getLogger(__name__)

LOADING = 32
"""Resources of one batch that are loaded concurrently."""


class Authorizer:
    """Asks one policy engine about opened messages."""

    def __init__(
        self, *, engine: PolicyEngine, counters: Counters | None = None, clock: BusClock = UNMEASURED_CLOCK
    ) -> None:
        self._engine = engine
        self._took = (counters or Counters()).histogram("sealbus_decision_seconds")
        self._clock = clock
        self._operator_log = OperatorLog(_logger)

    async def authorize(self, opened: Sequence[Opened]) -> list[Decided]:
        """Return the decision about each message, in order; a failure affects only its own message."""
        if not opened:
            return []
        prepared = [_Prepared(source) for source in opened]
        loading: list[_Prepared] = []
        for ready in prepared:
            route, message = ready.opened.route, ready.opened.message
            try:
                ready.value = route.handler.decode(message.body, message.header.typ)
                ready.properties = route.handler.properties(ready.value)
            except BadBody as error:
                ready.error = error
                continue
            except Exception as error:  # noqa: BLE001  a model's own validators may raise anything about hostile bytes
                self._operator_log.warning("decoding a body for %s failed: %s", route.action, type(error).__name__)
                ready.error = BadBody(type(error).__name__)
                continue
            if route.loads_resource:
                # This stands unless loading ends: without a resource the policy cannot be asked.
                ready.error = ResourceUnavailable("not loaded")
                loading.append(ready)
        if loading:
            await self._load(loading)
        now = self._clock()
        for ready in prepared:
            if ready.error is None:
                self._ask(ready, now)
        await self._decide([ready for ready in prepared if ready.error is None])
        return [ready.decided() for ready in prepared]

    async def decide(self, documents: Sequence[bytes]) -> Sequence[Decision | PolicyUnavailable | PolicyFailed]:
        """Return the engine's answers. If it raises, or returns a wrong number of answers, each is an error."""
        began = time.perf_counter()
        try:
            answers = await self._engine.decide(documents)
        except (PolicyUnavailable, PolicyFailed) as error:
            return [error] * len(documents)
        except asyncio.CancelledError:
            if being_cancelled():
                raise
            return [PolicyUnavailable("CancelledError")] * len(documents)
        except Exception as error:  # noqa: BLE001  an engine's fault must not end a worker; only its type is logged
            _logger.warning("the policy engine failed: %s", type(error).__name__)
            return [PolicyUnavailable(type(error).__name__)] * len(documents)
        finally:
            self._took.observe(time.perf_counter() - began, n=len(documents))
        if len(answers) != len(documents):
            return [PolicyFailed("the engine's answers do not match the questions")] * len(documents)
        return answers

    async def _load(self, loading: Sequence[_Prepared]) -> None:
        """Do step 15 for a batch: `LOADING` loads at a time, each with its own deadline.

        The whole batch has twice the longest deadline. A resource that is not loaded by then counts as unavailable.
        """
        rest = iter(loading)

        async def load_some() -> None:
            for ready in rest:
                await _load_one(ready, self._operator_log)

        within = 2 * max([ready.opened.route.resource_timeout for ready in loading])
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within), asyncio.TaskGroup() as group:
                for _ in range(min(LOADING, len(loading))):
                    group.create_task(load_some())

    def _ask(self, ready: _Prepared, now: int) -> None:
        try:
            ready.document = input_document(request_of(ready.opened, ready.properties, ready.resource, now=now))
        except PolicyFailed as error:
            self._operator_log.warning(
                "the policy cannot be asked about %s: %s", ready.opened.route.action, error.detail
            )
            ready.error = error
        except SealbusError as error:
            ready.error = PolicyFailed(error.detail)

    async def _decide(self, asking: Sequence[_Prepared]) -> None:
        if not asking:
            return
        answers = await self.decide([ready.document for ready in asking])
        for ready, answer in zip(asking, answers, strict=True):
            if isinstance(answer, Decision):
                ready.decision = answer
                unknown = unknown_obligation(answer.obligations, ready.opened.route.options.honours)
                if answer.allow is True and unknown is not None:
                    ready.error = ObligationUnknown(f"no handler honours {unknown[:64]!a}")
            else:
                ready.error = answer


class _Prepared:
    """One message inside the authorizer; becomes a `Decided`."""

    __slots__ = ("decision", "document", "error", "opened", "properties", "resource", "value")

    def __init__(self, opened: Opened) -> None:
        self.opened = opened
        self.value: object = None
        self.properties: dict[str, object] | object = {}
        self.resource: Resource = NO_RESOURCE
        self.document = b""
        self.decision: Decision | None = None
        self.error: SealbusError | None = None

    def decided(self) -> Decided:
        return Decided(self.opened, self.value, self.document, self.decision, self.error)


async def _load_one(ready: _Prepared, operator_log: OperatorLog) -> None:
    route = ready.opened.route
    try:
        async with asyncio.timeout(route.resource_timeout):
            ready.resource = await route.handler.resource(ready.value)
        ready.error = None
    except ResourceNotFound as error:
        ready.error = error
    except ConfigurationError as error:
        # A mistake of the loader, which recurs at each try. The text names an attribute and no value.
        operator_log.warning("the resource for %s is not valid policy input: %s", route.action, error.detail)
        ready.error = PolicyFailed(error.detail)
    except asyncio.CancelledError:
        if being_cancelled():
            raise
        ready.error = ResourceUnavailable("CancelledError")
    except TimeoutError:
        ready.error = ResourceUnavailable(f"not loaded within {route.resource_timeout:g} s")
    except (KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException as error:  # noqa: BLE001  a loader may raise anything; only its type is logged, never its text
        operator_log.warning("loading the resource for %s failed: %s", route.action, type(error).__name__)
        ready.error = ResourceUnavailable(type(error).__name__)


def request_of(opened: Opened, properties: object, resource: Resource, *, now: int) -> Request:
    """Return the policy request for one opened message."""
    request = request_about(opened.message, opened.route.action, properties, resource, now=now)
    if opened.resumed is None:
        return request
    return replace(request, approvals=opened.resumed.approvals, parked=opened.resumed.parked)


def request_about(
    message: VerifiedMessage, action: str, properties: object, resource: Resource, *, now: int
) -> Request:
    """Return the policy request for a message without approvals."""
    header = message.header
    return Request(
        caller=caller_for(
            header.iss,
            message.context,
            tuple([link.iss.value for link in message.chain]),
            _grant(message),
            Declaration.declared_in(header.ext) if header.ext else None,
        ),
        action=action,
        properties=properties if isinstance(properties, dict) else {},
        resource=resource,
        time=now,
        nats_subject=header.to,
        kind=header.kind.value,
        message_id=header.id.hex(),
        delivery=message.arrival.delivery if isinstance(message.arrival, StreamArrival) else 1,
    )


@lru_cache(maxsize=256)  # a user mostly sends several messages; at most 10 MiB
def caller_for(
    subject: SpiffeId,
    context: UserContext | None,
    chain: tuple[str, ...] = (),
    grant: tuple[str, ...] | None = None,
    declared: Declaration | None = None,
) -> Caller:
    """Return the caller `subject`, acting for the user of `context`; an empty `chain` stands for `subject` alone.

    `declared` is None, which needs no hashing, for a caller that declares nothing.
    """
    return Caller(
        subject=subject.value,
        trust_domain=subject.trust_domain.name,
        tenant=(context.ten or "") if context is not None else "",
        user=_user(context) if context is not None else NO_USER,
        chain=chain or (subject.value,),
        grant=grant,
        declared=declared or NOTHING_DECLARED,
    )


def _user(context: UserContext) -> User:
    return User(
        id=context.sub,
        idp=context.idp,
        session=context.sid,
        txn=context.txn.hex(),
        client=context.cid,
        scope=context.scp,
        claims=context.clm,
        acr=context.acr or "",
        auth_time=(context.aut or 0) // SECOND,
        type="user" if context.typ is None else context.typ.value,
        domain="" if context.dom is None else context.dom.name,
    )


def _grant(message: VerifiedMessage) -> tuple[str, ...] | None:
    """Return the grant of the nearest limiting ancestor; step 12 has checked every ancestor."""
    for link in reversed(message.chain[:-1]):
        if link.grt is not None:
            return link.grt
    return None
