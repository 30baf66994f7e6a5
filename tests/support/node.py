"""What a kubelet does, on this machine and without containers: pods as processes, each pod a user of its own.

`support.places` has the list of what is not as the YAML says.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from stack.probes import http_well
from stack.program import Program, output_of
from stack.run_as import as_user
from stack.site import SEALBUS
from stack.spire import Spire
from stack.spire_entry import Entry
from stack.tools import find_tool
from support.places import Places
from support.pods import Container, Deployed, Pod

from sealbus.agents.dev.nats.server import find_nats_server
from sealbus.envelopes.errors import ConfigurationError
from sealbus.envelopes.trust.spiffe_id import SpiffeId

__all__ = ["Node", "entries", "in_order", "numbered"]

FIRST_UID: Final = 22_000
SECONDS: Final = 90.0
AGAIN: Final = 0.5
LONGEST: Final = 2.0


def numbered(pods: Deployed) -> Deployed:
    """Return the same with a user for each pod that has none."""
    return replace(
        pods, pods=tuple(replace(pod, uid=pod.uid or FIRST_UID + at) for at, pod in enumerate(pods.pods, start=1))
    )


def in_order(pods: Deployed, order: Mapping[str, tuple[str, ...]], others: tuple[str, ...]) -> Deployed:
    """Return the same, each pod after those that `order` says, or after `others`."""
    return replace(pods, pods=tuple(replace(pod, after=order.get(pod.name, others)) for pod in pods.pods))


def entries(pods: Deployed) -> list[Entry]:
    """Return SPIRE's entries for them, one for each identity of each user."""
    found = {
        (pod.uid, pod.spiffe_id): Entry(
            spiffe_id=SpiffeId(pod.spiffe_id),
            uid=pod.uid,
            x509_ttl=pod.x509_ttl,
            jwt_ttl=pod.jwt_ttl,
            dns=(*pod.dns, "localhost") if pod.dns else (),
        )
        for pod in pods.pods
    }
    return list(found.values())


class Node:
    """Run `pods` below `folder`, which everybody must be able to enter, with identities of `spire`.

    All are started on entering, but for those that wait for others, and stopped afterwards; `ready` waits for some or all.
    """

    def __init__(self, pods: Deployed, folder: Path, spire: Spire) -> None:
        self.places: Final = Places(pods, folder, spire.agent.socket)
        self._pods = pods
        self._folder = folder
        names = [name for pod in pods.pods for name in (pod.name, *pod.after)]
        self._ready = {name: asyncio.Event() for name in names}
        self._programs: dict[str, list[Program]] = {pod.name: [] for pod in pods.pods}
        self._running: list[asyncio.Task[None]] = []
        self._failed: list[BaseException] = []

    async def __aenter__(self) -> Self:
        for pod in self._pods.pods:
            self.places.home(pod).mkdir(mode=0o711)
        self._running = [asyncio.create_task(self._run(pod), name=pod.name) for pod in self._pods.pods]
        for task in self._running:
            task.add_done_callback(self._ended)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
        # The broker is the first in the YAML, and ends last: who works has to say so.
        for pod in reversed(self._pods.pods):
            for program in reversed(self._programs[pod.name]):
                await program.stop()

    async def ready(self, *names: str) -> None:
        """Return once these pods are ready, or have done what they do once; raise with why containers ended otherwise."""
        wanted = names or tuple(pod.name for pod in self._pods.pods)
        try:
            async with asyncio.timeout(SECONDS):
                for name in wanted:
                    await self._ready[name].wait()
        except TimeoutError as error:
            missing = [name for name in wanted if not self._ready[name].is_set()]
            raise AssertionError(f"not ready: {missing}; {self._restarts()}") from error
        if self._failed:
            raise self._failed[0]

    async def stop(self, name: str) -> None:
        """Stop the programs of a pod, for good."""
        for program in reversed(self._programs[name]):
            await program.stop()

    def done(self, name: str) -> None:
        """Say that something was done which pods wait for, and which is no pod."""
        self._ready[name].set()

    def environment(self, pod: str, container: str) -> dict[str, str]:
        """Return what a container finds in its environment, for a command beside it."""
        found = self._pods.pod(pod)
        return {"PATH": _path(), **self.places.environment(found, found.container(container))}

    def _ended(self, task: asyncio.Task[None]) -> None:
        """Let whoever waits see at once what cannot be mended by another try."""
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._failed.append(error)
            for event in self._ready.values():
                event.set()

    async def _run(self, pod: Pod) -> None:
        for name in pod.after:
            await self._ready[name].wait()
        for container in pod.first:
            await (self._start if container.sidecar else self._once)(pod, container)
        async with asyncio.TaskGroup() as group:
            for container in pod.containers:
                group.create_task((self._once if pod.once else self._start)(pod, container))
        self._ready[pod.name].set()

    async def _once(self, pod: Pod, container: Container) -> None:
        command = await asyncio.to_thread(self._command, pod, container)
        environment = self.environment(pod.name, container.name)

        async def run() -> None:
            await output_of(command, environment=environment, within=SECONDS)

        await self._until(run, pod, container)

    async def _start(self, pod: Pod, container: Container) -> None:
        program = Program(
            await asyncio.to_thread(self._command, pod, container),
            name=f"{pod.name}/{container.name}",
            log=self.places.home(pod) / f"{container.name}.log",
            healthy=self._probe(pod, container),
            environment=self.environment(pod.name, container.name),
        )
        self._programs[pod.name].append(program)
        await self._until(program.start, pod, container)

    async def _until(self, action: Callable[[], Awaitable[None]], pod: Pod, container: Container) -> None:
        pause = AGAIN
        while True:
            try:
                await action()
            except ConfigurationError as error:
                with (self.places.home(pod) / f"{container.name}.restarts").open("a") as file:
                    file.write(f"{error.detail}\n")
                await asyncio.sleep(pause)
                pause = min(2 * pause, LONGEST)
            else:
                return

    def _restarts(self) -> str:
        files = sorted(self._folder.glob("*/*.restarts"))
        return "\n\n".join(f"{file.parent.name}/{file.stem}: {file.read_text()}" for file in files)

    def _command(self, pod: Pod, container: Container) -> tuple[str, ...]:
        self.places.materialize(pod, container)
        words = [self.places.rewritten(word, pod, container) for word in (*container.command, *container.arguments)]
        return (*as_user(pod.uid, pod.uid), *(() if container.command else _program(container.image)), *words)

    def _probe(self, pod: Pod, container: Container) -> Callable[[], Awaitable[bool]]:
        if container.ready is None:
            return _started
        if container.ready.path:
            return http_well(self.places.port(pod.name, container.ready.port), container.ready.path)
        # Inside of the container it is the same address.
        words = [word.replace("127.0.0.1:", "0.0.0.0:") for word in container.ready.command]
        command = [self.places.rewritten(word, pod, container) for word in words]

        async def well() -> bool:
            try:
                await output_of(command, environment={"PATH": _path()})
            except ConfigurationError:
                return False
            return True

        return well


def _path() -> str:
    """Return PATH with our Python and an opa, which our image has as well."""
    return os.pathsep.join(
        [str(Path(sys.executable).parent), str(find_tool("opa").parent), os.environ.get("PATH", os.defpath)]
    )


def _program(image: str) -> tuple[str, ...]:
    name = image.partition(":")[0]
    if name == "sealbus":
        return (SEALBUS,)
    return (str(find_nats_server() if name == "nats" else find_tool({"openpolicyagent/opa": "opa"}[name])),)


async def _started() -> bool:
    return True
