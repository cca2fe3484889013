// sdk_server - a tool server on standard input and output, made with the official SDKs: `legacy` (1.x, 2025-11-25) or `modern`
// (2.x, 2026-07-28 only). Tools: add, where (pid and environment), slow (answers when the file named in RELEASE exists),
// progress, grow (a tool appears), die, hang.
import fs from 'node:fs';
import { McpServer as LegacyServer } from '@modelcontextprotocol/sdk/server/mcp.js';
import { StdioServerTransport } from '@modelcontextprotocol/sdk/server/stdio.js';
import { SubscribeRequestSchema, UnsubscribeRequestSchema } from '@modelcontextprotocol/sdk/types.js';
import { McpServer } from '@modelcontextprotocol/server';
import { serveStdio } from '@modelcontextprotocol/server/stdio';
import { z } from 'zod';

const text = (value) => ({ content: [{ type: 'text', text: String(value) }] });
const extra = [];

function register(server) {
  server.registerTool('add', { description: 'Adds', inputSchema: z.object({ a: z.number(), b: z.number() }) }, async ({ a, b }) => text(`sum ${a + b}`));
  server.registerTool('where', { description: 'Says where it runs', inputSchema: z.object({}) }, async () => text(JSON.stringify({ pid: process.pid, env: process.env })));
  server.registerTool('slow', { description: 'Waits', inputSchema: z.object({ file: z.string() }) }, async ({ file }) => {
    while (!fs.existsSync(file)) await new Promise((resolve) => setTimeout(resolve, 10));
    return text('at last');
  });
  server.registerTool('grow', { description: 'Gets a tool more', inputSchema: z.object({ name: z.string() }) }, async ({ name }) => {
    extra.push(name);
    add_extra(server, name);
    return text('grown');
  });
  if (process.argv[3] === 'watched') watch(server);
  server.registerTool('die', { description: 'Dies', inputSchema: z.object({}) }, async () => process.exit(7));
  server.registerTool('hang', { description: 'Hangs for ever', inputSchema: z.object({}) }, async () => { for (;;); });
  for (const name of extra) add_extra(server, name);
  return server;
}

/** With resources that can be subscribed to, a tool that says which are, and one that tells who has. */
function watch(server) {
  const watched = new Set();
  for (const name of ['a', 'b']) server.registerResource(name, `news://${name}`, {}, async (uri) => ({ contents: [{ uri: uri.href, text: 'new' }] }));
  server.server.registerCapabilities({ resources: { subscribe: true } });
  server.server.setRequestHandler(SubscribeRequestSchema, ({ params: { uri } }) => { watched.add(uri); return {}; });
  server.server.setRequestHandler(UnsubscribeRequestSchema, ({ params: { uri } }) => { watched.delete(uri); return {}; });
  server.registerTool('watched', { description: 'Says what is subscribed to', inputSchema: z.object({}) }, async () => text([...watched].join(' ') || 'nothing'));
  server.registerTool('update', { description: 'Tells of a change', inputSchema: z.object({ uri: z.string() }) }, async ({ uri }) => {
    if (watched.has(uri)) await server.server.sendResourceUpdated({ uri });
    return text('told');
  });
}

function add_extra(server, name) {
  server.registerTool(name, { description: 'Appeared', inputSchema: z.object({}) }, async () => text(`${name} here`));
}

console.error(`begins as ${process.argv[2]}`);
if (process.argv[2] === 'modern') serveStdio(() => register(new McpServer({ name: 'modern', version: '1.0.0' }, { capabilities: { tools: { listChanged: true } } })), { legacy: 'reject' });
else await register(new LegacyServer({ name: 'legacy', version: '1.0.0' })).connect(new StdioServerTransport());
