"""The control process: the central roles of a deployment, in addition to its workers and its edge.

One process may have all roles, or each role its own process. For work that only one process may do, a role elects it.
"""
