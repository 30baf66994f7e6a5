"""Effects that happen once: claims, the store of claims, and values signed by their owner."""
