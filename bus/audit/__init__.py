"""Evidence on the bus: the record writer, the denial budget, redaction, the spool, and the trail that reads records back."""
