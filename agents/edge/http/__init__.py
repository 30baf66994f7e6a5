"""The edge's HTTP: the listener, the protocol with its limits, TLS, problems, rates."""
