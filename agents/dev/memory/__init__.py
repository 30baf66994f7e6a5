"""A bus in memory, and identities for it; `sealbus.testing.TestBus` runs on them."""
