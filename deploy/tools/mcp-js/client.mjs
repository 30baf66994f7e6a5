// Both JavaScript MCP clients for the tests, which steer one from outside. Never deployed.
//
// Usage: node client.mjs FOLDER, where FOLDER/node_modules was made by `make tools`.
// The first line of standard input is a JSON object:
//   package   "client" (both generations of the protocol) or "sdk" (the older one only)
//   mode      "auto" or "legacy", for "client"
//   url, token
//   answer    what its person says when asked: "accept" or "decline"
// Each further line is a command: {"list": true}, {"call": NAME, "arguments": {...}}, {"leave": true} (the call that is open).
// It answers with lines: {"connected": VERSION}, {"tools": [...]}, {"progress": MESSAGE}, {"asked": PARAMS}, {"result": ...},
// {"error": MESSAGE}; and ends when standard input does, so that no test leaves it behind.
import { once } from 'node:events';
import { createRequire } from 'node:module';
import { resolve } from 'node:path';
import { createInterface } from 'node:readline';
import { pathToFileURL } from 'node:url';

const { resolve: find } = createRequire(resolve(process.argv[2], 'package.json'));
const load = (name) => import(pathToFileURL(find(name)));
const say = (value) => process.stdout.write(`${JSON.stringify(value)}\n`);

const input = createInterface({ input: process.stdin });
const [line] = await once(input, 'line');
const settings = JSON.parse(line);
const about = { name: 'tests', version: '1' };
const capabilities = { elicitation: { form: {} } };
const options = { requestInit: { headers: { authorization: `Bearer ${settings.token}` } } };
const asked = async (request) => {
  say({ asked: request.params });
  return { action: settings.answer, content: {} };
};

async function connected() {
  if (settings.package === 'sdk') {
    const { Client } = await load('@modelcontextprotocol/sdk/client/index.js');
    const { StreamableHTTPClientTransport } = await load('@modelcontextprotocol/sdk/client/streamableHttp.js');
    const { ElicitRequestSchema } = await load('@modelcontextprotocol/sdk/types.js');
    const client = new Client(about, { capabilities });
    client.setRequestHandler(ElicitRequestSchema, asked);
    const transport = new StreamableHTTPClientTransport(new URL(settings.url), options);
    await client.connect(transport);
    return [client, transport.protocolVersion];
  }
  const { Client, StreamableHTTPClientTransport } = await load('@modelcontextprotocol/client');
  const client = new Client(about, { capabilities, versionNegotiation: { mode: settings.mode } });
  client.setRequestHandler('elicitation/create', asked);
  await client.connect(new StreamableHTTPClientTransport(new URL(settings.url), options));
  return [client, client.getNegotiatedProtocolVersion()];
}

const [client, version] = await connected();
say({ connected: version });

let leaving = new AbortController();

async function call(command) {
  leaving = new AbortController();
  const given = {
    signal: leaving.signal,
    onprogress: (progress) => say({ progress: progress.message }),
    resetTimeoutOnProgress: true,
  };
  const params = { name: command.call, arguments: command.arguments };
  return settings.package === 'sdk' ? client.callTool(params, undefined, given) : client.callTool(params, given);
}

async function done(command) {
  try {
    if (command.list) say({ tools: (await client.listTools()).tools });
    else say({ result: await call(command) });
  } catch (error) {
    say({ error: String(error.message) });
  }
}

input.on('line', (next) => {
  const command = JSON.parse(next);
  if (command.leave) leaving.abort('left');
  else done(command);
});
await once(input, 'close');
await Promise.race([client.close(), new Promise((ended) => setTimeout(ended, 1000))]);
process.exit(0);
