"""NATS beyond the connection: JetStream's API, publishing, pull consumers, acknowledgements, readers, subscriptions."""
