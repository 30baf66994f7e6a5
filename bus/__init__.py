"""The bus: connection, streams, the gate, the outbox, the audit writer; the only place that imports `nats`."""
