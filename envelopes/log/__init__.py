"""The audit log: entries, Merkle tree, tiles, proofs, signed checkpoints, receipts (SPEC.md section 13).

Pure: callers that read files or streams pass bytes, and get values or `LogError`. The formats are those of C2SP, so that
tools without knowledge of sealbus can check a log, too.

    >>> from sealbus.envelopes.log.checkpoint import Checkpoint, open_checkpoint, sign_checkpoint
    >>> from sealbus.envelopes.log.entries import creation_entry, verified_entry
    >>> from sealbus.envelopes.log.note import NoteSigner
    >>> from sealbus.envelopes.log.receipt import Receipt, verify_receipt
    >>> from sealbus.envelopes.log.tree_builder import TreeBuilder
    >>> signer, tree = NoteSigner("log.example.org/audit", bytes(32)), TreeBuilder()
    >>> entries = [creation_entry("AUDIT", created=1_000), verified_entry(1, time=2_000, header_digest=bytes(32))]
    >>> tiles = [tile for entry in entries for tile in tree.append(entry.leaf)]
    >>> note = sign_checkpoint(Checkpoint("log.example.org/audit", tree.size, tree.root()), [signer])

Anyone with the verifier key can check the checkpoint and, with a receipt, that an entry is in the log:

    >>> open_checkpoint(note, origin="log.example.org/audit", verifiers=[signer.verifier]).checkpoint.size
    2
    >>> receipt = Receipt(index=1, path=(entries[0].leaf,), note=note)
    >>> verify_receipt(receipt, entries[1].leaf, origin="log.example.org/audit", verifiers=[signer.verifier]).size
    2
"""
