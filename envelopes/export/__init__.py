"""Verification of an exported audit log: every byte is recomputed, or is a finding (SPEC.md section 14).

Pure: callers that read a folder, or share the work among processes, pass bytes and get values. `Root` is the only source of
trust, and comes from outside the export.
"""
