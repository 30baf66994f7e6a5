"""Streams as code: declaration, check and plan; audit stream periods; and key-value and object stores on streams."""
