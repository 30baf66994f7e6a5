"""The policy of a process: its source, its store, following the bucket, pushing and denying."""
