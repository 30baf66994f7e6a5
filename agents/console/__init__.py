"""The console: a view of a deployment in a browser. The policy decides which person may see and cancel what."""
