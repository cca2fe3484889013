// Our own MCP endpoint for clients whose revision has sessions: any of 4 workers takes any request, a fresh connection for each.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js';
import { ToolListChangedNotificationSchema } from '@modelcontextprotocol/sdk/types.js';
import { startModern } from './lib/mcp.mjs';
import { everything, ready } from './lib/programs.mjs';
import { keys, startServer } from './lib/server.mjs';
import { holders } from './lib/sockets.mjs';
import { waitFor } from './lib/wait.mjs';

const request = (method, params, id = 1) => ({ jsonrpc: '2.0', id, method, ...(params ? { params } : {}) });
const initialize = (protocolVersion = '2025-11-25') => request('initialize', { protocolVersion, capabilities: {}, clientInfo: { name: 'test', version: '1' } });

const post = (server, body, session, options = {}) => server.request('/mcp', {
  key: keys.server, body, ...options, headers: { accept: 'application/json, text/event-stream', ...(session ? { 'mcp-session-id': session } : {}), ...options.headers },
});

async function open(server, revision) {
  const { status, headers, json } = await post(server, initialize(revision));
  assert.equal(status, 200);
  assert.equal((await post(server, { jsonrpc: '2.0', method: 'notifications/initialized' }, headers['mcp-session-id'])).status, 202);
  return { id: headers['mcp-session-id'], result: json.result };
}

const refused = (answer, status, code) => assert.deepEqual([answer.status, answer.json?.error?.code], [status, code], answer.text);

/** A number of streams of the server, open: the first comment has come. */
const feeds = (server, session, count) => Promise.all(Array.from({ length: count }, () => server.stream('/mcp', { key: keys.server, headers: { 'mcp-session-id': session } })));

