// What clients of our MCP endpoint are told beside lists: changes of single resources, and what tool servers log.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import { SSEClientTransport } from '@modelcontextprotocol/sdk/client/sse.js';
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js';
import { LoggingMessageNotificationSchema, ResourceUpdatedNotificationSchema } from '@modelcontextprotocol/sdk/types.js';
import { startModern, startSessions } from './lib/mcp.mjs';
import { call, everything, listening, ready, run, sdk, start } from './lib/programs.mjs';
import { keys, startServer } from './lib/server.mjs';
import { holders } from './lib/sockets.mjs';
import { waitFor } from './lib/wait.mjs';

const headers = { authorization: `Bearer ${keys.server}` };
const meta = { 'io.modelcontextprotocol/protocolVersion': '2026-07-28', 'io.modelcontextprotocol/clientCapabilities': {} };
const transports = {
  '/mcp': (server) => new StreamableHTTPClientTransport(new URL(`${server.url}/mcp`), { requestInit: { headers } }),
  '/sse': (server) => new SSEClientTransport(new URL(`${server.url}/sse`), { requestInit: { headers }, eventSourceInit: { fetch: (url, init) => fetch(url, { ...init, headers: { ...init.headers, ...headers } }) } }),
};

async function connect(server, route) {
  const client = new Client({ name: 'test', version: '1.0.0' });
  client.updates = [];
  client.logged = [];
  client.setNotificationHandler(ResourceUpdatedNotificationSchema, ({ params }) => { client.updates.push(params.uri); });
  client.setNotificationHandler(LoggingMessageNotificationSchema, ({ params }) => { client.logged.push(params); });
  await client.connect(transports[route](server));
  return client;
}

const listen = (server, uris) => server.stream('/mcp', { key: keys.server, body: { jsonrpc: '2.0', id: 'l', method: 'subscriptions/listen', params: { notifications: { resourceSubscriptions: uris }, _meta: meta } },
  headers: { accept: 'application/json, text/event-stream', 'mcp-protocol-version': '2026-07-28', 'mcp-method': 'subscriptions/listen' } });

/** A stream of 2024-11-05 at the worker of that slot, with the address that it names. */
async function openPair(server, slot) {
  const pid = server.workers()[slot];
  return waitFor(async () => {
    const stream = await server.stream('/sse', { key: keys.server });
    if (holders(server.port, server.workers()).get(stream.local_port) !== pid) { stream.close(); return false; }
    const { value: { event, data } } = await stream[Symbol.asyncIterator]().next();
    assert.equal(event, 'endpoint');
    return Object.assign(stream, { endpoint: data });
  }, 'a stream at that worker', 30000);
}

/** A program whose resources can be subscribed to, legacy; and a client of the worker of that slot that has subscribed to one. */
const watched_program = (name) => { const program = sdk(name, 'legacy'); return { ...program, args: [...program.args, 'watched'] }; };
async function subscribe(server, slot, uri) {
  const stream = await openPair(server, slot);
  const post = (id, method, params) => server.request(stream.endpoint, { key: keys.server, body: { jsonrpc: '2.0', id, method, params } });
  assert.equal((await post(1, 'initialize', { protocolVersion: '2024-11-05', capabilities: {}, clientInfo: { name: 'test', version: '1' } })).status, 202);
  assert.equal((await post(2, 'resources/subscribe', { uri })).status, 202);
}

/** The slot of who has the pipes: it tells what it has read. */
const speaker_of = async (server) => Number((await server.line(/mcp server ready server=prog .* prompts=.* worker=(\d)/))[1]);

for (const workers of [4, 1]) {
  test(`${workers}: who speaks to a program dies: the next asks for what is new, and takes back what nobody wants any more`, async (t) => {
    const server = await start(t, [watched_program('prog')], { workers });
    await ready(server, 'prog', workers);
    const watched = async () => String(await call(server, 'prog__watched')).split(' ').sort().join(' ');
    const speaker = await speaker_of(server);
    await subscribe(server, speaker, 'news://a');
    await waitFor(async () => await watched() === 'news://a', 'it to be watched', 30000);
    await server.replaced(speaker, server.killWorker(speaker));
    await waitFor(async () => await watched() === 'news://a', 'its next speaker', 30000);
    await subscribe(server, (speaker + 1) % workers, 'news://b');
    await waitFor(async () => await watched() === 'news://a news://b', 'the other to be watched as well', 30000);
    await waitFor(async () => { await call(server, 'prog__update', { uri: 'news://a' }); return await watched() === 'news://b'; }, 'the first to be let go', 30000);
    assert.equal(await call(server, 'prog__update', { uri: 'news://b' }), 'told');
    assert.equal(await watched(), 'news://b');
  });
}

