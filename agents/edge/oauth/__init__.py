"""OAuth at the edge: access tokens, issuers and their keys, and the user context made from them."""
