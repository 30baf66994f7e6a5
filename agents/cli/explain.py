"""`sealbus explain CODE`: the meaning of a stable code or an acceptance step, whose fault it is, and what to do next."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import click

from sealbus.agents.cli.options import json_option
from sealbus.agents.cli.output import print_json

if TYPE_CHECKING:
    from sealbus.agents.cli.explanations import CodeText


@click.command("explain")
@click.argument("code", required=False)
@json_option
def command(code: str | None, as_json: bool) -> None:
    """Say what CODE means, whose fault it is and what to do next; CODE is a code or the number of a step.

    Codes stand in brackets behind errors, and in records, statuses and findings. Without CODE all are listed. To explain a
    decision of a policy, see `sealbus policy explain`.
    """
    from sealbus.agents.cli.explanations import CODES, FINDINGS, STEPS, page_named

    if code is None:
        _list(as_json=as_json)
        return
    if code.isdecimal() and int(code) in STEPS:
        step = STEPS[int(code)]
        if as_json:
            print_json({"step": int(code), "name": step.name, "checks": step.checks})
        else:
            click.echo(f"step {int(code)}, {step.name}: {step.checks}\n  more: {page_named('spec.md#7-acceptance')}")
        return
    texts = {
        "": next((text for name, text in CODES.items() if name == code), None),
        "finding": next((text for name, text in FINDINGS.items() if name == code), None),
    }
    if not any(texts.values()):
        raise click.UsageError(_unknown(code))
    for kind, text in texts.items():
        if text is not None and as_json:
            print_json(_document(code, kind, text))
        elif text is not None:
            heading = f"{code} (a finding of a verifier)" if kind else code
            click.echo("\n".join((heading, *_lines(text))))


def _list(*, as_json: bool) -> None:
    from sealbus.agents.cli.explanations import CODES, FINDINGS

    for kind, texts in (("", CODES), ("finding", FINDINGS)):
        for code, text in texts.items():
            if as_json:
                print_json(_document(code, kind, text))
            else:
                click.echo(f"{code:<26} {text.meaning}")


def _document(code: str, kind: str, text: CodeText) -> Mapping[str, object]:
    named = {"code": str(code), "kind": kind or "code"}
    return {**named, "meaning": text.meaning, "fault": str(text.fault), "next": text.advice, "page": text.place}


def _lines(text: CodeText) -> Iterator[str]:
    yield f"  {text.meaning}"
    yield f"  fault: {text.fault}"
    yield f"  next: {text.advice}"
    yield f"  more: {text.place}"


def _unknown(code: str) -> str:
    from difflib import get_close_matches

    from sealbus.agents.cli.explanations import CODES, FINDINGS

    near = get_close_matches(code[:64], [*CODES, *FINDINGS], n=3)
    hint = (
        f": did you mean {' or '.join(near)}?" if near else ": `sealbus explain` lists all; a handler may have its own"
    )
    return f"{code[:64]!r} is no code of sealbus and no step{hint}"