test('what a dead worker listened to at a program ends when it is heard of', async (t) => {
  const server = await start(t, [listening('prog')]);
  await ready(server, 'prog');
  await waitFor(async () => await call(server, 'prog__listens') === '1', 'it to be listened to', 30000);
  const speaker = await speaker_of(server);
  await server.replaced(speaker, server.killWorker(speaker));
  await waitFor(async () => await call(server, 'prog__listens') === '2', 'its next speaker', 30000);
  await waitFor(async () => { await call(server, 'prog__change'); return await call(server, 'prog__listens') === '1'; }, 'the dead one\'s to end', 30000);
});

test('a program is not asked to tell of what only a dead worker\'s clients have subscribed to', async (t) => {
  const server = await start(t, [watched_program('prog')]);
  await ready(server, 'prog');
  const watched = () => call(server, 'prog__watched');
  assert.equal(await watched(), 'nothing');
  const speaker = await speaker_of(server);
  for (const slot of [0, 1, 2, 3].filter((other) => other !== speaker)) {
    await subscribe(server, slot, 'news://a');
    await waitFor(async () => await watched() === 'news://a', 'it to be watched', 30000);
    const pid = server.killWorker(slot);
    await server.replaced(slot, pid);
    await waitFor(async () => await watched() === 'nothing', 'it to be let go', 30000);
  }
});

