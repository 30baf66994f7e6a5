// A second, certified issuer for the tests: the npm package oidc-provider on a loopback address. Never deployed.
//
// Usage: node provider.mjs FOLDER, where FOLDER/node_modules was made by `make tools`.
// The first line of standard input is a JSON object:
//   port        0 for a free one
//   keys        private JWKs; the first one of an algorithm signs, all are published
//   resources   {identifier: {"alg": "ES256"} or {} for opaque tokens}
//   client      {"id", "secret", "redirect_uri", "logout_uri"}, the last null or where logout tokens are sent
//   claims      what tokens of a user hold besides
//   edge        {"id", "keys"}: the client that asks about tokens, and its public JWKs
//   native      the id of a public client on a person's machine: device flow, and code flow to a loopback address
// It answers with one line, {"issuer": URL}, and ends when standard input does, so that no test leaves it behind.
import { once } from 'node:events';
import { createServer } from 'node:http';
import { resolve } from 'node:path';
import { createInterface } from 'node:readline';
import { pathToFileURL } from 'node:url';

const module = resolve(process.argv[2], 'node_modules', 'oidc-provider', 'lib', 'index.js');
const { default: Provider, errors } = await import(pathToFileURL(module));

const input = createInterface({ input: process.stdin });
const [line] = await once(input, 'line');
input.once('close', () => process.exit(0));
const { port, keys, resources, client, claims, edge, native } = JSON.parse(line);

// The issuer's name holds the port, so the port comes first.
const server = createServer();
server.listen(port, '127.0.0.1');
await once(server, 'listening');
const issuer = `http://127.0.0.1:${server.address().port}`;

const provider = new Provider(issuer, {
  jwks: { keys },
  cookies: { keys: ['for tests only'] },
  scopes: ['openid', 'offline_access', 'read', 'write'],
  clients: [{
    client_id: client.id,
    client_secret: client.secret,
    grant_types: ['client_credentials', 'authorization_code'],
    redirect_uris: [client.redirect_uri],
    response_types: ['code'],
    id_token_signed_response_alg: keys[0].alg,
    ...(client.logout_uri ? { backchannel_logout_uri: client.logout_uri, backchannel_logout_session_required: true } : {}),
  }, {
    client_id: edge.id,
    token_endpoint_auth_method: 'private_key_jwt',
    token_endpoint_auth_signing_alg: 'ES256',
    jwks: { keys: edge.keys },
    grant_types: [],
    redirect_uris: [],
    response_types: [],
    id_token_signed_response_alg: keys[0].alg,
  }, {
    client_id: native,
    application_type: 'native',
    token_endpoint_auth_method: 'none',
    grant_types: ['authorization_code', 'refresh_token', 'urn:ietf:params:oauth:grant-type:device_code'],
    redirect_uris: ['http://127.0.0.1/callback'],
    response_types: ['code'],
    id_token_signed_response_alg: keys[0].alg,
  }],
  clientAuthMethods: ['client_secret_basic', 'private_key_jwt', 'none'],
  enabledJWA: { clientAuthSigningAlgValues: ['ES256'], dPoPSigningAlgValues: ['ES256'] },
  ttl: { AccessToken: 600, ClientCredentials: 600, Session: 600, Grant: 600, Interaction: 600, IdToken: 600, RefreshToken: 600, DeviceCode: 600 },
  findAccount: (_, id) => ({ accountId: id, claims: () => ({ sub: id }) }),
  // The session by the name that a logout token gives it, which is another for each client, where there is one.
  extraTokenClaims: (ctx, token) =>
    token.accountId ? { ...claims, sid: ctx.oidc.entities.AuthorizationCode?.sid ?? token.sessionUid } : undefined,
  // Its own dispatcher sends nothing to a loopback address.
  fetch: (url, options) => {
    delete options.dispatcher;
    return globalThis.fetch(url, options);
  },
  features: {
    backchannelLogout: { enabled: true },
    clientCredentials: { enabled: true },
    deviceFlow: { enabled: true },
    dPoP: { enabled: true },
    introspection: { enabled: true, allowedPolicy: () => true },
    revocation: { enabled: true, allowedPolicy: () => true },
    devInteractions: { enabled: true },
    resourceIndicators: {
      enabled: true,
      defaultResource: () => Object.keys(resources)[0],
      useGrantedResource: () => true,
      getResourceServerInfo: (_, identifier) => {
        const resource = resources[identifier];
        if (!resource) throw new errors.InvalidTarget();
        return {
          scope: 'read write',
          audience: identifier,
          ...(resource.alg ? { accessTokenFormat: 'jwt', jwt: { sign: { alg: resource.alg } } } : { accessTokenFormat: 'opaque' }),
        };
      },
    },
  },
});
server.on('request', provider.callback());
process.stdout.write(`${JSON.stringify({ issuer })}\n`);
