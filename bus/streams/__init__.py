"""Streams as code: declared, checked, planned; periods of the audit stream; keys and objects on top."""
