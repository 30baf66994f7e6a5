"""The auth callout: NATS asks whether to admit a connection; sealbus answers by its certificate and by policy.

::

    request  --protocol, nkeys-->    AuthorizationRequest      signed by the server, sealed for us, fresh
    chains   --peer-->               VerifiedPeer              one SPIFFE ID, vouched for by its own trust domain
    peer     --policies.connect-->   ConnectDecision           account, subjects, limits
    decision --permissions, protocol-->  user JWT              without a name, ends with the SVID
"""
