"""The gate: steps 1 to 17 of SPEC.md for deliveries, the answers to our own requests, and refusals."""
