"""The policy of a process: its source, its store, keeping in step with the bucket, pushing and denying."""
