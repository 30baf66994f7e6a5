"""Effects that happen once: claims, where they are kept, and values under their owner's signature."""
