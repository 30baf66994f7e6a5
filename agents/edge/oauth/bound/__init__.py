"""Access tokens that are bound to a key: proofs of possession, and client certificates."""
