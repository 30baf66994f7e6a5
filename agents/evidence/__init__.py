"""Evidence for people: exports of the audit log, their verification on all cores, receipts, and lookups in them."""
