"""Policy bundles: their format, signatures, owners, checks, and the one that several are composed to."""
