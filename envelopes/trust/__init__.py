"""Who may be believed: SPIFFE IDs, names, keys, proofs, bundles, credentials, and what was verified before."""
