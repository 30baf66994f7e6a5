"""An exported audit log as bytes and rules: every byte of it is computed again, or it is a finding (SPEC.md section 14).

Pure: who reads a folder, or shares the work among processes, gives bytes and gets values. `Root` is what is known from
outside of the export and the only thing that introduces trust.
"""
