"""Audit records, the bodies that hold them, and the archive profile that reads them."""
