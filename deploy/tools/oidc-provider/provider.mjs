// A second, certified issuer for the tests: the npm package oidc-provider on a loopback address. Never deployed.
//
// Usage: node provider.mjs FOLDER, where FOLDER/node_modules was made by `make tools`.
// The first line of standard input is a JSON object:
//   port        0 for a free one
//   keys        private JWKs; the first one of an algorithm signs, all are published
//   resources   {identifier: {"alg": "ES256"} or {} for opaque tokens}; "seconds" is how long tokens of users live, else 600
//   client      {"id", "secret", "redirect_uri", "logout_uri"}, the last null or where logout tokens are sent
//   claims      what tokens of a user hold besides
//   edge        {"id", "keys"}: the client that asks about tokens, and its public JWKs
//   native      the id of a public client on a person's machine: device flow, and code flow to a loopback address
//   exit        {"id", "keys"}: the client that gets tokens for others (RFC 8693, RFC 7523) and for itself, and its public JWKs
//   trusted     {issuer: public JWKs}: whose assertions about users are believed
//   tls         null, or {"key", "certificate", "authority"} in PEM: https, where clients show certificates of the authority
//   machine     {"id", "subject"}: with `tls` the client whose certificate has that subject, to which its tokens are bound
// It answers with one line, {"issuer": URL}, and ends when standard input does, so that no test leaves it behind.
import { once } from 'node:events';
import { createServer } from 'node:http';
import { createServer as createSecureServer } from 'node:https';
import { resolve } from 'node:path';
import { createInterface } from 'node:readline';
import { pathToFileURL } from 'node:url';

const module = resolve(process.argv[2], 'node_modules', 'oidc-provider', 'lib', 'index.js');
const { default: Provider, errors } = await import(pathToFileURL(module));
const jose = resolve(process.argv[2], 'node_modules', 'jose', 'dist', 'webapi', 'index.js');
const { createLocalJWKSet, decodeJwt, jwtVerify } = await import(pathToFileURL(jose));

const input = createInterface({ input: process.stdin });
const [line] = await once(input, 'line');
input.once('close', () => process.exit(0));
const { port, keys, resources, client, claims, edge, native, exit, trusted, tls, machine } = JSON.parse(line);

// The issuer's name holds the port, so the port comes first.
const server = tls
  ? createSecureServer({ key: tls.key, cert: tls.certificate, ca: tls.authority, requestCert: true, rejectUnauthorized: false })
  : createServer();
server.listen(port, '127.0.0.1');
await once(server, 'listening');
const issuer = `${tls ? 'https' : 'http'}://127.0.0.1:${server.address().port}`;

const JWT_BEARER = 'urn:ietf:params:oauth:grant-type:jwt-bearer';
const TOKEN_EXCHANGE = 'urn:ietf:params:oauth:grant-type:token-exchange';

function resourceServerInfo(identifier) {
  const resource = Object.hasOwn(resources, identifier) ? resources[identifier] : undefined;
  if (!resource) throw new errors.InvalidTarget();
  return {
    scope: 'read write',
    audience: identifier,
    accessTokenTTL: resource.seconds,
    ...(resource.alg ? { accessTokenFormat: 'jwt', jwt: { sign: { alg: resource.alg } } } : { accessTokenFormat: 'opaque' }),
  };
}

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
  }, {
    client_id: exit.id,
    token_endpoint_auth_method: 'private_key_jwt',
    token_endpoint_auth_signing_alg: 'ES256',
    jwks: { keys: exit.keys },
    grant_types: ['client_credentials', JWT_BEARER, TOKEN_EXCHANGE],
    redirect_uris: [],
    response_types: [],
    id_token_signed_response_alg: keys[0].alg,
  }, ...(tls ? [{
    client_id: machine.id,
    token_endpoint_auth_method: 'tls_client_auth',
    tls_client_auth_subject_dn: machine.subject,
    tls_client_certificate_bound_access_tokens: true,
    grant_types: ['client_credentials'],
    redirect_uris: [],
    response_types: [],
    id_token_signed_response_alg: keys[0].alg,
  }] : [])],
  clientAuthMethods: ['client_secret_basic', 'private_key_jwt', 'none', ...(tls ? ['tls_client_auth'] : [])],
  enabledJWA: { clientAuthSigningAlgValues: ['ES256'], dPoPSigningAlgValues: ['ES256'] },
  ttl: { AccessToken: (_, token) => token.resourceServer?.accessTokenTTL ?? 600, ClientCredentials: 600, Session: 600, Grant: 600, Interaction: 600, IdToken: 600, RefreshToken: 600, DeviceCode: 600 },
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
    mTLS: {
      enabled: Boolean(tls),
      certificateBoundAccessTokens: true,
      tlsClientAuth: true,
      getCertificate: (ctx) => ctx.socket.getPeerX509Certificate?.(),
      certificateAuthorized: (ctx) => ctx.socket.authorized,
      certificateSubjectMatches: (ctx, property, expected) =>
        property === 'tls_client_auth_subject_dn' && ctx.socket.getPeerX509Certificate().subject === expected,
    },
    introspection: { enabled: true, allowedPolicy: () => true },
    revocation: { enabled: true, allowedPolicy: () => true },
    devInteractions: { enabled: true },
    resourceIndicators: {
      enabled: true,
      defaultResource: () => Object.keys(resources)[0],
      useGrantedResource: () => true,
      getResourceServerInfo: (_, identifier) => resourceServerInfo(identifier),
    },
  },
});

