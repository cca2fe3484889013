// mcp - tool servers made with the official SDKs, in this process and over HTTP: modern, with sessions, with the old stream.
//
//   const tools = await startModern(t);        // 2026-07-28 only
//   const tools = await startSessions(t);      // 2025-11-25, initialize and Mcp-Session-Id
//   const tools = await startOldStream(t);     // 2024-11-05, GET /sse and POST /messages
//
// Each has url, calls (names of the tools called), and verbs that tests need; delay_ms makes it slow, is_mute silent. All offer the same tools: add, fail, picture,
// numbers, slow (answers when released), and a tool that appears with addTool().
import { once } from 'node:events';
import http from 'node:http';
import { randomUUID } from 'node:crypto';
import { McpServer as LegacyServer } from '@modelcontextprotocol/sdk/server/mcp.js';
import { SSEServerTransport } from '@modelcontextprotocol/sdk/server/sse.js';
import { StreamableHTTPServerTransport } from '@modelcontextprotocol/sdk/server/streamableHttp.js';
import { SubscribeRequestSchema, UnsubscribeRequestSchema } from '@modelcontextprotocol/sdk/types.js';
import { McpServer, createMcpHandler } from '@modelcontextprotocol/server';
import { toNodeHandler } from '@modelcontextprotocol/node';
import { z } from 'zod';

const pixel = 'iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg==';

class ToolServer {
  constructor() {
    this.calls = [];
    this.requests = []; // {method, path, headers, body}
    this.extra = [];
    this.waiting = [];
    this.aborted = 0;
  }

  /** Lets every call of slow that waits answer. */
  release() {
    for (const resolve of this.waiting.splice(0)) resolve();
  }

  register(server) {
    const { calls } = this;
    server.registerTool('add', { description: 'Adds two numbers', inputSchema: z.object({ a: z.number(), b: z.number() }) },
      async ({ a, b }) => { calls.push('add'); return { content: [{ type: 'text', text: `sum ${a + b}` }] }; });
    server.registerTool('fail', { description: 'Fails', inputSchema: z.object({}) },
      async () => { calls.push('fail'); return { isError: true, content: [{ type: 'text', text: 'the disk is full' }] }; });
    server.registerTool('picture', { description: 'Shows a pixel', inputSchema: z.object({}) },
      async () => { calls.push('picture'); return { content: [{ type: 'text', text: 'a pixel' }, { type: 'image', data: pixel, mimeType: 'image/png' }] }; });
    server.registerTool('numbers', { description: 'Structured', inputSchema: z.object({}), outputSchema: z.object({ n: z.number() }), annotations: { readOnlyHint: true } },
      async () => { calls.push('numbers'); return { content: [{ type: 'text', text: '{"n":7}' }], structuredContent: { n: 7 } }; });
    server.registerTool('slow', { description: 'Waits', inputSchema: z.object({ text: z.string().optional() }) },
      async ({ text }, context) => {
        calls.push('slow');
        const signal = context?.signal ?? context?.mcpReq?.signal;
        signal?.addEventListener('abort', () => { this.aborted++; });
        await new Promise((resolve) => this.waiting.push(resolve));
        return { content: [{ type: 'text', text: `at last ${text ?? ''}` }] };
      });
    for (const name of this.extra) {
      server.registerTool(name, { description: 'Appeared', inputSchema: z.object({}) }, async () => ({ content: [{ type: 'text', text: `${name} here` }] }));
    }
    return server;
  }

  async listen(t, handler) {
    this.http = http.createServer((req, res) => {
      this.requests.push({ method: req.method, path: req.url, headers: req.headers });
      if (this.is_mute || (this.holds_delete && req.method === 'DELETE')) return;
      if (this.refuse) { res.writeHead(this.refuse).end(); return; }
      if (this.delay_ms) setTimeout(() => handler(req, res), this.delay_ms);
      else handler(req, res);
    });
    this.http.listen(this.port ?? 0, '127.0.0.1');
    await once(this.http, 'listening');
    this.port = this.http.address().port;
    this.url = `http://127.0.0.1:${this.port}/mcp`;
    t?.after(() => this.stop());
  }

  async stop() {
    if (!this.http?.listening) return;
    this.http.close();
    this.http.closeAllConnections();
    await once(this.http, 'close');
  }
}

export async function startModern(t, { news } = {}) {
  const tools = new ToolServer();
  const capabilities = { tools: { listChanged: true }, ...(news ? { resources: { subscribe: true } } : {}) };
  const handler = createMcpHandler(() => {
    const server = tools.register(new McpServer({ name: 'modern', version: '1.0.0' }, { capabilities }));
    if (news) registerNews(server, 'web');
    return server;
  }, { legacy: 'reject' });
  tools.update = (uri) => handler.notify.resourceUpdated(uri);
  tools.addTool = (name) => { tools.extra.push(name); handler.notify.toolsChanged(); };
  tools.start = () => tools.listen(t, toNodeHandler(handler));
  await tools.start();
  return tools;
}

async function body(req) {
  const parts = [];
  for await (const part of req) parts.push(part);
  return parts.length ? JSON.parse(Buffer.concat(parts).toString()) : undefined;
}

