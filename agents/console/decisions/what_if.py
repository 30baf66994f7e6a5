"""Ask a policy that is not in force about the recorded decisions of a period.

The policy is a text that a person pasted. So it is checked, compiled and asked in a process of its own. The process is killed
if it runs too long, and only its answers come back (`sealbus.policies.backtest.candidate`).
"""

from __future__ import annotations

import asyncio
import json
import sys
from base64 import b64encode
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from sealbus.agents.console.decisions.rows import DecisionRow
from sealbus.agents.console.documents import FlippedDocument, WhatIfDocument
from sealbus.envelopes.errors import Code, PolicyFailed, SealbusError
from sealbus.policies.backtest.recorded import Change, NotReplayable, RecordedDecision, changes_of
from sealbus.policies.bundle.check import DECISION
from sealbus.policies.bundle.format import Bundle
from sealbus.policies.decision.approval import APPROVAL
from sealbus.policies.decision.decision import Decision, parse_decision
from sealbus.policies.decision.request import completed_document

MOST: Final = 5_000
"""Most decisions of one request, the newest first."""
WITHIN: Final = 30.0
"""Seconds after which the policy's process is killed."""
SHOWN: Final = 200
"""Most changed decisions that are shown; all are counted."""
_PROGRAM: Final = "from sealbus.policies.backtest.candidate import main; main()"


class WhatIfRefused(SealbusError):
    """The policy is refused, or runs too long; `detail` says why, with file and line."""

    code = Code.CONFIGURATION


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayableDecision:
    """A recorded decision: its row, and its question for a policy."""

    row: DecisionRow
    recorded: RecordedDecision


@dataclass(slots=True, kw_only=True)
class WhatIf:
    """The result of the comparison."""

    read: int = 0
    same: int = 0
    changes: Counter[Change] = field(default_factory=Counter)
    not_replayable: Counter[NotReplayable] = field(default_factory=Counter)
    flipped: list[FlippedDocument] = field(default_factory=list)

    def document(self) -> WhatIfDocument:
        """Return it as JSON."""
        return {
            "read": self.read,
            "compared": self.same + self.changes.total(),
            "same": self.same,
            "changes": {str(change): count for change, count in sorted(self.changes.items())},
            "not_replayable": {str(why): count for why, count in sorted(self.not_replayable.items())},
            "flipped": self.flipped,
            "problems": [f"{count} {why}" for why, count in sorted(self.not_replayable.items())],
        }


async def answers_of(
    bundle: Bundle, files: Mapping[str, str], decisions: Sequence[ReplayableDecision], *, within: float = WITHIN
) -> WhatIf:
    """Return which of `decisions` come out differently under `bundle` with its files replaced by `files`.

    Raises `WhatIfRefused` for a policy that is refused, or that has not finished after `within` seconds.
    """
    result = WhatIf()
    compared: list[ReplayableDecision] = []
    questions = []
    for decision in decisions[:MOST]:
        result.read += 1
        question = decision.recorded.question()
        if isinstance(question, NotReplayable):
            result.not_replayable[question] += 1
            continue
        rule = APPROVAL if decision.recorded.of_approval else DECISION
        questions.append({"rule": rule, "input": completed_document(question).decode()})
        compared.append(decision)
    replies = await _ask(
        {"bundle": b64encode(bundle.raw).decode(), "files": dict(files), "questions": questions}, within
    )
    for decision, reply in zip(compared, replies, strict=True):
        answer = _answer(reply)
        changes = changes_of(decision.recorded, answer)
        if not changes:
            result.same += 1
            continue
        result.changes.update(changes[:1])
        if len(result.flipped) < SHOWN:
            result.flipped.append(
                {
                    "row": decision.row.document(),
                    "was": {"allow": decision.row.allow, "reasons": decision.row.reasons},
                    "now": {
                        "allow": answer.allow if isinstance(answer, Decision) else False,
                        "reasons": answer.reasons if isinstance(answer, Decision) else ["policy_error"],
                    },
                    "change": str(changes[0]),
                }
            )
    return result


async def _ask(question: Mapping[str, object], within: float) -> list[object]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        _PROGRAM,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with asyncio.timeout(within):
            data, _ = await process.communicate(json.dumps(question).encode())
    except TimeoutError as error:
        raise WhatIfRefused(f"this policy has not finished after {within:g} s: it may never end") from error
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode != 0:
        raise WhatIfRefused("this policy takes more time or memory than it may")
    reply = json.loads(data)
    if "refused" in reply:
        raise WhatIfRefused(str(reply["refused"]))
    answers = reply["answers"]
    return answers if isinstance(answers, list) else []


def _answer(reply: object) -> Decision | PolicyFailed:
    try:
        return parse_decision(reply, revision="what-if", engine="embedded", micros=0)
    except PolicyFailed as error:
        return error
