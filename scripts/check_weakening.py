"""Weaken each comparison of what verifies, in turn: one of its tests must fail (`make weaken`; in part: `make removal`).

What may be weakened is found by shape (`weakenings.py`), in the acceptance steps, the gate, our verifier of the log, the
one that shares no code with it and the edge's of access tokens. The tests of these are collected once. For each weakening a
forked process that has only that one runs those of its module until one fails. What no test notices is a survivor: it is
listed below with its reason, or makes this fail. So does a reason for what is none.

Usage: check_weakening.py [--since REF] [--share N] [--verbose] [MODULE ...]

With --since only the modules that changed since the commit REF, or whose tests did, and every Nth of the rest, chosen by the
commit that is checked out.
"""

from __future__ import annotations

import argparse
import builtins
import importlib
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "scripts"))
sys.path.insert(0, str(ROOT / "tests"))

import pytest  # noqa: E402 -- the paths come first
from _pytest.runner import runtestprotocol  # noqa: E402 -- the one way to run an item that was collected
from check_removal import code_of, resolve  # noqa: E402 -- beside this file
from weakenings import HELPER, Probe, Weakening, Weaker, find_weakenings, functions_of, probed  # noqa: E402 -- beside this file

_FORM = ("test_accept_steps_form", "test_accept_steps")
_TRUST = ("test_accept_steps_trust", "test_archive_steps")
ENVELOPES: dict[str, tuple[str, ...]] = {
    "accept": ("test_accept_steps", *_TRUST), "answers": ("test_result_steps", "test_results"),
    "archive": ("test_archive_steps",), "audit_body": ("test_archive_steps",), "caches": ("test_accept_steps",),
    "chain": _TRUST, "codec": _FORM, "context": _TRUST, "context_payload": ("test_accept_steps_trust",),
    "credential": _TRUST, "evidence": ("test_archive_steps",), "freshness": ("test_accept_steps",), "header": _FORM,
    "jws": ("test_credential", "test_accept_steps_trust"), "keys": _TRUST, "lifetimes": (),
    "merkle": ("test_accept_steps_trust",),
    "names": ("test_subjects",), "results": ("test_result_steps",), "signature": _TRUST, "spiffe_id": _FORM,
    "strict_json": ("test_trust",), "subjects": _FORM, "trust": _TRUST, "wire": _FORM,
}  # fmt: skip
EXPORT = (
    "entry_reader", "frames", "layout", "notary_messages", "order_reader", "policy_files", "receipt_check",
    "record_receipt", "repeated_records", "root", "shown_message", "strict_note", "tile_reader", "tree_reader",
    "trust_archive", "trust_reader",
)  # fmt: skip
LOG = (
    "checkpoint", "entries", "entry_order", "lines", "note_keys", "notes", "proofs", "receipt", "tiles",
)  # fmt: skip
EDGE = ("access_token", "authentication", "key_set", "token_claims")
INDEPENDENT = (
    "export/test_independent", "export/test_export_near", "test_archive_near", "test_archive_steps",
    "test_accept_steps_near", "test_records", "test_decision_record", "test_evidence", "test_codec", "test_header",
    "test_context_payload", "test_strict_json", "test_trust", "test_wire", "test_audit_body", "export/test_export_vectors",
)  # fmt: skip
"""The tests that ask the verifier that shares no code with ours."""


