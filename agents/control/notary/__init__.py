"""The notary: keeps an append-only log of the AUDIT stream, and publishes checkpoints of it (SPEC.md section 13)."""

from sealbus.agents.control.notary.notary import Notary
from sealbus.agents.control.notary.role import open_notary

__all__ = ["Notary", "open_notary"]
