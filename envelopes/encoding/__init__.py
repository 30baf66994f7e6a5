"""Encodings: the canonical msgpack of section 1, strict JSON, JWS."""
