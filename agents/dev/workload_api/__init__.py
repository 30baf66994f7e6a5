"""An embedded SPIFFE Workload API with its own development CA; never for production.

::

    authority = DevelopmentAuthority(TrustDomain("example.org"))
    async with EmbeddedWorkloadApi(Path("/tmp/dev"), authority) as api:
        address = await api.add_identity(SpiffeId("spiffe://example.org/agent/planner"))
        async with WorkloadIdentity.connect(socket=address) as identity:
            ...

It speaks the real protocol, so that its clients run on SPIRE unchanged.
"""
