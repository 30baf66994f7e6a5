"""One connection to NATS: TLS, login, frames and parser, reconnecting, rotating, requests."""