def targets() -> dict[str, tuple[str, tuple[str, ...]]]:
    """Return what is weakened: each module's file, and the files of the tests that are asked, its own first."""
    found: dict[str, tuple[str, tuple[str, ...]]] = {}
    for name, more in ENVELOPES.items():
        tests = [f"tests/envelopes/{test}.py" for test in (f"test_{name}", "test_accept_steps_near", *more)]
        found[f"sealbus.envelopes.{name}"] = f"envelopes/{name}.py", tuple(tests)
    for folder, names, vectors, *more in (
        ("export", EXPORT, "test_export_vectors", "test_export_near"), ("log", LOG, "test_log_vectors")
    ):  # fmt: skip
        for name in names:
            tests = [f"tests/envelopes/{folder}/{test}.py" for test in (f"test_{name}", vectors, *more)]
            found[f"sealbus.envelopes.{folder}.{name}"] = f"envelopes/{folder}/{name}.py", tuple(tests)
    for name in ("gate", "judge"):
        tests = [f"tests/bus/test_{name}.py", "tests/bus/test_gate.py"]
        found[f"sealbus.bus.{name}"] = f"bus/{name}.py", tuple(dict.fromkeys(tests))
    for name in EDGE:
        tests = [f"tests/agents/edge/test_{name}.py", "tests/agents/edge/test_access_token.py"]
        found[f"sealbus.agents.edge.{name}"] = f"agents/edge/{name}.py", tuple(dict.fromkeys(tests))
    found["independent.verify_export"] = (
        "tests/independent/verify_export.py", tuple(f"tests/envelopes/{test}.py" for test in INDEPENDENT)
    )  # fmt: skip
    return found


