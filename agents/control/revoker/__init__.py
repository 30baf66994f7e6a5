"""The role `revoker` of `sealbus control`: publishes the revocations that identity providers report to the edge."""
