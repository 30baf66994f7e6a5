"""Policies of a process: from where, kept where, in step with the bucket; pushing and denying."""
