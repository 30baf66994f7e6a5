"""The nats-server of `sealbus dev`: its configuration, its permissions, its log, its process."""
