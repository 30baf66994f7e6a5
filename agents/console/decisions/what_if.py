"""What a changed policy would have said: recorded decisions of a period, asked again of a policy that is not in force.

The policy is whatever somebody pasted. So it is checked, compiled and asked in a process of its own, which is ended if it
does not come to an end, and only its answers come back (`sealbus.policies.backtest.candidate`).
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
"""Most decisions that one question looks at, the newest first."""
WITHIN: Final = 30.0
"""Seconds until a policy that does not end is ended."""
SHOWN: Final = 200
"""Most decisions that are shown as flipped; all are counted."""
_PROGRAM: Final = "from sealbus.policies.backtest.candidate import main; main()"


class WhatIfRefused(SealbusError):
    """The policy is none, or does not come to an end; `detail` says with file and line what is wrong."""

    code = Code.CONFIGURATION


@dataclass(frozen=True, slots=True, kw_only=True)
class AskedAgain:
    """A recorded decision, as a list shows it and as it can be asked again."""

    row: DecisionRow
    recorded: RecordedDecision


@dataclass(slots=True, kw_only=True)
class WhatIf:
    """What came of it."""

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
    bundle: Bundle, files: Mapping[str, str], decisions: Sequence[AskedAgain], *, within: float = WITHIN
) -> WhatIf:
    """Return which of `decisions` come out otherwise by `bundle` with `files` in place of its own.

    Raises `WhatIfRefused` for a policy that is refused, and for one that is not through after `within` seconds.
    """
    found = WhatIf()
    asked: list[AskedAgain] = []
    questions = []
    for one in decisions[:MOST]:
        found.read += 1
        question = one.recorded.question()
        if isinstance(question, NotReplayable):
            found.not_replayable[question] += 1
            continue
        rule = APPROVAL if one.recorded.of_approval else DECISION
        questions.append({"rule": rule, "input": completed_document(question).decode()})
        asked.append(one)
    told = await _ask({"bundle": b64encode(bundle.raw).decode(), "files": dict(files), "questions": questions}, within)
    for one, said in zip(asked, told, strict=True):
        answer = _answer(said)
        changes = changes_of(one.recorded, answer)
        if not changes:
            found.same += 1
            continue
        found.changes.update(changes[:1])
        if len(found.flipped) < SHOWN:
            found.flipped.append(
                {
                    "row": one.row.document(),
                    "was": {"allow": one.row.allow, "reasons": one.row.reasons},
                    "now": {
                        "allow": answer.allow if isinstance(answer, Decision) else False,
                        "reasons": answer.reasons if isinstance(answer, Decision) else ["policy_error"],
                    },
                    "change": str(changes[0]),
                }
            )
    return found


async def _ask(asked: Mapping[str, object], within: float) -> list[object]:
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
            data, _ = await process.communicate(json.dumps(asked).encode())
    except TimeoutError as error:
        raise WhatIfRefused(f"this policy is not through after {within:g} s: it may never end") from error
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode != 0:
        raise WhatIfRefused("this policy takes more time or memory than it may")
    said = json.loads(data)
    if "refused" in said:
        raise WhatIfRefused(str(said["refused"]))
    answers = said["answers"]
    return answers if isinstance(answers, list) else []


def _answer(said: object) -> Decision | PolicyFailed:
    try:
        return parse_decision(said, revision="what-if", engine="embedded", micros=0)
    except PolicyFailed as error:
        return error
