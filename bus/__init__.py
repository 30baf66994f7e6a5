"""The bus: connection, streams, the gate, the outbox, the audit writer; the only package that imports `nats`."""
