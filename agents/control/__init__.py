"""The control process: the central roles of a deployment, in addition to its workers and its edge.

One process may have all roles, or each role its own process; a role elects one process for work that only one may do.
"""
