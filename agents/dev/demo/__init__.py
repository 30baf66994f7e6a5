"""The demonstration: a small shop, and scenes of allowed, denied, refused, changed and recorded messages."""
