"""Policy bundles: format, signatures, owners, checks, and the composition of several into one."""
