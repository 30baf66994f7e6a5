"""A process and its parent: starting it again, what it was handling, a blocked event loop, changed source files."""