describe('sessions', () => {
  let server, web;
  before(async () => {
    web = await startModern();
    server = await startServer(null, { config: { mcp: { backoff: '50ms', backoff_max: '200ms', servers: [{ name: 'web', url: web.url }, everything('all')] }, tools: { server_timeout: '5s' } } });
    for (const name of ['web', 'all']) await ready(server, name);
  });
  after(async () => { await server?.stop(); await web?.stop(); });

  for (const revision of ['2025-03-26', '2025-06-18', '2025-11-25']) {
    test(`${revision}: any worker takes any request`, async () => {
      const { id, result } = await open(server, revision);
      assert.deepEqual([result.protocolVersion, result.serverInfo.name, result.capabilities.tools], [revision, 'parley', { listChanged: true }]);
      for (let i = 0; i < 8; i++) {
        const headers = { 'mcp-protocol-version': revision };
        assert.deepEqual((await post(server, request('ping'), id, { headers })).json, { jsonrpc: '2.0', id: 1, result: {} });
        const { json } = await post(server, request('tools/list'), id, { headers });
        assert.deepEqual(Object.keys(json.result), ['tools']);
        const call = await post(server, request('tools/call', { name: 'web__add', arguments: { a: i, b: 1 } }), id);
        assert.deepEqual(call.json.result, { content: [{ type: 'text', text: `sum ${i + 1}` }] });
      }
    });
  }

  test('what is wrong is said with the status of the time', async () => {
    assert.equal((await post(server, initialize('1999-01-01'))).json.result.protocolVersion, '2025-11-25');
    const { id } = await open(server);
    refused(await post(server, request('no/such'), id), 200, -32601);
    refused(await post(server, request('tools/call', { name: 'nothing' }), id), 200, -32602);
    refused(await post(server, request('ping')), 400, -32000);
    refused(await post(server, request('ping'), `${id.slice(0, -4)}AAAA`), 404, -32001);
    refused(await post(server, request('ping'), id, { key: keys.admin }), 404, -32001);
    refused(await post(server, request('ping'), id, { headers: { 'mcp-protocol-version': '1.0' } }), 400, -32000);
    refused(await post(server, [request('ping')], id), 400, -32600);
    assert.equal((await post(server, { jsonrpc: '2.0', id: 7, result: {} }, id)).status, 202);
    assert.equal((await server.request('/mcp', { key: keys.server })).status, 400);
  });

  test('2025-03-26: batches', async () => {
    const { id } = await open(server, '2025-03-26');
    const { status, json } = await post(server, [
      request('ping', undefined, 'a'), { jsonrpc: '2.0', method: 'notifications/initialized' }, request('tools/call', { name: 'web__add', arguments: { a: 1, b: 2 } }, 2),
      request('initialize', {}, 3), { hello: 1 }, request('tools/call', { name: 'web__fail', arguments: {} }, 4),
    ], id);
    assert.equal(status, 200);
    const by_id = new Map(json.map((answer) => [answer.id, answer]));
    assert.equal(json.length, 5);
    assert.deepEqual(by_id.get('a').result, {});
    assert.equal(by_id.get(2).result.content[0].text, 'sum 3');
    assert.equal(by_id.get(3).error.code, -32602);
    assert.equal(by_id.get(4).result.isError, true);
    assert.equal(by_id.get(null).error.code, -32600);
    assert.equal((await post(server, [{ jsonrpc: '2.0', method: 'notifications/initialized' }], id)).status, 202);
  });

  test('a request is taken back on whatever worker', async () => {
    const { id } = await open(server);
    for (let i = 0; i < 4; i++) {
      const aborted = web.aborted;
      const answer = post(server, request('tools/call', { name: 'web__slow', arguments: {} }, `slow-${i}`), id);
      await waitFor(() => web.waiting.length > 0, 'the call to arrive');
      assert.equal((await post(server, { jsonrpc: '2.0', method: 'notifications/cancelled', params: { requestId: `slow-${i}` } }, id)).status, 202);
      refused(await answer, 200, -32800);
      await waitFor(() => web.aborted > aborted, 'the call to be given up');
      web.release();
    }
  });

  test('an ended session is unknown on every worker, and its streams end', async () => {
    const { id } = await open(server);
    const other = await open(server);
    const streams = await feeds(server, id, 8);
    const ends = streams.map(async (stream) => { for await (const event of stream) assert.fail(JSON.stringify(event)); });
    assert.equal((await server.request('/mcp', { key: keys.server, method: 'DELETE', headers: { 'mcp-session-id': id } })).status, 204);
    await Promise.all(ends);
    // A worker that had none of its streams may hear of it a moment later.
    await waitFor(async () => {
      const answers = await Promise.all(Array.from({ length: 12 }, () => post(server, request('ping'), id)));
      return answers.every(({ status, json }) => status === 404 && json.error.code === -32001);
    }, 'it to be unknown everywhere', 30000);
    assert.equal((await post(server, request('ping'), other.id)).status, 200);
  });

  test('the official client', async () => {
    const client = new Client({ name: 'test', version: '1' });
    const changes = [];
    client.setNotificationHandler(ToolListChangedNotificationSchema, (n) => { changes.push(n); });
    const transport = new StreamableHTTPClientTransport(new URL(`${server.url}/mcp`), { requestInit: { headers: { authorization: `Bearer ${keys.server}`, connection: 'close' } } });
    await client.connect(transport);
    assert.ok((await client.listTools()).tools.some(({ name }) => name === 'all__echo'));
    for (let i = 0; i < 8; i++) assert.equal((await client.callTool({ name: 'web__add', arguments: { a: i, b: 1 } })).content[0].text, `sum ${i + 1}`);
    const seen = [];
    await client.callTool({ name: 'all__trigger-long-running-operation', arguments: { duration: 0.4, steps: 4 } }, undefined, { onprogress: ({ progress }) => seen.push(progress) });
    assert.ok(seen.length >= 2, String(seen));
    await client.ping();
    assert.ok((await client.getPrompt({ name: 'all__simple-prompt' })).messages.length > 0);
    const [{ uri }] = (await client.listResources()).resources;
    assert.equal((await client.readResource({ uri })).contents[0].uri, uri);
    await assert.rejects(client.readResource({ uri: 'nothing://here' }), { code: -32002 });
    await waitFor(() => web.requests.filter(({ headers }) => headers['mcp-method'] === 'subscriptions/listen').length >= 4, 'listen streams');
    web.addTool('later');
    await waitFor(() => changes.length > 0, 'the change to be told');
    assert.ok((await client.listTools()).tools.some(({ name }) => name === 'web__later'));
    await transport.terminateSession();
    await client.close();
  });
});

test('a worker that starts knows which sessions have ended, and takes those that have not', async (t) => {
  const server = await startServer(t, {});
  const [ended, alive] = [await open(server), await open(server)];
  assert.equal((await server.request('/mcp', { key: keys.server, method: 'DELETE', headers: { 'mcp-session-id': ended.id } })).status, 204);
  const killed = [0, 1, 2].map((slot) => server.killWorker(slot));
  for (const [slot, pid] of killed.entries()) await server.replaced(slot, pid);
  // It asks the others when it starts, and may serve a request before they have answered.
  await waitFor(async () => {
    for (let i = 0; i < 24; i++) if ((await post(server, request('ping'), ended.id)).status !== 404) return false;
    return true;
  }, 'the new workers to know');
  for (let i = 0; i < 24; i++) assert.equal((await post(server, request('ping'), alive.id)).status, 200);
});

/**
 * A session, on a server with a tool server that changes its list: open() is one more stream of it, once() changes the list until
 * one stream is told of that, which it gives.
 */
