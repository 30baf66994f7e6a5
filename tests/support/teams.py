"""A platform and its teams, as bundles: small policies whose answers tell who gave them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from support.policies import signing_key

from sealbus.envelopes.encoding.strict_json import Json
from sealbus.envelopes.trust.keys import SigningKey, key_id, public_pem
from sealbus.policies.bundle.files import STARTER, build_bundle
from sealbus.policies.bundle.format import Bundle, Manifest, pack_bundle, read_bundle
from sealbus.policies.bundle.ownership import PLATFORM, team_root
from sealbus.policies.bundle.revocations import REVOCATIONS, REVOCATIONS_ROOT
from sealbus.policies.bundle.signing import sign_bundle

__all__ = [
    "AGENTS",
    "ONLY_OPA_REFUSES",
    "PLATFORM_FOLDER",
    "naming",
    "owner",
    "platform",
    "revocations",
    "signed_platform",
    "signed_team",
    "team",
    "team_policy",
]

PLATFORM_FOLDER = STARTER.parent / "platform"
AGENTS = {"stock": ("inventory",), "money": ("pricing", "billing")}


def owner(key: SigningKey, agents: Sequence[str]) -> Json:
    """Return what the platform says of a team."""
    return {"agents": dict.fromkeys(agents, True), "signers": {key_id(key.public): public_pem(key.public)}}


def platform(
    owners: Mapping[str, Json] | None, *, serial: int = 1, revoked: Mapping[str, Json] | None = None
) -> Bundle:
    """Return the platform's bundle of the package, with other owners and revocations; None for no owners at all."""
    built = build_bundle(PLATFORM_FOLDER, part=True)
    registry: dict[str, Json] = {
        "revoked": {"agents": {}, "users": {}, "sessions": {}, "clients": {}, **(revoked or {})}
    }
    data: dict[str, Json] = {"sealbus": {"registry": registry}}
    if owners is not None:
        data["sealbus"] = {"registry": registry, "platform": {"owners": dict(owners)}}
    modules = {module.path: module.text.encode() for module in built.modules}
    return read_bundle(pack_bundle(modules, data, Manifest(roots=built.roots, serial=serial)))


ONLY_OPA_REFUSES = "# METADATA\n# title: [\nodd(request) := 1 if request.v\n"
"""For `extra` of `team_policy`: OPA reads YAML in such comments, at line 9 of the policy."""


def team_policy(name: str, *, allow: str = "true", extra: str = "") -> str:
    """Return Rego that allows what `allow` says of the request."""
    return (
        f"package sealbus.teams.{name}\n\n"
        f'decide(request) := {{"allow": true, "reasons": [], "obligations": [], "policy": "{name}"}} if {{\n'
        f"\t{allow}\n"
        f'}} else := {{"allow": false, "reasons": ["not_{name}"], "obligations": [], "policy": "{name}"}} if {{\n'
        "\trequest.v\n}\n" + extra
    )


def team(
    name: str, policy: str | None = None, *, serial: int = 1, data: Json = None, roots: Sequence[str] = ()
) -> Bundle:
    """Return the bundle of a team; nothing is checked."""
    return read_bundle(
        pack_bundle(
            {"policy.rego": (policy if policy is not None else team_policy(name)).encode()},
            data if isinstance(data, dict) else {},
            Manifest(roots=tuple(roots) or (team_root(name),), serial=serial),
        )
    )


def signed_platform(
    key: SigningKey, teams: Mapping[str, SigningKey], *, serial: int = 1, revoked: Mapping[str, Json] | None = None
) -> bytes:
    """Return the platform's bundle, signed, for teams of `AGENTS` with one signer each."""
    owners = {name: owner(signer, AGENTS.get(name, (name,))) for name, signer in teams.items()}
    return sign_bundle(platform(owners, serial=serial, revoked=revoked), key, scope=PLATFORM).raw


def signed_team(
    name: str, key: SigningKey | None = None, policy: str | None = None, *, serial: int = 1, data: Json = None
) -> bytes:
    """Return the bundle of a team, signed by `key`, or by one that nobody knows."""
    return sign_bundle(team(name, policy, serial=serial, data=data), key or signing_key(), scope=name).raw


def revocations(key: SigningKey, serial: int = 1, *, session: str = "s-1") -> bytes:
    """Return the part with one session of https://idp.example, signed."""
    data: dict[str, Json] = {"sealbus": {"revocations": {"sessions": {"https://idp.example": {session: 1}}}}}
    made = pack_bundle({}, data, Manifest(revision="r", roots=(REVOCATIONS_ROOT,), serial=serial))
    return sign_bundle(read_bundle(made), key, scope=REVOCATIONS).raw


def naming(root: SigningKey, teams: Mapping[str, SigningKey], *keys: SigningKey, serial: int) -> bytes:
    """Return the platform's bundle, signed, with these keys as those that sign revocations."""
    built = read_bundle(signed_platform(root, teams))
    data = built.data
    above = data["sealbus"]
    assert isinstance(above, dict)
    assert isinstance(above["platform"], dict)
    above["platform"]["revokers"] = {key_id(key.public): public_pem(key.public) for key in keys}
    modules = {module.path: module.text.encode() for module in built.modules}
    changed = read_bundle(pack_bundle(modules, data, Manifest(roots=built.roots, serial=serial)))
    return sign_bundle(changed, root, scope=PLATFORM).raw
