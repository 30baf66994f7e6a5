"""The public keys of issuers: their documents are fetched, parsed and cached here."""
