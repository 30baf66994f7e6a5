"""Effects that happen once: claims and the store of claims."""
