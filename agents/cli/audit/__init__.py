"""`sealbus audit`: follow and replay the stream, export, verify and look into its log."""
