"""The identity provider of `sealbus dev`: real OAuth on loopback, with demo users and no passwords. Never for production.

::

    async with DevelopmentIdp(audience="http://127.0.0.1:8080") as idp:
        idp.issuer                   # http://127.0.0.1:PORT/development-only
        idp.token("alice")           # an access token as a login would give it

It serves discovery, JWKS, the authorization code flow with PKCE and a page of demo users, the device flow, and one grant
for scripts that needs a secret from the state folder. It binds to loopback only, and its issuer says "development-only".
"""