// Grants that the package leaves to who runs it.

const ACCESS_TOKEN = 'urn:ietf:params:oauth:token-type:access_token';
const JWT = 'urn:ietf:params:oauth:token-type:jwt';
const ASSERTION_SECONDS = 300;
const own = createLocalJWKSet({ keys: keys.map(({ d, p, q, dp, dq, qi, ...published }) => published) });
const believed = new Map(Object.entries(trusted).map(([from, found]) => [from, createLocalJWKSet({ keys: found })]));
// Of assertions that were used; a run of the tests has few.
const used = new Set();

// Return the claims of an assertion about a user: signed by whom we trust, for us, fresh, used once (RFC 7523 section 3).
async function verifiedAssertion(text) {
  let payload;
  try {
    const { iss } = decodeJwt(text);
    if (!believed.has(iss)) throw new Error('not from whom we trust');
    ({ payload } = await jwtVerify(text, believed.get(iss), {
      issuer: iss,
      audience: [issuer, `${issuer}/token`],
      algorithms: ['ES256'],
      requiredClaims: ['sub', 'exp', 'iat', 'jti'],
      maxTokenAge: ASSERTION_SECONDS,
    }));
  } catch (error) {
    throw new errors.InvalidGrant(`assertion: ${error.message}`, { cause: error });
  }
  const use = JSON.stringify([payload.iss, payload.jti]);
  if (used.has(use)) throw new errors.InvalidGrant('assertion: used before');
  used.add(use);
  return payload;
}

// Return the claims of an access token that this provider gave a user, for one of its resources.
async function verifiedAccessToken(text) {
  try {
    const { payload } = await jwtVerify(text, own, { issuer, audience: Object.keys(resources), typ: 'at+jwt', requiredClaims: ['sub', 'exp'] });
    return payload;
  } catch (error) {
    throw new errors.InvalidRequest(`subject_token: ${error.message}`, undefined, { cause: error });
  }
}

// Answer with an access token for `sub` at the one resource that is asked for, by `resource` (RFC 8707) or `audience`.
async function answerFor(ctx, sub, gty, more = {}) {
  const { client, params } = ctx.oidc;
  const asked = [...new Set([params.resource, params.audience].flat().filter(Boolean))];
  if (asked.length !== 1) throw new errors.InvalidTarget('one resource must be asked for');
  const server = new provider.ResourceServer(asked[0], resourceServerInfo(asked[0]));
  const known = server.scope.split(' ');
  const scope = (params.scope ?? '').split(' ').filter(Boolean);
  if (!scope.every((one) => known.includes(one))) throw new errors.InvalidScope('not of this resource', params.scope);
  const token = new provider.AccessToken({ client, accountId: sub, gty, scope: scope.join(' ') || undefined });
  token.resourceServer = server;
  ctx.oidc.entity('AccessToken', token);
  ctx.body = { access_token: await token.save(), token_type: 'Bearer', expires_in: token.expiration, scope: token.scope, ...more };
}

provider.registerGrantType(JWT_BEARER, async (ctx) => {
  const { sub } = await verifiedAssertion(ctx.oidc.params.assertion);
  await answerFor(ctx, sub, 'jwt-bearer');
}, ['assertion', 'scope', 'resource', 'audience'], ['resource', 'audience']);

provider.registerGrantType(TOKEN_EXCHANGE, async (ctx) => {
  const { params } = ctx.oidc;
  if (![undefined, ACCESS_TOKEN].includes(params.requested_token_type)) throw new errors.InvalidRequest('only access tokens are issued');
  if (params.actor_token !== undefined) throw new errors.InvalidRequest('no actor but the client itself');
  const verified = { [ACCESS_TOKEN]: verifiedAccessToken, [JWT]: verifiedAssertion }[params.subject_token_type];
  if (!verified) throw new errors.InvalidRequest('subject_token_type is not known');
  const { sub } = await verified(params.subject_token);
  await answerFor(ctx, sub, 'token-exchange', { issued_token_type: ACCESS_TOKEN });
}, ['subject_token', 'subject_token_type', 'requested_token_type', 'actor_token', 'scope', 'resource', 'audience'], ['resource', 'audience']);

server.on('request', provider.callback());
process.stdout.write(`${JSON.stringify({ issuer })}\n`);
