"""Engines: embedded, a sidecar, central ones with failover, and which one the settings name."""