describe('news', () => {
  let server, old, web;
  before(async () => {
    [old, web] = [await startSessions(null, { news: true }), await startModern(null, { news: true })];
    server = await startServer(null, { config: {
      mcp: { backoff: '50ms', backoff_max: '200ms', max_subscriptions: 3, servers: [{ name: 'old', url: old.url }, { name: 'web', url: web.url }, everything('all')] }, tools: { server_timeout: '20s' },
    } });
    for (const name of ['old', 'web', 'all']) await ready(server, name);
  });
  after(async () => { await server?.stop(); await old?.stop(); await web?.stop(); });

  for (const route of Object.keys(transports)) {
    for (const kind of ['old', 'web']) {
      test(`${route}: changes of a resource of ${kind} reach who has subscribed, and nobody else`, async () => {
        const tools = { old, web }[kind];
        const [one, two] = [await connect(server, route), await connect(server, route)];
        await one.subscribeResource({ uri: `news://${kind}/a` });
        await waitFor(() => { tools.update(`news://${kind}/b`); tools.update(`news://${kind}/a`); return one.updates.length > 0; }, 'the update', 30000);
        assert.ok(one.updates.every((uri) => uri === `news://${kind}/a`));
        assert.deepEqual(two.updates, []);
        await one.unsubscribeResource({ uri: `news://${kind}/a` });
        if (kind === 'old') await waitFor(() => tools.watched.get(`news://${kind}/a`) === 0, 'the upstream to be told');
        await assert.rejects(one.subscribeResource({ uri: 'nothing://here' }), { code: -32002 });
        await one.close();
        await two.close();
      });
    }
  }

  test('subscriptions/listen names resources, too', async () => {
    const stream = await listen(server, ['news://old/a', 'news://web/a', 'nothing://here', 7]);
    const seen = new Set();
    let timer;
    for await (const { data } of stream) {
      assert.equal(data.params._meta['io.modelcontextprotocol/subscriptionId'], 'l');
      if (data.method === 'notifications/subscriptions/acknowledged') {
        assert.deepEqual(data.params.notifications, { resourceSubscriptions: ['news://old/a', 'news://web/a'] });
        timer = setInterval(() => { old.update('news://old/a'); web.update('news://web/a'); web.update('news://web/b'); }, 50);
        continue;
      }
      assert.equal(data.method, 'notifications/resources/updated');
      seen.add(data.params.uri);
      if (seen.size === 2) break;
    }
    clearInterval(timer);
    stream.close();
    assert.deepEqual([...seen].sort(), ['news://old/a', 'news://web/a']);
  });

  test('a subscription is the session\'s: its stream may be opened again at any worker', async () => {
    const initialize = { jsonrpc: '2.0', id: 1, method: 'initialize', params: { protocolVersion: '2025-11-25', capabilities: {}, clientInfo: { name: 'x', version: '1' } } };
    const { headers: { 'mcp-session-id': id } } = await server.request('/mcp', { key: keys.server, body: initialize });
    const post = (method, params) => server.request('/mcp', { key: keys.server, headers: { 'mcp-session-id': id }, body: { jsonrpc: '2.0', id: 2, method, params } });
    for (const uri of ['news://old/a', 'news://old/a', 'news://old/b', 'news://web/a']) assert.deepEqual((await post('resources/subscribe', { uri })).json.result, {});
    assert.equal((await post('resources/subscribe', { uri: 'news://web/b' })).json.error.code, -32000);
    for (const params of [undefined, {}, { uri: 7 }, { uri: '' }, { uri: 'x'.repeat(100000) }]) assert.equal((await post('resources/subscribe', params)).json.error.code, -32602);
    for (let i = 0; i < 6; i++) {
      const stream = await server.stream('/mcp', { key: keys.server, headers: { 'mcp-session-id': id } });
      const timer = setInterval(() => old.update('news://old/b'), 50);
      for await (const { data } of stream) { assert.deepEqual([data.method, data.params.uri], ['notifications/resources/updated', 'news://old/b']); break; }
      clearInterval(timer);
      stream.close();
    }
    assert.equal((await server.request('/mcp', { key: keys.server, method: 'DELETE', headers: { 'mcp-session-id': id } })).status, 204);
    await waitFor(() => [...old.watched.values()].every((n) => n === 0), 'nothing to be watched any more');
  });

  for (const route of Object.keys(transports)) {
    test(`${route}: a client gets what its own calls log, from its level on`, async () => {
      const client = await connect(server, route);
      const texts = () => client.logged.filter(({ data }) => String(data).startsWith('mine')).map(({ level }) => level);
      await client.callTool({ name: 'old__chatty', arguments: {} });
      assert.deepEqual(texts(), ['debug', 'warning', 'error']);
      await assert.rejects(client.setLoggingLevel('loud'), { code: -32602 });
      await client.setLoggingLevel('error');
      // The other workers hear of it in a moment.
      await waitFor(async () => { client.logged = []; for (let i = 0; i < 8; i++) await client.callTool({ name: 'old__chatty', arguments: {} }); return texts().every((level) => level === 'error') && texts().length > 0; }, 'the level');
      await client.close();
    });
  }

  test('what servers log for nobody reaches who has set a level', async () => {
    const [wants, none] = [await connect(server, '/mcp'), await connect(server, '/mcp')];
    await wants.setLoggingLevel('warning');
    await waitFor(() => { old.log('warning', 'for all'); old.log('info', 'less'); return wants.logged.length > 0; }, 'the message', 30000);
    assert.ok(wants.logged.every(({ data }) => data === 'for all'));
    assert.deepEqual(none.logged, []);
    await wants.close();
    await none.close();
  });

  test('what a server logs in a call is that call\'s also on a stream which all share, as long as it is clear whose it is', async () => {
    const [caller, other] = [await connect(server, '/mcp'), await connect(server, '/mcp')];
    await other.setLoggingLevel('debug');
    await waitFor(() => { old.log('error', 'for all'); return other.logged.length > 0; }, 'the other one to be told', 30000);
    other.logged = [];
    for (let i = 0; i < 6; i++) {
      const answer = caller.callTool({ name: 'old__chatty_beside', arguments: { text: `private ${i}` } });
      await waitFor(() => old.waiting.length > 0 && caller.logged.some(({ data }) => data === `private ${i}`), 'the message', 30000);
      old.release();
      await answer;
    }
    // Those of turns have nobody to tell.
    for (let i = 0; i < 8; i++) await run(server, '[[mock tool=old__chatty args={}]]');
    await waitFor(() => { old.log('error', 'for all'); return other.logged.length > 0; }, 'the other one to be told', 30000);
    assert.ok(other.logged.every(({ data }) => data === 'for all'), JSON.stringify(other.logged));
    await caller.close();
    await other.close();
  });

  test('a key leaves room for the sessions of others', async (t) => {
    const other = 'ps_test_other_key_0123456789abcdef', small = await startServer(t, { config: { mcp: { max_noted: 8, max_noted_per_key: 3 }, keys: [{ kind: 'server', app: 'demo', secret: keys.server }, { kind: 'server', app: 'demo', secret: other }] } });
    const begin = async (key) => {
      const { headers: { 'mcp-session-id': id } } = await small.request('/mcp', { key, body: { jsonrpc: '2.0', id: 1, method: 'initialize', params: { protocolVersion: '2025-11-25', capabilities: {}, clientInfo: { name: 'x', version: '1' } } } });
      const post = (options) => small.request('/mcp', { key, headers: { 'mcp-session-id': id }, ...options });
      return { set: async () => (await post({ body: { jsonrpc: '2.0', id: 2, method: 'logging/setLevel', params: { level: 'error' } } })).json.error?.code, end: () => post({ method: 'DELETE' }) };
    };
    const [one, two, three, four] = await Promise.all([1, 2, 3, 4].map(() => begin(keys.server)));
    // So often that each worker was asked, or has heard of it since.
    for (let i = 0; i < 10; i++) for (const session of [one, two, three]) assert.equal(await session.set(), undefined);
    assert.equal(await four.set(), -32000);
    assert.equal(await (await begin(other)).set(), undefined);
    assert.equal((await one.end()).status, 204);
    await waitFor(async () => await four.set() === undefined, 'room again', 30000);
  });

  test('a program\'s resources are watched by whichever worker speaks to it', async () => {
    const client = await connect(server, '/mcp');
    const [{ uri }] = (await client.listResources()).resources.filter((resource) => !resource.uri.startsWith('news:'));
    await client.subscribeResource({ uri });
    await client.callTool({ name: 'all__toggle-subscriber-updates', arguments: {} });
    await waitFor(() => client.updates.includes(uri), 'the update', 40000);
    await client.callTool({ name: 'all__toggle-subscriber-updates', arguments: {} });
    await client.close();
  });
});
