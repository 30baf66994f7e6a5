"""The types of a policy's values, inferred so that no evaluation can fail."""
