// asked - MCP clients of the official SDK, of revisions before 2026-07-28, that tool servers may ask in the midst of a call.
import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import { SSEClientTransport } from '@modelcontextprotocol/sdk/client/sse.js';
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js';
import { CreateMessageRequestSchema, ElicitRequestSchema, ListRootsRequestSchema } from '@modelcontextprotocol/sdk/types.js';
import { keys } from './server.mjs';

const headers = { authorization: `Bearer ${keys.server}` };
export const transports = {
  '/mcp': (server) => new StreamableHTTPClientTransport(new URL(`${server.url}/mcp`), { requestInit: { headers } }),
  '/sse': (server) => new SSEClientTransport(new URL(`${server.url}/sse`), { requestInit: { headers }, eventSourceInit: { fetch: (url, init) => fetch(url, { ...init, headers: { ...init.headers, ...headers } }) } }),
};

/** A client with those capabilities, whose answers name it; asked counts. */
export async function connect(server, route, name, capabilities = { sampling: {}, elicitation: {}, roots: {} }) {
  const client = new Client({ name: 'test', version: '1.0.0' }, { capabilities });
  client.asked = 0;
  if (capabilities.sampling) client.setRequestHandler(CreateMessageRequestSchema, () => { client.asked++; return { model: name, role: 'assistant', content: { type: 'text', text: `model of ${name}` } }; });
  if (capabilities.elicitation) client.setRequestHandler(ElicitRequestSchema, () => { client.asked++; return { action: 'accept', content: { name } }; });
  if (capabilities.roots) client.setRequestHandler(ListRootsRequestSchema, () => { client.asked++; return { roots: [{ uri: `file:///${name}` }] }; });
  await client.connect(transports[route](server));
  return client;
}
