"""Witness policies: which logs and witnesses count, and which witnesses together are enough (C2SP tlog-policy).

A checkpoint with enough cosignatures was seen by others than its log. Nobody can be shown another history without them.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, TypeAlias

from sealbus.envelopes.errors import Code, LogError
from sealbus.envelopes.limits import DEFAULT_LIMITS
from sealbus.envelopes.log.checkpoint import SignedCheckpoint, open_checkpoint
from sealbus.envelopes.log.cosignature import CosignatureVerifier, verify_cosignatures
from sealbus.envelopes.log.note import NoteVerifier, check_all_signers, parse_note, parse_number

NONE: Final = "none"
"""The quorum that needs no cosignature."""
_SPACES: Final = re.compile("[ \t]+")
_COMMENT: Final = "#"
_CONTROL: Final = re.compile("[\x00-\x08\x0b-\x1f\x7f]")
"""All of ASCII's but tab and newline."""
_NAME: Final = re.compile("[^\x00-\x20\x7f\ud800-\udfff]+")
_MOST_URL: Final = 2_048

Verifier: TypeAlias = "NoteVerifier | CosignatureVerifier"


@dataclass(frozen=True, slots=True)
class PolicyLog:
    """A known log. `url` may be empty; only who speaks to the log needs it."""

    verifier: NoteVerifier
    url: str = ""

    def __post_init__(self) -> None:
        _check_url(self.url)


@dataclass(frozen=True, slots=True)
class PolicyWitness:
    """A known witness. `name` is for groups and the quorum alone: `verifier` has the name that its cosignatures have."""

    name: str
    verifier: CosignatureVerifier
    url: str = ""

    def __post_init__(self) -> None:
        _check_name(self.name)
        _check_url(self.url)


@dataclass(frozen=True, slots=True)
class PolicyGroup:
    """A group, which has witnessed a checkpoint if at least `threshold` of its `members` have."""

    name: str
    threshold: int
    members: tuple[str, ...]

    def __post_init__(self) -> None:
        _check_name(self.name)
        if not 1 <= self.threshold <= len(self.members):
            raise LogError(Code.BAD_NOTE, "a threshold is from 1 to the number of members")


@dataclass(frozen=True, slots=True)
class WitnessPolicy:
    """A policy. Raises `LogError` (`bad_note`) for values that no policy can have.

    At most 32 each of `logs`, `witnesses` and `groups`; no key twice. Members of a group are witnesses or earlier groups,
    and each is the member of one group, so that no witness counts twice. `quorum` is a witness, a group, or `none`.
    """

    logs: tuple[PolicyLog, ...]
    witnesses: tuple[PolicyWitness, ...]
    groups: tuple[PolicyGroup, ...]
    quorum: str

    def __post_init__(self) -> None:
        if max(len(self.logs), len(self.witnesses), len(self.groups)) > DEFAULT_LIMITS.witness_policy_lines:
            raise LogError(Code.BAD_NOTE, "too many logs, witnesses or groups in the policy")
        verifiers: list[Verifier] = [log.verifier for log in self.logs]
        verifiers += [witness.verifier for witness in self.witnesses]
        names = [witness.name for witness in self.witnesses]
        _check_distinct([verifier.public for verifier in verifiers], "a public key")
        _check_distinct([(verifier.name, verifier.key_id) for verifier in verifiers], "a key name and id")
        _check_distinct([NONE, *names, *(group.name for group in self.groups)], "a name")
        _check_distinct([member for group in self.groups for member in group.members], "a member")
        defined = {*names}
        for group in self.groups:
            _check_defined(group.members, defined)
            defined.add(group.name)
        _check_defined([self.quorum], {NONE, *defined})

    @classmethod
    def parse(cls, data: bytes) -> WitnessPolicy:
        """Parse the text of a policy; raise `LogError` (`bad_note`), which names the line, for any other bytes.

        At most 262,144 bytes of UTF-8; every line ends with a newline. Keys of logs are Ed25519 (0x01), those of witnesses
        Ed25519 (0x04) or ML-DSA-44 (0x06). Numbers have no leading zero.
        """
        if len(data) > DEFAULT_LIMITS.witness_policy_bytes:
            raise LogError(Code.BAD_NOTE, "policy: too large")
        try:
            *lines, rest = data.decode("utf-8").split("\n")
        except UnicodeDecodeError as error:
            raise LogError(Code.BAD_NOTE, "policy: not UTF-8") from error
        if rest:
            raise LogError(Code.BAD_NOTE, "policy: its last line does not end")
        reader = _Lines()
        for number, line in enumerate(lines, 1):
            try:
                reader.take_line(line)
            except LogError as error:
                raise LogError(Code.BAD_NOTE, f"policy: line {number}: {error.detail}") from error
        return reader.policy()

    @property
    def names(self) -> Mapping[CosignatureVerifier, str]:
        """The names of the witnesses, by their keys."""
        return {witness.verifier: witness.name for witness in self.witnesses}

    @property
    def text(self) -> str:
        """The policy in its shortest spelling, without comments; `parse` of it returns an equal policy."""
        rows = [
            *(("log", log.verifier.text, log.url) for log in self.logs),
            *(("witness", witness.name, witness.verifier.text, witness.url) for witness in self.witnesses),
            *(("group", group.name, str(group.threshold), *group.members) for group in self.groups),
            ("quorum", self.quorum),
        ]
        return "".join(" ".join(filter(None, row)) + "\n" for row in rows)

    def has_quorum(self, cosigners: Collection[str]) -> bool:
        """Return whether the witnesses named in `cosigners` are together enough. Other names do not count."""
        witnessed = {NONE, *(name for name in self.names.values() if name in cosigners)}
        for group in self.groups:
            if len(witnessed.intersection(group.members)) >= group.threshold:
                witnessed.add(group.name)
        return self.quorum in witnessed


