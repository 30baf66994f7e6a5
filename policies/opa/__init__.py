"""OPA: its HTTP API, its process, its configuration, its compiler."""