async function watched(t) {
  const web = await startModern(t);
  const server = await startServer(t, { config: { mcp: { servers: [{ name: 'web', url: web.url }] } } });
  await ready(server, 'web');
  await waitFor(() => web.requests.filter(({ headers }) => headers['mcp-method'] === 'subscriptions/listen').length >= 4, 'listen streams');
  const { id } = await open(server);
  let told = [], changes = 0;
  return {
    server,
    open: async () => {
      const [stream] = await feeds(server, id, 1);
      (async () => { for await (const { data } of stream) if (data.method === 'notifications/tools/list_changed') told.push(stream); })().catch(() => {}); // it is closed
      return stream;
    },
    // What was closed or opened before may still be on its way.
    once: () => waitFor(async () => {
      told = [];
      web.addTool(`later_${changes++}`);
      await waitFor(() => told.length > 0, 'somebody to be told', 5000).catch(() => {});
      await waitFor(async () => (await post(server, request('tools/list'), id)).json.result.tools.some(({ name }) => name === `web__later_${changes - 1}`), 'the change', 30000);
      return told.length === 1 && told[0];
    }, 'one of them to be told', 60000),
  };
}

test('of several streams of a session one is told, wherever they are; when it ends the next', async (t) => {
  const session = await watched(t);
  const streams = [];
  for (let i = 0; i < 8; i++) streams.push(await session.open());
  while (streams.length > 0) {
    const stream = await session.once();
    assert.ok(streams.includes(stream));
    for (let i = 0; i < 2; i++) assert.equal(await session.once(), stream);
    streams.splice(streams.indexOf(stream), 1);
    stream.close();
  }
});

test('the worker of the stream that is told dies: one at another worker is told from then on', async (t) => {
  const { server, open: openOne, once } = await watched(t);
  const streams = [];
  let held;
  await waitFor(async () => {
    streams.push(await openOne());
    held = holders(server.port, server.workers());
    return streams.length >= 6 && new Set(streams.map(({ local_port }) => held.get(local_port))).size > 1;
  }, 'streams at several workers', 30000);
  const pid = held.get((await once()).local_port);
  const left = streams.filter(({ local_port }) => held.get(local_port) !== pid);
  const slot = server.workers().indexOf(pid);
  assert.equal(server.killWorker(slot), pid);
  await server.replaced(slot, pid);
  // Until they have told each other whose is the newest it may be now one, now another.
  await waitFor(async () => {
    const [one, again] = [await once(), await once()];
    for (const stream of [one, again]) assert.ok(left.includes(stream));
    return one === again;
  }, 'one of them to be told', 60000);
  for (const stream of left) stream.close();
});

const listen = (server) => server.stream('/mcp', { key: keys.server, body: { jsonrpc: '2.0', id: 'l', method: 'subscriptions/listen', params: { notifications: { toolsListChanged: true }, _meta: { 'io.modelcontextprotocol/protocolVersion': '2026-07-28', 'io.modelcontextprotocol/clientCapabilities': {} } } },
  headers: { accept: 'application/json, text/event-stream', 'mcp-protocol-version': '2026-07-28', 'mcp-method': 'subscriptions/listen' } });

test('with 1,000 streams open the list is still answered, and all of them are told of a change', async (t) => {
  const web = await startModern(t);
  const server = await startServer(t, { config: { mcp: { servers: [{ name: 'web', url: web.url }] } } });
  await ready(server, 'web');
  await waitFor(() => web.requests.filter(({ headers }) => headers['mcp-method'] === 'subscriptions/listen').length >= 4, 'listen streams');
  const { id } = await open(server);
  const { json: { result: { tools: offered } } } = await post(server, request('tools/list'), id);
  assert.ok(offered.some(({ name }) => name === 'web__add'));
  const streams = [];
  for (let i = 0; i < 10; i++) streams.push(...await Promise.all(Array.from({ length: 100 }, () => listen(server))));
  assert.ok(streams.every(({ status }) => status === 200));
  const took = [];
  for (let i = 0; i < 100; i++) {
    const begun = performance.now();
    const { status, json } = await post(server, request('tools/list'), id);
    took.push(performance.now() - begun);
    assert.deepEqual([status, json.result.tools], [200, offered]);
  }
  took.sort((a, b) => a - b);
  t.diagnostic(`tools/list beside 1,000 streams: median ${took[50].toFixed(1)} ms, slowest ${took[99].toFixed(1)} ms`);
  web.addTool('later');
  await Promise.all(streams.map(async (stream) => {
    for await (const { data } of stream) if (data.method === 'notifications/tools/list_changed') break;
    stream.close();
  }));
});
