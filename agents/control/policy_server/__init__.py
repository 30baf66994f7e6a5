"""The policy server: bundles for OPA, over HTTPS with SVIDs on both sides, made from what was pushed to NATS.

OPA polls `/bundles/sealbus.tar.gz` with an ETag, and waits there until there is another policy (long polling). Its bundle is
composed here of verified parts and signed with the key `policy.serve_key`, which OPA verifies by its `keys`.
"""
