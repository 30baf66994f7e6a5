"""Evidence for people: exports of the audit log, their verification on all cores, receipts, and what they tell."""
