"""Types: of each value of a policy, so that nothing in it can fail when it is asked."""
