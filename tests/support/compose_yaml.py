"""Pods out of a compose file: each service is one, with the user, the mounts, the health check and the order that it says."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from support.pods import Container, Deployed, Files, Mount, Pod, Probe, Scratch, WorkloadApi

__all__ = ["deployed_by_compose"]

_VARIABLE = re.compile(r"\$\{(\w+)\}")
SOCKET_FOLDER = "SPIRE_SOCKETS"


class _Loader(yaml.SafeLoader):
    """Knows compose's `!reset`, which takes away what a merge has put there."""


_Loader.add_constructor("!reset", lambda loader, node: None)

Document = Mapping[str, Any]


def deployed_by_compose(file: Path, variables: Mapping[str, str], secrets: Path) -> Deployed:
    """Return the services of `file` as pods; `secrets` stands for its folder of that name, `variables` for `.env`.

    A variable that is not there is a KeyError.
    """
    variables = {**variables, SOCKET_FOLDER: SOCKET_FOLDER}
    document = yaml.load(file.read_text(), Loader=_Loader)  # noqa: S506  a safe one, and one tag
    services: Mapping[str, Document] = _interpolated(document["services"], variables)
    return Deployed(
        pods=tuple(_pod(name, service, services, file.parent, secrets) for name, service in services.items()),
        services={
            (name, int(port)): (name, int(port))
            for name, service in services.items()
            for port in service.get("expose", ())
        },
    )


def _interpolated(node: Any, variables: Mapping[str, str]) -> Any:
    """Put variables into the values of a document that was read, as compose does."""
    if isinstance(node, str):
        return _VARIABLE.sub(lambda found: variables[found[1]], node)
    if isinstance(node, dict):
        return {name: _interpolated(value, variables) for name, value in node.items()}
    return [_interpolated(one, variables) for one in node] if isinstance(node, list) else node


def _pod(name: str, service: Document, services: Mapping[str, Document], folder: Path, secrets: Path) -> Pod:
    environment = dict(service.get("environment", {}))
    for file in service.get("env_file", ()):
        lines = _in(file, folder, secrets).read_text().split()
        environment |= dict(line.split("=", 1) for line in lines)
    uid, gid = service["user"].split(":")
    assert uid == gid != "0"
    check = service.get("healthcheck", {}).get("test", ())
    assert not check or check[0] == "CMD"
    container = Container(
        name=name,
        image=service["image"],
        arguments=tuple(service["command"]),
        environment=environment,
        mounts=tuple(_mount(one, folder, secrets) for one in service["volumes"]),
        ready=Probe(command=tuple(check[1:])) if check else None,
    )
    labels = service["labels"]
    return Pod(
        name=name,
        spiffe_id=labels["spiffe_id"],
        dns=tuple(labels.get("dns", "").split()),
        first=(),
        containers=(container,),
        uid=int(uid),
        once=any(
            other.get("depends_on", {}).get(name, {}).get("condition") == "service_completed_successfully"
            for other in services.values()
        ),
        after=tuple(service.get("depends_on", {})),
    )


def _in(source: str, folder: Path, secrets: Path) -> Path:
    inside = source.removeprefix("./")
    if inside.startswith("secrets/"):
        return secrets / inside.removeprefix("secrets/")
    return folder / inside


def _mount(text: str, folder: Path, secrets: Path) -> Mount:
    source, path = text.removesuffix(":ro").split(":")
    if source == SOCKET_FOLDER:
        return Mount(path=path, source=WorkloadApi("agent.sock"))
    if source.startswith("./state/"):
        return Mount(path=path, source=Scratch(source.removeprefix("./state/"), shared=True))
    place = _in(source, folder, secrets)
    # Keys are their users' own, as README.md has them made.
    private = source.startswith(("./secrets/callout", "./secrets/serve"))
    if place.is_file():
        return Mount(path=path, source=Files(content={place.name: place.read_bytes()}), file=place.name)
    content = {str(one.relative_to(place)): one.read_bytes() for one in place.rglob("*") if one.is_file()}
    assert content, f"{place} is empty"
    return Mount(
        path=path, source=Files(content=content, public=not private, mode=0o400 if private else 0o644, own=private)
    )
