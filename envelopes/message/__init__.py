"""A message: its kinds, wire form, header, subjects, user context, chain, and sealing."""
