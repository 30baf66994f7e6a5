"""The promises of sealbus, checked against a history of what happened, simulated or observed."""
