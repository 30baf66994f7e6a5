"""The wire format of OPA's API: the exact bytes of questions, and answers that are bounded before parsing.

Questions have the parameter `strict-builtin-errors`, so a builtin's error is an error and not undefined. They have
`provenance` for the revision that decided.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from sealbus.envelopes.encoding.codec import is_text
from sealbus.envelopes.encoding.strict_json import Json, parse_object
from sealbus.envelopes.errors import PolicyFailed, PolicyUnavailable

BATCH_PATH: Final = "/v1/data/sealbus/authz/batch"
CONNECT_PATH: Final = "/v1/data/sealbus/connect/decision"
APPROVAL_PATH: Final = "/v1/data/sealbus/approval/decision"
QUERY: Final[Mapping[str, str]] = {"provenance": "true", "strict-builtin-errors": "true"}
NESTING: Final = 32
SYSTEM: Final = "system"
"""The name of the bundle that guards OPA's own API, or of its folder. It decides no message, so it is in no revision."""


class NoPolicy(PolicyFailed):
    """OPA has no policy in force that could decide any question."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """The values of one answered question, in order, and the policy revision that gave them."""

    revision: str
    values: Sequence[object]


def batch_question(documents: Sequence[bytes]) -> bytes:
    """Return the body of a question about `documents`, which are inserted byte for byte.

    Each must be one whole JSON value, as `InputDocument` guarantees.
    """
    return b'{"input":{"batch":[' + b",".join(documents) + b"]}}"


def single_question(document: bytes) -> bytes:
    """Return the body of a question about one document, such as a connection; `document` is inserted byte for byte."""
    return b'{"input":' + document + b"}"


def parse_single_reply(status: int, body: bytes) -> tuple[str, object]:
    """Return the revision and value of OPA's answer to a single question; raises as `parse_reply` does.

    A policy without a rule for this question still answers others, so this is no failure of the server.
    """
    answer = _evaluated(status, body)
    revision = _revision(answer.get("provenance"))
    if "result" not in answer:
        raise PolicyFailed("the policy has no rule for this question, or it is undefined")
    return revision, answer["result"]


def parse_reply(status: int, body: bytes, count: int) -> Reply:
    """Parse OPA's answer to a question about `count` documents.

    Raises `PolicyFailed` if OPA evaluated but did not answer each document: an evaluation error (status 500 with the code
    `internal_error`), or a wrong number of answers. Raises `NoPolicy` if OPA could answer no question: the result is
    undefined, or there is no revision. Raises `PolicyUnavailable` for everything else: another status, or a body that is not
    OPA's answer.
    """
    answer = _evaluated(status, body)
    values = answer.get("result")
    if not isinstance(values, list):
        raise NoPolicy("OPA has no data.sealbus.authz.batch, or it is not an array")
    if len(values) != count:
        raise PolicyFailed(f"OPA gave {len(values)} decisions for {count} questions: decide is not total")
    return Reply(revision=_revision(answer.get("provenance")), values=values)


def _evaluated(status: int, body: bytes) -> dict[str, Json]:
    """Return the answer to a question that OPA evaluated."""
    try:
        answer = parse_object(body, depth=NESTING)
    except ValueError as error:
        raise PolicyUnavailable(f"OPA's answer, status {status}, is not a JSON object") from error
    if status != 200:
        errors = answer.get("errors")
        if status == 500 and answer.get("code") == "internal_error" and isinstance(errors, list):
            raise PolicyFailed(f"OPA could not evaluate: {_codes(errors)}")
        unknown = ": it does not let this workload ask" if status in (401, 403) else ""
        raise PolicyUnavailable(f"OPA answered with status {status}{unknown}")
    return answer


def _revision(provenance: object) -> str:
    """Return the revision of the one bundle in force, or of several as `name=revision`, joined by commas."""
    bundles = provenance.get("bundles") if isinstance(provenance, dict) else None
    revisions: dict[str, str] = {}
    for name, bundle in bundles.items() if isinstance(bundles, dict) else ():
        if name.rstrip("/").rpartition("/")[2] == SYSTEM:
            continue
        revision = bundle.get("revision") if isinstance(bundle, dict) else None
        if not isinstance(revision, str) or not revision:
            raise NoPolicy("OPA decides by a bundle without a revision")
        revisions[name] = revision
    if not revisions:
        raise NoPolicy("OPA decides by no bundle: start it with --bundle")
    joined = ",".join(f"{name}={revisions[name]}" for name in sorted(revisions))
    text = next(iter(revisions.values())) if len(revisions) == 1 else joined
    if not is_text(text):
        raise NoPolicy("OPA's revision is not a text of at most 256 bytes")
    return text


def _codes(errors: list[Json]) -> str:
    """Return OPA's error codes with their places, without its messages, which quote values."""
    texts: list[str] = []
    for error in errors[:4]:
        code = error.get("code") if isinstance(error, dict) else None
        location = error.get("location") if isinstance(error, dict) else None
        place = ""
        if isinstance(location, dict):
            place = f" at {location.get('file')}:{location.get('row')}:{location.get('col')}"
        texts.append(f"{str(code)[:64]}{place[:256]}")
    return ", ".join(texts)
