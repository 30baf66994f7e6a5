"""The demonstration: a small shop, and scenes that show what is allowed, denied, refused, changed and recorded."""