EXPLAINED: dict[str, tuple[str, ...]] = {
    "hashes and points: two that agree in all but their last byte are found by nobody": (
        "independent.verify_export.read_evidence: H(first) not in there [by prefix]",
        "independent.verify_export.read_evidence: H(second) not in audit.credentials [by prefix]",
        "sealbus.envelopes.answers.OpenRequest.check: header.key.raw != self._key [by prefix]",
        "sealbus.envelopes.audit_body.parse_audit_body: leaf not in by_leaf [by prefix]",
        "sealbus.envelopes.credential._is_of: key.raw == svid.raw_key [by prefix]",
        "sealbus.envelopes.evidence._put: name in sort [by prefix]",
        "sealbus.envelopes.trust.BundleKey.is_same: self.digest == other.digest [by prefix]",
        "sealbus.envelopes.export.entry_reader.EntryReader._read_records: name not in self.names [by prefix]",
        "sealbus.envelopes.export.entry_reader.EntryReader._read_records: name in self._only [by prefix]",
        "sealbus.envelopes.export.repeated_records.RepeatedRecords.again: name in seen [by prefix]",
        (
            "sealbus.envelopes.export.trust_reader.pinned_bundles: sha256(record.jwt).digest() in root.bundles "
            "[by prefix]"
        ),
    ),
    "what is remembered under a hash is compared with bytes of that hash": (
        "sealbus.envelopes.chain._find: found.header.raw == ancestor.header [by prefix]",
        "sealbus.envelopes.context.verify_context: found.payload == statement.payload [by prefix]",
        "sealbus.envelopes.credential._is_of: credential.token == svid.token [by prefix]",
    ),
    "it is one of a closed set by then, none of which is like another": (
        "independent.verify_export.read_record: record['k'] == 'decision' [by prefix]",
        "independent.verify_export.read_record: record['k'] == 'decision' [by case]",
        "independent.verify_export.read_record: record['k'] == 'outcome' [by prefix]",
        "independent.verify_export.read_record: record['k'] == 'outcome' [by case]",
        "independent.verify_export.read_record: key in ('v', 'k') [by prefix]",
        "independent.verify_export.read_record: key in ('v', 'k') [by case]",
        "independent.verify_export.read_record: 'cod' in record [by prefix]",
        "independent.verify_export.read_record: 'cod' in record [by case]",
        "independent.verify_export.read_record: 'cnt' not in record [by prefix]",
        "independent.verify_export.read_record: 'cnt' not in record [by case]",
        "independent.verify_export.check_decision: 'opn' not in keys [by prefix]",
        "independent.verify_export.check_decision: 'opn' not in keys [by case]",
        "independent.verify_export.check_decision: 'cod' in keys [by prefix]",
        "independent.verify_export.check_decision: 'cod' in keys [by case]",
        "independent.verify_export.check_decision: 'eng' in keys [by prefix]",
        "independent.verify_export.check_decision: 'eng' in keys [by case]",
        "independent.verify_export.check_decision: 'mic' in keys [by prefix]",
        "independent.verify_export.check_decision: 'mic' in keys [by case]",
        "independent.verify_export.check_decision: 'red' not in keys [by prefix]",
        "independent.verify_export.check_decision: 'red' not in keys [by case]",
        "independent.verify_export.check_decision: 'inp' in keys [by prefix]",
        "independent.verify_export.check_decision: 'inp' in keys [by case]",
        "independent.verify_export.check_decision: 'obl' in keys [by prefix]",
        "independent.verify_export.check_decision: 'obl' in keys [by case]",
        "independent.verify_export.check_decision: code != 'obligation_unknown' [by prefix]",
        "independent.verify_export.check_decision: code != 'obligation_unknown' [by case]",
        "independent.verify_export.read_evidence: sort == 'context' [by prefix]",
        "independent.verify_export.read_evidence: sort == 'context' [by case]",
        "independent.verify_export.check_credential: curve != 'RSA' [by prefix]",
        "independent.verify_export.check_credential: curve != 'RSA' [by case]",
        "independent.verify_export.check_credential: wanted == curve [by prefix]",
        "independent.verify_export.check_credential: wanted == curve [by case]",
        "independent.verify_export.check_context: 'ctx' not in header [by prefix]",
        "independent.verify_export.check_context: 'ctx' not in header [by case]",
        "independent.verify_export.check_chain: 'par' in child [by prefix]",
        "independent.verify_export.check_chain: 'par' in child [by case]",
        "independent.verify_export.check_chain: 'end' not in link [by prefix]",
        "independent.verify_export.check_chain: 'end' not in link [by case]",
        "independent.verify_export.check_chain: parent['t'] in ('task', 'call') [by prefix]",
        "independent.verify_export.check_chain: parent['t'] in ('task', 'call') [by case]",
        "sealbus.envelopes.context_payload._typed: 'ten' in present [by prefix]",
        "sealbus.envelopes.context_payload._typed: 'ten' in present [by case]",
        "sealbus.envelopes.context_payload._typed: 'wkl' in present [by prefix]",
        "sealbus.envelopes.context_payload._typed: 'wkl' in present [by case]",
        "sealbus.envelopes.context_payload._typed: 'acr' in present [by prefix]",
        "sealbus.envelopes.context_payload._typed: 'acr' in present [by case]",
        "sealbus.envelopes.context_payload._typed: 'amr' in present [by prefix]",
        "sealbus.envelopes.context_payload._typed: 'amr' in present [by case]",
        "sealbus.envelopes.context_payload._typed: 'aut' in present [by prefix]",
        "sealbus.envelopes.context_payload._typed: 'aut' in present [by case]",
        "sealbus.envelopes.context_payload._typed: 'req' in present [by prefix]",
        "sealbus.envelopes.context_payload._typed: 'req' in present [by case]",
        "sealbus.envelopes.jws.check_fit: key.curve.name == algorithm.curve [by prefix]",
        "sealbus.envelopes.jws.check_fit: key.curve.name == algorithm.curve [by case]",
        ("sealbus.envelopes.export.entry_reader.EntryReader._read_records: record.kind in NOTARY_KINDS [by prefix]"),
        ("sealbus.envelopes.export.entry_reader.EntryReader._read_records: record.kind in NOTARY_KINDS [by case]"),
        "sealbus.envelopes.export.layout.is_expected: name.level == 'places' [by prefix]",
        "sealbus.envelopes.export.layout.is_expected: name.level == 'places' [by case]",
        "sealbus.envelopes.export.layout.is_expected: name.level == 'entries' [by prefix]",
        "sealbus.envelopes.export.layout.is_expected: name.level == 'entries' [by case]",
        "sealbus.envelopes.export.receipt_check.check_receipt: record.kind in NOTARY_KINDS [by prefix]",
        "sealbus.envelopes.export.receipt_check.check_receipt: record.kind in NOTARY_KINDS [by case]",
        "sealbus.envelopes.log.tiles.TileName.bytes: self.level == 'entries' [by prefix]",
        "sealbus.envelopes.log.tiles.TileName.bytes: self.level == 'entries' [by case]",
        "sealbus.envelopes.log.tiles.TileName.bytes: self.level == 'places' [by prefix]",
        "sealbus.envelopes.log.tiles.TileName.bytes: self.level == 'places' [by case]",
        "sealbus.envelopes.subjects.action_of: tokens[0] == 'task' [by prefix]",
        "sealbus.envelopes.subjects.action_of: tokens[0] == 'task' [by case]",
        "sealbus.envelopes.export.shown_message._side: side == _LEFT [by prefix]",
        "sealbus.envelopes.export.shown_message._side: side == _LEFT [by case]",
        "sealbus.envelopes.log.tiles.TileName.parse: level == 'entries' [by prefix]",
        "sealbus.envelopes.log.tiles.TileName.parse: level == 'entries' [by case]",
        "sealbus.envelopes.log.tiles.TileName.parse: level == 'places' [by prefix]",
        "sealbus.envelopes.log.tiles.TileName.parse: level == 'places' [by case]",
    ),
    "no encoding is the beginning of another, and two of one value differ in the byte that says the form, never the last": (
        "sealbus.envelopes.codec.unpack: pack(value) == data [by prefix]",
    ),
    "no two keys of a map are the same": ("sealbus.envelopes.codec._check_keys: key < last [bound]",),
    "the pattern lets no upper case through, and another spelling of a number begins with x000": (
        "sealbus.envelopes.export.layout.is_expected: messages_path(index) == path [by prefix]",
        "sealbus.envelopes.export.layout.is_expected: messages_path(index) == path [by case]",
        "sealbus.envelopes.log.tiles.TileName.parse: name.path != path [by case]",
    ),
    "the width is asked as well, and no tile has none": (
        "sealbus.envelopes.export.layout.is_expected: name.index * TILE_WIDTH < held [bound]",
    ),
    "a path as long as that is no spelling of an index within 2^53": (
        "sealbus.envelopes.log.tiles.TileName.parse: len(path) <= DEFAULT_LIMITS.text_bytes [bound]",
    ),
    "it is asked again: to be more than the one before, and the first more than 0": (
        "sealbus.envelopes.export.receipt_check._check_earlier: 0 < one.size < checkpoint.size [bound at 0]",
    ),
    "no line of a message is like it, and who reads the line compares the whole word": (
        "sealbus.envelopes.export.record_receipt.RecordReceipt.parse: line.split(' ')[0] == _EARLIER [by prefix]",
        "sealbus.envelopes.export.record_receipt.RecordReceipt.parse: line.split(' ')[0] == _EARLIER [by case]",
    ),
    "of a proof each node is asked again by `check_proof`, with the same code; on a side there is one": (
        "sealbus.envelopes.export.shown_message._nodes: any((len(node) != _HASH_BYTES for node in nodes)) [first only]",
        "sealbus.envelopes.export.shown_message._nodes: any((len(node) != _HASH_BYTES for node in nodes)) [last only]",
    ),
    "a beginning in another case is not taken off then, and with it there is no number, base64 or key": (
        "sealbus.envelopes.log.note_keys.NoteSigner.parse: text.startswith(_PRIVATE) [by case]",
        "sealbus.envelopes.log.receipt.parse_receipt: lines[0].startswith(_EXTRA) [by case]",
        "sealbus.envelopes.log.receipt.parse_receipt: lines[0].startswith(_INDEX) [by case]",
    ),
    "a trust domain has no upper case": (
        "independent.verify_export.check_context: context['aud'] == root.trust_domain [by case]",
        "sealbus.envelopes.context.verify_context: context.aud.name != trust_domain.name [by case]",
        (
            "sealbus.envelopes.export.trust_reader.pinned_bundles: record.trust_domain == root.names.trust_domain"
            " [by case]"
        ),
    ),
    "the bundle of another trust domain opens no message of this one's notary": (
        (
            "sealbus.envelopes.export.trust_reader.pinned_bundles: record.trust_domain == root.names.trust_domain"
            " [by prefix]"
        ),
    ),
    "OpenSSL refuses it as well; SPEC.md section 4 says it, so it stands where the other bounds do": (
        "sealbus.envelopes.keys.PublicKey.verify: 1 <= r < _ORDER [bound at 1]",
        "sealbus.envelopes.keys.PublicKey.verify: 1 <= r < _ORDER [bound at r]",
    ),
    "no other spelling of base64 differs in case alone: the unused bits of a letter lead to no letter in the other case": (
        "sealbus.envelopes.log.lines.parse_base64: b64encode(data).decode('ascii') != text [by case]",
    ),
    "it is of ASCII alone, and in lower case by then": (
        "sealbus.agents.edge.authentication.bearer_token: found[1].lower() != 'bearer' [by case]",
    ),
    "a space is refused before, as white space": ("sealbus.envelopes.log.lines.check_key_name: one < ' ' [bound]",),
    "each is one character": ("sealbus.envelopes.log.notes._check_characters: one != '\\n' [by prefix]",),
    "the length is asked as well": ("sealbus.envelopes.export.root._digest: digest.hex() != text [by prefix]",),
    "such a time is refused all the same, as one that lies in the future or as a life too long": (
        "sealbus.envelopes.credential._seconds: 0 <= value <= DEFAULT_LIMITS.max_integer [bound at value]",
    ),
    "asked first to save searching what is too long; the bytes are counted after it": (
        "sealbus.envelopes.codec.is_text: len(text) <= limit [bound]",
    ),
    "the whole of it is compared in the second pass; here it only saves looking into other messages": (
        "sealbus.envelopes.export.notary_messages.NotaryMessages.read: header.iss in self._notaries [by path]",
        "sealbus.envelopes.export.notary_messages.NotaryMessages.read: header.iss in self._notaries [by case]",
    ),
    "a reader bounds it as well; this is about what we write": (
        "sealbus.envelopes.context.mint_context: len(payload) > DEFAULT_LIMITS.context_bytes [bound]",
    ),
    "a code has no upper case": (
        "independent.verify_export.check_decision: code in ANSWERED [by case]",
        "independent.verify_export.check_decision: code in NOT_ASKED [by case]",
    ),
    "every record has the keys that say its kind as well": (
        "independent.verify_export.check_decision: {'inp', 'rev', 'pol', 'eng', 'mic'} <= keys [bound]",
    ),
    "a child is made before it ends, and ends no later than its parent": (
        (
            "independent.verify_export.check_chain: parent['iat'] - 5 * SECOND <= child['iat'] < parent['end']"
            " [bound at child['iat']]"
        ),
    ),
    "no child ends after its parent: the message itself ends first": (
        "independent.verify_export.check_chain: for link in (header, *(one[0] for one in links)) [first only]",
    ),
    "it is asked where a long way round is needed, and never says how deep it is": (
        "sealbus.envelopes.strict_json.deeper_than: text.count('[') + text.count('{') <= depth [bound]",
    ),
    "a kind or a key of a set that was compared whole before, none of which is like another": (
        "independent.verify_export.jws_ok: curve != 'RSA' [by prefix]",
        "independent.verify_export.jws_ok: curve != 'RSA' [by case]",
        "independent.verify_export.read_header: 'end' in header [by prefix]",
        "independent.verify_export.read_header: 'end' in header [by case]",
        "independent.verify_export.read_header: header['t'] == 'record' [by prefix]",
        "independent.verify_export.read_header: header['t'] == 'record' [by case]",
        "independent.verify_export.open_record: header['t'] == 'record' [by prefix]",
        "independent.verify_export.open_record: header['t'] == 'record' [by case]",
        "independent.verify_export.check_decided: 'opn' in record [by prefix]",
        "independent.verify_export.check_decided: 'opn' in record [by case]",
        "independent.verify_export.check_decided: 'bdy' not in record [by prefix]",
        "independent.verify_export.check_decided: 'bdy' not in record [by case]",
        "independent.verify_export.named_policies: record['k'] == 'policy' [by prefix]",
        "independent.verify_export.named_policies: record['k'] == 'policy' [by case]",
        "independent.verify_export.collect_bundles: one['k'] == 'bundle' [by prefix]",
        "independent.verify_export.collect_bundles: one['k'] == 'bundle' [by case]",
        "independent.verify_export.check_entry: record['k'] == 'decision' [by prefix]",
        "independent.verify_export.check_entry: record['k'] == 'decision' [by case]",
        "independent.verify_export.check_entry: record['k'] in ('bundle', 'policy', 'checkpoint') [by prefix]",
        "independent.verify_export.check_entry: record['k'] in ('bundle', 'policy', 'checkpoint') [by case]",
        "independent.verify_export.check_entry: record['k'] == 'checkpoint' [by prefix]",
        "independent.verify_export.check_entry: record['k'] == 'checkpoint' [by case]",
        "independent.verify_export.check_entry: record['k'] == 'decision' [by prefix] (2)",
        "independent.verify_export.check_entry: record['k'] == 'decision' [by case] (2)",
    ),
    "among bytes the whole of each is looked for, weaker or not": (
        "independent.verify_export.read_checkpoint: known[0].key_id not in seen [by prefix]",
        "independent.verify_export.pinned: H(record['jwt']) in root.bundles [by prefix]",
        "independent.verify_export.check_unproved: header_hash(frame) not in proved [by prefix]",
        "independent.verify_export.check_entry: leaf not in seen [by prefix]",
        "independent.verify_export.check_entry: leaf not in seen [by prefix] (2)",
    ),
    "the name is made of a hash as well, always of one length and in lower case": (
        "independent.verify_export.check_files: name == f'policies/{H(data).hex()}.tar.gz' [by prefix]",
        "independent.verify_export.check_files: name == f'policies/{H(data).hex()}.tar.gz' [by case]",
    ),
    "nothing is like an empty text": ("independent.verify_export.read_checkpoint: lines[3] == '' [by prefix]",),
    "base64 of one value in another case is that of another value": (
        "independent.verify_export.read_vkey: base64.b64encode(data).decode() == encoded [by case]",
        "independent.verify_export.canonical64: base64.b64encode(data).decode() == text [by case]",
    ),
    "a file is missing either way, and that is found": (
        "independent.verify_export.verify: checkpoint.size > 256 * (len(files) + 1) [bound]",
    ),
    "OpenSSL refuses such an r as well": (
        "independent.verify_export.es256: 1 <= r < ORDER [bound at 1]",
        "independent.verify_export.es256: 1 <= r < ORDER [bound at r]",
    ),
    "header, body, proof and token within their limits are never as long as that": (
        "independent.verify_export.read_envelope: len(payload) <= 1048576 [bound]",
    ),
    "a bundle of another trust domain opens no message of this one's notary, and none has upper case": (
        "independent.verify_export.pinned: record['dom'] == root.trust_domain [by prefix]",
        "independent.verify_export.pinned: record['dom'] == root.trust_domain [by case]",
    ),
}
"""Reasons why no test can notice a weakening, each with the weakenings, as they are reported."""
SURVIVORS: dict[str, str] = {key: reason for reason, keys in EXPLAINED.items() for key in keys}

