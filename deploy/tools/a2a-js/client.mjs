// The JavaScript A2A client for the tests, which steer it from outside. Never deployed.
//
// Usage: node client.mjs FOLDER, where FOLDER/node_modules was made by `make tools`.
// The first line of standard input is a JSON object:
//   url       below which the agent's card is found, with a slash at its end
//   binding   "JSONRPC", "HTTP+JSON" or "GRPC"
//   token
//   key       a public key as JWK, by which the card must verify
// Each further line is a command with the request as JSON: {"card": true}, {"send": {...}}, {"stream": {...}},
// {"subscribe": {...}}, {"leave": true} (the stream that is open), {"get": {...}}, {"list": {...}}, {"cancel": {...}}.
// It answers with lines: {"connected": NAME}, {"card": SKILLS}, {"sent": ...}, {"event": ...}, {"ended": true},
// {"got": ...}, {"listed": ...}, {"canceled": ...}, {"error": MESSAGE}; and ends when standard input does, so that no test
// leaves it behind.
import { once } from 'node:events';
import { createRequire } from 'node:module';
import { resolve } from 'node:path';
import { createInterface } from 'node:readline';
import { pathToFileURL } from 'node:url';

const { resolve: find } = createRequire(resolve(process.argv[2], 'package.json'));
const load = (name) => import(pathToFileURL(find(name)).href.replace(/\.cjs$/, '.js'));
const say = (value) => process.stdout.write(`${JSON.stringify(value)}\n`);
console.debug = () => {};

const a2a = await load('@a2a-js/sdk');
const { ClientFactory, ClientFactoryOptions, JsonRpcTransportFactory, RestTransportFactory, ServiceParameters } = await load(
  '@a2a-js/sdk/client',
);
const { GrpcTransportFactory } = await load('@a2a-js/sdk/client/grpc');
const { credentials } = await load('@grpc/grpc-js').then((one) => one.default ?? one);

const input = createInterface({ input: process.stdin });
const [line] = await once(input, 'line');
const settings = JSON.parse(line);
const transports = {
  JSONRPC: () => new JsonRpcTransportFactory(),
  'HTTP+JSON': () => new RestTransportFactory(),
  GRPC: () => new GrpcTransportFactory({ grpcChannelCredentials: credentials.createInsecure() }),
};
const shown = {
  before: async (args) => {
    args.options = {
      ...args.options,
      serviceParameters: ServiceParameters.createFrom(args.options?.serviceParameters, (fields) => {
        fields.authorization = `Bearer ${settings.token}`;
      }),
    };
  },
  after: async () => {},
};
const factory = new ClientFactory(
  ClientFactoryOptions.createFrom(ClientFactoryOptions.default, {
    transports: [transports[settings.binding]()],
    preferredTransports: [settings.binding],
    clientConfig: { interceptors: [shown] },
  }),
);

const known = async (id) => {
  if (id !== settings.key.kid) throw new Error('an unknown key');
  return crypto.subtle.importKey('jwk', settings.key, { name: 'ECDSA', namedCurve: 'P-256' }, false, ['verify']);
};

let left = new AbortController();
const shownEvent = (event) => say({ event: a2a.StreamResponse.toJSON(event) });
const streamed = async (events) => {
  for await (const event of events) shownEvent(event);
  say({ ended: true });
};
const shownResult = (result) =>
  'role' in result ? { message: a2a.Message.toJSON(result) } : { task: a2a.Task.toJSON(result) };

const client = await factory.createFromUrl(settings.url);
const commands = {
  card: async () => {
    const response = await fetch(new URL('.well-known/agent-card.json', settings.url));
    const card = a2a.AgentCard.fromJSON(await response.json());
    await a2a.verifyAgentCardSignature(known)(card);
    say({ card: card.skills.map((one) => one.id) });
    card.skills[0].description += ' and more';
    await a2a.verifyAgentCardSignature(known)(card).then(
      () => say({ forged: 'verifies' }),
      () => say({ forged: 'refused' }),
    );
  },
  send: async (params) => say({ sent: shownResult(await client.sendMessage(a2a.SendMessageRequest.fromJSON(params))) }),
  stream: async (params) => {
    left = new AbortController();
    const options = { signal: left.signal };
    await streamed(client.sendMessageStream(a2a.SendMessageRequest.fromJSON(params), options));
  },
  subscribe: async (params) => {
    left = new AbortController();
    await streamed(client.resubscribeTask(a2a.SubscribeToTaskRequest.fromJSON(params), { signal: left.signal }));
  },
  leave: async () => left.abort(),
  get: async (params) => say({ got: a2a.Task.toJSON(await client.getTask(a2a.GetTaskRequest.fromJSON(params))) }),
  list: async (params) =>
    say({ listed: a2a.ListTasksResponse.toJSON(await client.listTasks(a2a.ListTasksRequest.fromJSON(params))) }),
  cancel: async (params) =>
    say({ canceled: a2a.Task.toJSON(await client.cancelTask(a2a.CancelTaskRequest.fromJSON(params))) }),
};
say({ connected: client.transport.protocolName });
input.on('line', (text) => {
  const [[name, params]] = Object.entries(JSON.parse(text));
  commands[name](params).catch((error) => say({ error: `${error.name}: ${error.message}` }));
});
input.on('close', () => process.exit());
