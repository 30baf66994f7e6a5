"""Evidence on the bus: the writer of records, the budget of denials, redaction, the spool, and the trail that reads."""