_SECONDS = 60
"""A test that a weakening makes run for ever has failed."""
_NOTICED, _SURVIVED = 0, 1
_PLACES = os.cpu_count() or 1


@dataclass
class Plan:
    """What is to be weakened, the tests that are asked by module, and what came of it."""

    weakenings: list[Weakening]
    tests: dict[str, tuple[str, ...]]
    sources: dict[str, str]
    survivors: list[Weakening] = field(default_factory=list)
    never: int = 0
    broken: str = ""


class Weakened:
    """A plugin that runs, in place of all tests once, those that may notice each weakening."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._sound: dict[str, bool] = {}

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Run for each weakening the tests of its module until one of them fails."""
        files: dict[str, list[pytest.Item]] = {}
        for item in session.items:
            files.setdefault(item.path.relative_to(ROOT).as_posix(), []).append(item)
        by_module: dict[str, list[Weakening]] = {}
        for one in self._plan.weakenings:
            by_module.setdefault(one.module, []).append(one)
        waiting: list[tuple[Weakening, list[pytest.Item]]] = []
        for module, weakenings in by_module.items():
            items = [item for test in self._plan.tests[module] for item in files.get(test, ())]
            observed = _observed(module, self._plan.sources[module], items)
            if observed is None:
                self._plan.broken = f"the tests of {module}, probed"
                return True
            asked, differing = observed
            for one in weakenings:
                fit = differing.get((one.function, one.number), [])
                if fit:
                    waiting.append((one, [items[number] for number in fit]))
                elif (one.function, one.number) in asked:
                    self._survived(one)
                else:
                    self._plan.never += 1
        running: dict[int, tuple[Weakening, list[pytest.Item], int]] = {}
        waiting.reverse()
        while waiting or running:
            while waiting and len(running) < _PLACES:
                one, fit = waiting.pop()
                process, told = _start(one, fit)
                running[process] = one, fit, told
            process, status = os.wait()
            one, fit, told = running.pop(process)
            data = os.read(told, 8)
            os.close(told)
            if os.WIFEXITED(status) and os.WEXITSTATUS(status) == _SURVIVED:
                self._survived(one)
            elif len(data) == 8:
                self._check(fit[int.from_bytes(data, "big")])
            if self._plan.broken:
                return True
        return True

    def _survived(self, one: Weakening) -> None:
        self._plan.survivors.append(one)
        if str(one) not in SURVIVORS:
            print(f"no test fails with it weaker: {one} (line {one.line})", flush=True)  # noqa: T201  a command prints

    def _check(self, killer: pytest.Item) -> None:
        """Make sure, once, that a test that noticed something does not fail without it."""
        if killer.nodeid not in self._sound:
            process = os.fork()
            if process == 0:
                _hush()
                os._exit(int(_fails(killer)))
            self._sound[killer.nodeid] = os.waitpid(process, 0)[1] == 0
        if not self._sound[killer.nodeid]:
            self._plan.broken = killer.nodeid


