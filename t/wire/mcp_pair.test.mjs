// HTTP+SSE of 2024-11-05 at our own MCP endpoint: the stream is one worker's, posts arrive at any of 4.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import { SSEClientTransport } from '@modelcontextprotocol/sdk/client/sse.js';
import { ToolListChangedNotificationSchema } from '@modelcontextprotocol/sdk/types.js';
import { startModern } from './lib/mcp.mjs';
import { everything, ready } from './lib/programs.mjs';
import { keys, startServer } from './lib/server.mjs';
import { waitFor } from './lib/wait.mjs';

const request = (method, params, id = 1) => ({ jsonrpc: '2.0', id, method, ...(params ? { params } : {}) });
const initialize = request('initialize', { protocolVersion: '2024-11-05', capabilities: {}, clientInfo: { name: 'test', version: '1' } }, 'init');

/** A stream: post() sends to its address, next(id) is the answer with that id. */
class Pair {
  static async open(server, options = {}) {
    const pair = new Pair();
    pair.server = server;
    pair.stream = await server.stream('/sse', { key: keys.server, ...options });
    assert.equal(pair.stream.status, 200, pair.stream.text);
    pair.messages = [];
    pair.ended = (async () => {
      for await (const { event, data } of pair.stream) {
        if (event === 'endpoint') pair.endpoint = data;
        else pair.messages.push(data);
      }
      pair.is_over = true;
    })().catch(() => { pair.is_over = true; });
    await waitFor(() => pair.endpoint, 'the endpoint event');
    return pair;
  }

  post(body, options = {}) {
    return this.server.request(this.endpoint, { key: keys.server, body, ...options });
  }

  async next(id) {
    await waitFor(() => this.messages.some((message) => message.id === id), `the answer ${id}`, 30000);
    return this.messages.find((message) => message.id === id);
  }

  async ask(body) {
    const { status, text } = await this.post(body);
    assert.equal(status, 202, text);
    return this.next(body.id);
  }
}

async function connect(server, key = keys.server) {
  const client = new Client({ name: 'test', version: '1.0.0' });
  const headers = { authorization: `Bearer ${key}` };
  const transport = new SSEClientTransport(new URL(`${server.url}/sse`), {
    requestInit: { headers }, eventSourceInit: { fetch: (url, init) => fetch(url, { ...init, headers: { ...init.headers, ...headers } }) },
  });
  await client.connect(transport);
  return client;
}

