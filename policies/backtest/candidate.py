"""A trial policy, made of a policy in force and changed files. A process that may be ended at any time asks it.

The process reads one JSON object and writes one::

    {"bundle": base64, "files": {path: text}, "questions": [{"rule": ..., "input": ...}]}
    {"answers": [value or null]} or {"refused": text}

A new policy may need any time and memory, so the process limits its own.
"""

from __future__ import annotations

import json
import resource
import sys
from base64 import b64decode
from collections.abc import Mapping
from typing import Final

from sealbus.envelopes.encoding.strict_json import Json
from sealbus.envelopes.errors import PolicyFailed
from sealbus.policies.bundle.check import check_bundle
from sealbus.policies.bundle.format import Bundle, Manifest, merge_data, pack_bundle, read_bundle
from sealbus.policies.bundle.library import in_library
from sealbus.policies.decision.documents import DataDocument, canonical
from sealbus.policies.lint.module import Module, PolicyRefused
from sealbus.policies.lint.regorus import Interpreter

PROCESSOR_SECONDS: Final = 25
MEMORY: Final = 4 << 30
"""Bytes of address space."""


def changed_bundle(bundle: Bundle, files: Mapping[str, str]) -> Bundle:
    """Return `bundle` with `files` (paths in it, `*.rego` and `data.json`) in place of its own, checked.

    Raises `PolicyRefused`. Files of the library are not changed: the library is that of the installed sealbus.
    """
    modules = {module.path: module.text.encode() for module in bundle.modules}
    data = bundle.data
    for path, text in files.items():
        if in_library(path):
            continue
        if path.endswith("data.json"):
            _replace(data, path)
            merge_data(data, path, text.encode())
        else:
            Module(path=path, text=text)
            modules[path] = text.encode()
    candidate = read_bundle(pack_bundle(modules, data, Manifest(revision="what-if", roots=bundle.roots)))
    check_bundle(candidate)
    return candidate


def _replace(data: DataDocument, path: str) -> None:
    """Remove from `data` the value at the place of the document `path`."""
    names = path.split("/")[:-1]
    inner: Json = data
    for name in names[:-1]:
        inner = inner.get(name) if isinstance(inner, dict) else None
    if names and isinstance(inner, dict):
        inner.pop(names[-1], None)
    elif not names:
        data.clear()


def answer_order(order: Mapping[str, Json]) -> Mapping[str, object]:
    """Return the answers of the changed policy to all questions, None without an answer; or why the policy is refused."""
    raw, files, questions = order["bundle"], order["files"], order["questions"]
    if not isinstance(raw, str) or not isinstance(files, dict) or not isinstance(questions, list):
        raise TypeError("not a valid order")
    try:
        bundle = changed_bundle(read_bundle(b64decode(raw)), {path: str(text) for path, text in files.items()})
        interpreter = Interpreter(bundle.modules, canonical(bundle.data))
    except PolicyRefused as error:
        return {"refused": error.detail}
    except ValueError as error:
        return {"refused": str(error)}
    return {"answers": [_answer(interpreter, question) for question in questions]}


def _answer(interpreter: Interpreter, question: Json) -> object:
    if not isinstance(question, dict):
        raise TypeError("not a valid order")
    try:
        return interpreter.evaluate(str(question["rule"]), str(question["input"]).encode())
    except PolicyFailed:
        return None


def main() -> None:
    """Answer standard input on standard output, within the limits of one process."""
    resource.setrlimit(resource.RLIMIT_CPU, (PROCESSOR_SECONDS, PROCESSOR_SECONDS))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    json.dump(answer_order(json.load(sys.stdin)), sys.stdout)