def _observed(
    module: str, source: str, items: Sequence[pytest.Item]
) -> tuple[set[tuple[str, int]], dict[tuple[str, int], list[int]]] | None:
    """Run `items` with every comparison probed; return the weakenings that could matter, and the items in which each does.

    Of what is not compared (a part of a hash, an await) those that call its function.
    """
    asked: set[tuple[str, int]] = set()
    found: dict[tuple[str, int], list[int]] = {}
    loaded, code = importlib.import_module(module), probed(module, source)
    running: dict[int, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        for share in range(_PLACES):
            file = f"{folder}/{share}"
            process = os.fork()
            if process == 0:
                _hush()
                probe = Probe()
                setattr(builtins, HELPER, probe)
                for path in functions_of(source):
                    target = resolve(loaded, path)
                    target.function.__code__ = code_of(code, path)
                    target.forget()
                Path(file).write_bytes(
                    pickle.dumps(
                        [(number, *_probed(items[number], probe)) for number in range(share, len(items), _PLACES)]
                    )
                )
                os._exit(0)
            running[process] = file
        told: list[tuple[int, set[tuple[str, int]], set[tuple[str, int]], set[str]]] = []
        while running:
            process, status = os.wait()
            file = running.pop(process)
            if status:
                return None
            told += pickle.loads(Path(file).read_bytes())  # noqa: S301  our own child wrote it
    weakenings = {(one.function, one.number): one for one in find_weakenings(module, source)}
    for number, fitting, differing, entered in sorted(told, key=lambda one: one[0]):
        asked |= fitting
        for place, one in weakenings.items():
            always = "[without" in one.what or "-> pass" in one.what
            if place in differing or (always and one.function in entered):
                found.setdefault(place, []).append(number)
    asked |= {place for place, one in weakenings.items() if "[without" in one.what or "-> pass" in one.what}
    return asked, found


def _probed(item: pytest.Item, probe: Probe) -> tuple[set[tuple[str, int]], set[tuple[str, int]], set[str]]:
    probe.asked, probe.found, probe.entered = set(), set(), set()
    _fails(item)
    return probe.asked, probe.found, probe.entered


def _hush() -> None:
    """Let whatever a test prints go nowhere."""
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    os.dup2(quiet, 2)


def _fails(item: pytest.Item) -> bool:
    return any(report.failed for report in runtestprotocol(item, log=False, nextitem=None))


def _start(one: Weakening, items: Sequence[pytest.Item]) -> tuple[int, int]:
    """Fork a process with one weakening; it ends with what came of it, and tells the number of the test that failed."""
    target = resolve(importlib.import_module(one.module), one.function)
    code = code_of(one.make(), one.function)
    read, write = os.pipe()
    process = os.fork()
    if process == 0:
        setattr(builtins, HELPER, Weaker())
        target.function.__code__ = code
        target.forget()
        _hush()
        for number, item in enumerate(items):
            signal.alarm(_SECONDS)
            if _fails(item):
                os.write(write, number.to_bytes(8, "big"))
                os._exit(_NOTICED)
        os._exit(_SURVIVED)
    os.close(write)
    return process, read


def changed_since(ref: str) -> set[str] | None:
    """Return the files that differ from where this branch left `ref`; None if git does not know."""
    found = subprocess.run(  # noqa: S603  git, and a reference that whoever calls chose
        ["git", "diff", "--name-only", "--merge-base", ref],  # noqa: S607
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return set(found.stdout.split()) if found.returncode == 0 else None


def commit() -> str:
    """Return the commit that is checked out, which chooses the share."""
    found = subprocess.run(
        ["git", "rev-parse", "HEAD"],  # noqa: S607
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return found.stdout.strip()


def planned(named: Sequence[str], since: str | None, share: int) -> tuple[Plan, set[str]]:
    """Return what is to be weakened, and the keys of all that could be."""
    plan, every = Plan([], {}, {}), set[str]()
    changed = changed_since(since) if since is not None else None
    seed = commit()
    for module, (path, tests) in targets().items():
        found = find_weakenings(module, (ROOT / path).read_text())
        every |= {str(one) for one in found}
        if named and module not in named and module.rpartition(".")[2] not in named:
            continue
        whole = since is None or (changed is not None and not changed.isdisjoint({path, tests[0]}))
        chosen = [one for one in found if whole or _chosen(str(one), seed, share)]
        if chosen:
            plan.tests[module], plan.sources[module] = tests, (ROOT / path).read_text()
            plan.weakenings += chosen
    return plan, every


def _chosen(key: str, seed: str, share: int) -> bool:
    return int.from_bytes(sha256(f"{seed} {key}".encode()).digest()[:8], "big") % share == 0


def main(arguments: Sequence[str]) -> int:
    """Weaken; return the exit code."""
    parser = argparse.ArgumentParser(description="Weaken each comparison in turn.")
    parser.add_argument("modules", nargs="*")
    parser.add_argument("--since", default=None)
    parser.add_argument("--share", type=int, default=10)
    parser.add_argument("--verbose", action="store_true")
    given = parser.parse_args(arguments)
    began = time.monotonic()
    plan, every = planned(given.modules, given.since, given.share)
    listed = SURVIVORS.keys()
    unknown = sorted(listed - every)
    for key in unknown:
        print(f"listed as a survivor, and there is no such check: {key}")  # noqa: T201  a command prints
    if given.verbose:
        for one in plan.weakenings:
            print(one)  # noqa: T201  a command prints
    files = sorted({test for tests in plan.tests.values() for test in tests})
    quiet = ["-o", "addopts=--import-mode=importlib", "-p", "no:cacheprovider", "-p", "no:terminal"]
    status = pytest.main([*quiet, *(str(ROOT / file) for file in files)], plugins=[Weakened(plan)])
    if plan.broken or status not in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
        print(f"fails with nothing weakened: {plan.broken or status}")  # noqa: T201  a command prints
        return 1
    survived = {str(one) for one in plan.survivors}
    stale = sorted((listed & {str(one) for one in plan.weakenings}) - survived)
    for key in stale:
        print(f"listed as a survivor, and is none: {key}")  # noqa: T201  a command prints
    explained = len(survived & SURVIVORS.keys())
    print(  # noqa: T201  a command prints
        f"{len(plan.weakenings)} weakenings, {plan.never} of them never of what is compared; {len(survived)} unnoticed,"
        f" {explained} of them with a reason;"
        f" {time.monotonic() - began:.0f} s"
    )
    return 1 if unknown or stale or explained != len(survived) else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
