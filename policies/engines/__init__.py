"""Engines: embedded, sidecar, and central with failover."""
