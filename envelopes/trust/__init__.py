"""Trust: SPIFFE IDs, names, keys, proofs, bundles, credentials, and caches of verified values."""