describe('a stream and posts', () => {
  let server, web;
  before(async () => {
    web = await startModern();
    server = await startServer(null, { config: {
      mcp: { backoff: '50ms', backoff_max: '200ms', max_pending: 4, servers: [{ name: 'web', url: web.url }, everything('all')] }, tools: { server_timeout: '30s' },
      keys: [
        { kind: 'client', app: 'demo', secret: keys.client }, { kind: 'server', app: 'demo', secret: keys.server }, { kind: 'admin', secret: keys.admin },
        { kind: 'server', app: 'demo', secret: 'ps_test_gated_key_0123456789abcdef', tools: ['web__add'] },
      ],
    } });
    for (const name of ['web', 'all']) await ready(server, name);
  });
  after(async () => { await server?.stop(); await web?.stop(); });

  test('the client of the SDK: every method, whichever worker a post arrives at', async () => {
    const client = await connect(server);
    const changes = [];
    client.setNotificationHandler(ToolListChangedNotificationSchema, (change) => { changes.push(change); });
    for (let i = 0; i < 8; i++) {
      await client.ping();
      const { tools } = await client.listTools();
      for (const name of ['web__add', 'all__echo']) assert.ok(tools.some((tool) => tool.name === name), name);
      const { content } = await client.callTool({ name: 'web__add', arguments: { a: i, b: 2 } });
      assert.deepEqual(content, [{ type: 'text', text: `sum ${i + 2}` }]);
    }
    assert.equal((await client.callTool({ name: 'web__fail', arguments: {} })).isError, true);
    const seen = [];
    await client.callTool({ name: 'all__trigger-long-running-operation', arguments: { duration: 1, steps: 4 } }, undefined, { onprogress: ({ progress }) => seen.push(progress) });
    assert.ok(seen.length >= 2 && seen.every((n, i) => i === 0 || n > seen[i - 1]), String(seen));
    assert.ok((await client.getPrompt({ name: 'all__simple-prompt' })).messages.length > 0);
    assert.ok((await client.listPrompts()).prompts.length > 0);
    const [{ uri }] = (await client.listResources()).resources;
    assert.equal((await client.readResource({ uri })).contents[0].uri, uri);
    assert.ok((await client.listResourceTemplates()).resourceTemplates.length > 0);
    await assert.rejects(client.readResource({ uri: 'nothing://here' }), { code: -32002 });
    await assert.rejects(client.callTool({ name: 'nothing', arguments: {} }), { code: -32602 });
    await waitFor(() => web.requests.filter(({ headers }) => headers['mcp-method'] === 'subscriptions/listen').length >= 4, 'listen streams');
    web.addTool('later');
    await waitFor(() => changes.length > 0, 'the change to be told');
    await client.close();
  });

  test('many at a time are answered, each its own', async () => {
    const clients = await Promise.all(Array.from({ length: 12 }, () => connect(server)));
    await Promise.all(clients.map(async (client, c) => {
      for (let i = 0; i < 4; i++) {
        const sums = await Promise.all([1, 2, 3].map((n) => client.callTool({ name: 'web__add', arguments: { a: c * 100, b: n } })));
        assert.deepEqual(sums.map(({ content }) => content[0].text), [1, 2, 3].map((n) => `sum ${c * 100 + n}`));
      }
    }));
    await Promise.all(clients.map((client) => client.close()));
  });

  test('what is posted wrongly is refused there and then', async () => {
    const pair = await Pair.open(server);
    const is = async (answer, status, code) => { const { status: got, json, text } = await answer; assert.deepEqual([got, json?.error?.code], [status, code], text); };
    await is(pair.post(initialize, { key: keys.admin }), 404, -32001);
    await is(server.request(`${pair.endpoint.slice(0, -3)}AAA`, { key: keys.server, body: initialize }), 404, -32001);
    await is(server.request('/messages', { key: keys.server, body: initialize }), 400, -32000);
    await is(server.request('/messages?sessionId=', { key: keys.server, body: initialize }), 404, -32001);
    assert.equal((await server.request(pair.endpoint, { body: initialize })).status, 401);
    assert.equal((await pair.post('{"jsonrpc":', { headers: { 'content-type': 'application/json' } })).status, 400);
    await is(pair.post({ hello: 1 }), 400, -32600);
    assert.equal((await pair.post('x', { headers: { 'content-type': 'text/plain' } })).status, 415);
    assert.equal((await server.request('/sse', { key: keys.server, body: {} })).status, 405);
    assert.equal((await server.request('/sse', { key: keys.client })).status, 403);
    // A session of /mcp is none here, nor is this one there.
    const id = new URLSearchParams(pair.endpoint.split('?')[1]).get('sessionId');
    await is(server.request('/mcp', { key: keys.server, body: request('ping'), headers: { 'mcp-session-id': id } }), 404, -32001);
    const { headers } = await server.request('/mcp', { key: keys.server, body: initialize });
    await is(server.request(`/messages?sessionId=${headers['mcp-session-id']}`, { key: keys.server, body: request('ping') }), 404, -32001);
    // .. and what is right still works.
    const { result } = await pair.ask(initialize);
    assert.deepEqual([result.protocolVersion, result.serverInfo.name], ['2024-11-05', 'parley']);
    assert.equal((await pair.post({ jsonrpc: '2.0', method: 'notifications/initialized' })).status, 202);
    assert.equal((await pair.ask(request('no/such', undefined, 'x'))).error.code, -32601);
    assert.equal((await pair.post([request('ping', undefined, 'b1'), { hello: 1 }, request('ping', undefined, 'b2')])).status, 202);
    assert.deepEqual([(await pair.next('b1')).result, (await pair.next('b2')).result, (await pair.next(null)).error.code], [{}, {}, -32600]);
    pair.stream.close();
  });

  test('a key has its own tools here, too', async () => {
    const client = await connect(server, 'ps_test_gated_key_0123456789abcdef');
    assert.deepEqual((await client.listTools()).tools.map(({ name }) => name), ['web__add']);
    await assert.rejects(client.callTool({ name: 'web__fail', arguments: {} }), { code: -32602 });
    await client.close();
    const { json: made } = await server.request('/admin/v1/keys', { key: keys.admin, body: { kind: 'server', app_id: 'demo', tools: ['web__add'] } });
    const changed = await connect(server, made.key);
    assert.equal((await server.request(`/admin/v1/keys/${made.id}`, { key: keys.admin, method: 'PATCH', body: { tools: ['web__picture'] } })).status, 200);
    await waitFor(async () => (await changed.listTools()).tools.every(({ name }) => name === 'web__picture'), 'the change to hold');
    const closed = new Promise((resolve) => { changed.onclose = changed.onerror = resolve; });
    assert.ok((await server.request(`/admin/v1/keys/${made.id}`, { key: keys.admin, method: 'DELETE' })).status < 300);
    await closed;
    await changed.close();
  });

  test('requests are taken back, and end with their stream', async () => {
    const pair = await Pair.open(server);
    let aborted = web.aborted;
    for (let i = 0; i < 4; i++) {
      assert.equal((await pair.post(request('tools/call', { name: 'web__slow', arguments: {} }, `slow-${i}`))).status, 202);
      await waitFor(() => web.waiting.length > 0, 'the call to arrive');
      assert.equal((await pair.post({ jsonrpc: '2.0', method: 'notifications/cancelled', params: { requestId: `slow-${i}` } })).status, 202);
      assert.equal((await pair.next(`slow-${i}`)).error.code, -32800);
      await waitFor(() => web.aborted > aborted, 'the call to be given up');
      aborted = web.aborted;
      web.release();
    }
    for (let i = 0; i < 4; i++) assert.equal((await pair.post(request('tools/call', { name: 'web__slow', arguments: {} }, `gone-${i}`))).status, 202);
    await waitFor(() => web.waiting.length === 4, 'the calls to arrive');
    const full = await pair.post(request('ping', undefined, 'one-more'));
    assert.deepEqual([full.status, full.headers['retry-after']], [503, '1']);
    pair.stream.close();
    await waitFor(() => web.aborted === aborted + 4, 'the calls to be given up');
    web.release();
    await waitFor(async () => (await pair.post(request('ping'))).status === 404, 'the session to be unknown');
  });

  test('hostile posts leave the stream alone', async () => {
    const pair = await Pair.open(server);
    const bodies = ['[]', '[[]]', '[1,2,3]', '{"jsonrpc":"2.0","id":{},"method":"ping"}', '{"jsonrpc":"2.0","id":1,"method":7}', `[${'{"jsonrpc":"2.0","id":1,"method":"ping"},'.repeat(100)}1]`,
      `{"jsonrpc":"2.0","id":"${'x'.repeat(1000)}","method":"ping"}`, '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":[]}', '{"jsonrpc":"2.0","id":2,"method":"initialize","params":[]}',
      '{"jsonrpc":"2.0","id":"nl","method":"ping",\n\n"params":{}}', `${'['.repeat(5000)}`, '{"jsonrpc":"2.0","id":1,"id":2,"method":"ping"}'];
    for (const body of bodies) {
      const { status } = await pair.post(body, { headers: { 'content-type': 'application/json' } });
      assert.ok([202, 400].includes(status), `${status} for ${body.slice(0, 80)}`);
    }
    assert.deepEqual((await pair.ask(request('ping', undefined, 'after'))).result, {});
    pair.stream.close();
  });
});

