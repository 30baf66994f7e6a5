"""A person's login at a real identity provider: by a code on another device or in a browser, kept in a private file.

`sealbus login` is a public client (no secret) of the provider. What it gets is an access token for the edge, as any other
client of the edge has; `Client.user_context` exchanges it there.
"""
