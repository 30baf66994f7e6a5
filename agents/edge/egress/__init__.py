"""The way out: APIs of others, called by an agent of its own that alone holds what they want to be shown."""