test('a worker dies: its streams end, the client is back at another one', async (t) => {
  const web = await startModern(t);
  const server = await startServer(t, { config: { mcp: { servers: [{ name: 'web', url: web.url }] } } });
  await ready(server, 'web');
  const pairs = await Promise.all(Array.from({ length: 12 }, () => Pair.open(server)));
  const client = await connect(server);
  for (const slot of [0, 1, 2]) {
    const pid = server.killWorker(slot);
    await server.replaced(slot, pid);
  }
  await waitFor(() => pairs.some(({ is_over }) => is_over), 'a stream to end');
  for (const pair of pairs) {
    const { status } = await pair.post(request('ping', undefined, 'alive'));
    if (status === 202) assert.deepEqual((await pair.next('alive')).result, {});
    else assert.equal(status, 404);
    pair.stream.close();
  }
  // The SDK's client opens the stream again by itself.
  await waitFor(() => client.listTools().then(({ tools }) => tools.length > 0, () => false), 'the client to be back', 30000);
  await client.close();
  await server.stop();
});

test('a drain lets requests end, and sends the clients elsewhere', async (t) => {
  const web = await startModern(t);
  const server = await startServer(t, { config: { drain: { timeout: '20s', spread: '200ms' }, mcp: { servers: [{ name: 'web', url: web.url }] } } });
  await ready(server, 'web');
  const [busy, idle] = [await Pair.open(server), await Pair.open(server)];
  assert.equal((await busy.post(request('tools/call', { name: 'web__slow', arguments: { text: 'done' } }, 'slow'))).status, 202);
  await waitFor(() => web.waiting.length > 0, 'the call to arrive');
  const stopped = server.stop();
  await waitFor(() => idle.is_over, 'the idle stream to end', 30000);
  assert.ok(!busy.is_over);
  web.release();
  assert.equal((await busy.next('slow')).result.content[0].text, 'at last done');
  await waitFor(() => busy.is_over, 'the busy stream to end', 30000);
  await stopped;
});

test('streams are connections: who finds no room is told when to come back', async (t) => {
  const server = await startServer(t, { config: { workers: 1, max_connections: 2 } });
  server.expectLog(/connection refused reason=capacity/);
  const streams = await Promise.all([1, 2].map(() => Pair.open(server)));
  const { status, headers } = await server.request('/sse', { key: keys.server });
  assert.deepEqual([status, Number(headers['retry-after']) > 0], [503, true]);
  for (const { stream } of streams) stream.close();
  await waitFor(async () => (await server.request('/mcp', { key: keys.server, body: request('ping') })).status === 400, 'room');
});
