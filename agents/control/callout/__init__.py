"""The auth callout: NATS asks who a connection is; sealbus answers by its verified certificate and by policy.

::

    request  --nkeys, xkey, jwts-->  AuthorizationRequest      signed by the server, sealed for us, fresh
    chains   --peer-->               VerifiedPeer                      one SPIFFE ID, vouched for by its own trust domain
    peer     --policies.connect-->   ConnectDecision           account, subjects, limits
    decision --grants, jwts-->       user JWT                  without a name, ends with the SVID
"""
