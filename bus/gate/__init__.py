"""The gate: steps 1 to 17 of SPEC.md for what is delivered, the answers to what we asked, and refusals."""