/** Tools that ask the client: sampling, elicitation, its folders; and on a stream that all requests share. */
function registerAsking(server, { waiting }) {
  const text = (value) => ({ content: [{ type: 'text', text: value }] });
  const asks = {
    ask_model: { method: 'sampling/createMessage', params: { messages: [{ role: 'user', content: { type: 'text', text: 'hi\nthere' } }], maxTokens: 10 } },
    ask_user: { method: 'elicitation/create', params: { message: 'your name?', requestedSchema: { type: 'object', properties: { name: { type: 'string' } } } } },
    ask_roots: { method: 'roots/list' },
  };
  for (const [name, request] of Object.entries(asks)) {
    server.registerTool(name, { description: 'Asks', inputSchema: z.object({}) }, async (_, context) => {
      try {
        return text(JSON.stringify(await context.sendRequest(request, z.looseObject({}))));
      } catch (error) {
        return text(`refused ${error.code}`);
      }
    });
    server.registerTool(`${name}_briefly`, { description: 'Asks, and thinks better of it', inputSchema: z.object({}) }, async (_, context) => {
      try {
        return text(JSON.stringify(await context.sendRequest(request, z.looseObject({}), { timeout: 700 })));
      } catch (error) {
        await new Promise((resolve) => waiting.push(resolve));
        return text(`refused ${error.code}`);
      }
    });
    server.registerTool(`${name}_beside`, { description: 'Asks on no stream of its own', inputSchema: z.object({}) }, async () => {
      try {
        return text(JSON.stringify(await server.server.request(request, z.looseObject({}))));
      } catch (error) {
        return text(`refused ${error.code}`);
      }
    });
  }
}

/** Resources news://<kind>/a and b, of which update(uri) tells. */
function registerNews(server, kind) {
  for (const name of ['a', 'b']) {
    server.registerResource(name, `news://${kind}/${name}`, {}, async (uri) => ({ contents: [{ uri: uri.href, text: 'new' }] }));
  }
}

/** .. for each session, and a tool that logs: watched counts subscriptions, log(level, data) is for nobody in particular. */
function registerOldNews(tools, server) {
  const mine = new Set();
  registerNews(server, 'old');
  const count = (uri, by) => tools.watched.set(uri, (tools.watched.get(uri) ?? 0) + by);
  server.server.registerCapabilities({ logging: {}, resources: { subscribe: true } });
  server.server.setRequestHandler(SubscribeRequestSchema, ({ params: { uri } }) => { if (!mine.has(uri)) count(uri, 1); mine.add(uri); return {}; });
  server.server.setRequestHandler(UnsubscribeRequestSchema, ({ params: { uri } }) => { if (mine.delete(uri)) count(uri, -1); return {}; });
  server.registerTool('chatty', { description: 'Logs', inputSchema: z.object({}) }, async (_, context) => {
    for (const level of ['debug', 'warning', 'error']) await context.sendNotification({ method: 'notifications/message', params: { level, data: `mine ${level}` } });
    return { content: [] };
  });
  server.registerTool('chatty_beside', { description: 'Logs on no stream of its own, and waits', inputSchema: z.object({ text: z.string() }) }, async ({ text }) => {
    await server.server.notification({ method: 'notifications/message', params: { level: 'error', data: text } });
    await new Promise((resolve) => tools.waiting.push(resolve));
    return { content: [] };
  });
  server.tellUpdate = (uri) => { if (mine.has(uri)) server.server.sendResourceUpdated({ uri }).catch(() => {}); };
}

export async function startSessions(t, { asks, news } = {}) {
  const tools = new ToolServer();
  tools.sessions = new Map();
  tools.watched = new Map();
  tools.update = (uri) => { for (const { server } of tools.sessions.values()) server.tellUpdate(uri); };
  tools.log = (level, data) => { for (const { server } of tools.sessions.values()) server.server.notification({ method: 'notifications/message', params: { level, data } }).catch(() => {}); };
  tools.addTool = (name) => {
    tools.extra.push(name);
    for (const { server } of tools.sessions.values()) {
      server.registerTool(name, { description: 'Appeared', inputSchema: {} }, async () => ({ content: [{ type: 'text', text: `${name} here` }] }));
    }
  };
  /** As after a restart: no session is known any more. */
  tools.forgetSessions = () => tools.sessions.clear();
  tools.start = () => tools.listen(t, async (req, res) => {
    const message = req.method === 'POST' ? await body(req) : undefined;
    const id = req.headers['mcp-session-id'];
    if (id) {
      const session = tools.sessions.get(id);
      if (!session) { res.writeHead(404, { 'content-type': 'application/json' }).end('{"jsonrpc":"2.0","error":{"code":-32001,"message":"Session not found"},"id":null}'); return; }
      await session.transport.handleRequest(req, res, message);
      return;
    }
    if (message?.method !== 'initialize') { res.writeHead(400, { 'content-type': 'application/json' }).end('{"jsonrpc":"2.0","error":{"code":-32000,"message":"Bad Request: no session"},"id":null}'); return; }
    const server = tools.register(new LegacyServer({ name: 'sessions', version: '1.0.0' }));
    if (asks) registerAsking(server, tools);
    if (news) registerOldNews(tools, server);
    const transport = new StreamableHTTPServerTransport({
      sessionIdGenerator: randomUUID,
      onsessioninitialized: (session) => { tools.sessions.set(session, { server, transport }); },
    });
    await server.connect(transport);
    await transport.handleRequest(req, res, message);
  });
  await tools.start();
  return tools;
}

export async function startOldStream(t) {
  const tools = new ToolServer();
  const streams = new Map();
  await tools.listen(t, async (req, res) => {
    const url = new URL(req.url, 'http://x');
    if (req.method === 'GET' && url.pathname === '/mcp') {
      const transport = new SSEServerTransport('/messages', res);
      streams.set(transport.sessionId, transport);
      await tools.register(new LegacyServer({ name: 'old', version: '1.0.0' })).connect(transport);
    } else if (req.method === 'POST' && url.pathname === '/messages') {
      const transport = streams.get(url.searchParams.get('sessionId'));
      if (transport) await transport.handlePostMessage(req, res);
      else res.writeHead(404).end();
    } else {
      res.writeHead(405, { allow: 'GET' }).end();
    }
  });
  return tools;
}