def open_cosigned(note: bytes, origin: str, keys: Sequence[NoteVerifier], policy: WitnessPolicy) -> SignedCheckpoint:
    """Verify `note` as a checkpoint of the log `origin` that one of its `keys` has signed. The quorum is not asked.

    Each signature line is by one of `keys` or of the policy's witnesses, at most one by each, and holds. Raises `LogError`
    as `open_strictly` does, and `bad_note_signature` for a cosignature that does not hold.
    """
    signed = open_checkpoint(note, origin=origin, verifiers=keys)
    check_all_signers(note, [*keys, *policy.names])
    times = verify_cosignatures(parse_note(note), policy.names)
    return replace(signed, cosigners=tuple(policy.names[verifier] for verifier in times))


def check_logs(policy: WitnessPolicy, origin: str, keys: Collection[NoteVerifier]) -> None:
    """Raise `LogError` (`bad_note`) unless the logs of `policy` are `keys`, and each of these may sign the log `origin`."""
    if {log.verifier for log in policy.logs} != set(keys):
        raise LogError(Code.BAD_NOTE, "the logs of policy are not keys")
    if not all(f"{origin}/".startswith(f"{key.name}/") for key in keys):
        raise LogError(Code.BAD_NOTE, "the name of a key is not the origin or a prefix of it")


class _Lines:
    """The lines of a policy so far."""

    def __init__(self) -> None:
        self._logs: list[PolicyLog] = []
        self._witnesses: list[PolicyWitness] = []
        self._groups: list[PolicyGroup] = []
        self._quorum: str | None = None
        self._defined: set[str] = set()

    def take_line(self, line: str) -> None:
        """Take one line, without its newline."""
        if _CONTROL.search(line):
            raise LogError(Code.BAD_NOTE, "control character")
        line = line.strip(" \t")
        if not line or line.startswith(_COMMENT):
            return
        match _SPACES.split(line):
            case ["log", key, *url] if len(url) <= 1:
                self._logs.append(PolicyLog(NoteVerifier.parse(key), *url))
            case ["witness", name, key, *url] if len(url) <= 1:
                self._witnesses.append(PolicyWitness(name, CosignatureVerifier.parse(key), *url))
                self._defined.add(name)
            case ["group", name, threshold, *members]:
                _check_defined(members, self._defined)
                self._groups.append(PolicyGroup(name, _threshold(threshold, len(members)), tuple(members)))
                self._defined.add(name)
            case ["quorum", name] if self._quorum is None:
                _check_defined([name], {NONE, *self._defined})
                self._quorum = name
            case _:
                raise LogError(Code.BAD_NOTE, "not a line of a policy, or a second quorum")

    def policy(self) -> WitnessPolicy:
        """Return the policy of all lines."""
        if self._quorum is None:
            raise LogError(Code.BAD_NOTE, "policy: no quorum")
        return WitnessPolicy(tuple(self._logs), tuple(self._witnesses), tuple(self._groups), self._quorum)


def _threshold(word: str, members: int) -> int:
    match word:
        case "all":
            return members
        case "any":
            return 1
        case _:
            return parse_number(word, "threshold")


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name) or len(name.encode()) > DEFAULT_LIMITS.log_name_bytes:
        raise LogError(Code.BAD_NOTE, "a name in the policy")


def _check_url(url: str) -> None:
    if url and (not _NAME.fullmatch(url) or len(url.encode()) > _MOST_URL):
        raise LogError(Code.BAD_NOTE, "a URL in the policy")


def _check_distinct(values: Sequence[object], name: str) -> None:
    if len(set(values)) != len(values):
        raise LogError(Code.BAD_NOTE, f"{name} occurs twice in the policy")


def _check_defined(names: Iterable[str], defined: Collection[str]) -> None:
    if not all(name in defined for name in names):
        raise LogError(Code.BAD_NOTE, "a name in the policy that no earlier line defines")
