"""NATS on top of the connection: the JetStream API, publishing, pull consumers, acknowledgements, readers, subscriptions."""
