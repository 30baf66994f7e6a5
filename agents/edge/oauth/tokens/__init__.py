"""Tokens that issuers sign: how each kind is verified, and the user context that is minted from one."""
