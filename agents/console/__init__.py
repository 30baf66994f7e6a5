"""The console: a view of a deployment in a browser. The policy decides what each person may see and cancel."""
