"""The control process: what a deployment has beside its workers and its edge, each part as a role of its own.

One process may have all roles, or each a process to itself; what only one may do at a time is elected by the role.
"""
