"""`sealbus audit`: follow and replay the audit stream; export, verify and search its log."""
