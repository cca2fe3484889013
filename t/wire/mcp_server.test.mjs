// Our own MCP endpoint: tools of several upstreams behind one, for modern clients; 4 workers, a fresh connection for each request.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import http from 'node:http';
import { after, before, describe, test } from 'node:test';
import { Client } from '@modelcontextprotocol/client';
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/client';
import { startModern, startSessions } from './lib/mcp.mjs';
import { everything, ready } from './lib/programs.mjs';
import { keys, startServer } from './lib/server.mjs';
import { waitFor } from './lib/wait.mjs';

const meta = { 'io.modelcontextprotocol/protocolVersion': '2026-07-28', 'io.modelcontextprotocol/clientCapabilities': {} };
const message = (method, params = {}, id = 1) => ({ jsonrpc: '2.0', id, method, params: { ...params, _meta: { ...meta, ...params._meta } } });

/** A modern request with the headers that belong to it; over replaces them (undefined: without). */
function post(server, body, over = {}, options = {}) {
  const name = body.params?.name ?? body.params?.uri;
  const headers = {
    accept: 'application/json, text/event-stream', 'mcp-protocol-version': '2026-07-28', 'mcp-method': body.method, ...(name ? { 'mcp-name': name } : {}), ...over,
  };
  for (const key of Object.keys(headers)) if (headers[key] === undefined) delete headers[key];
  return server.request('/mcp', { key: keys.server, headers, body, ...options });
}

const refused = (answer, status, code) => assert.deepEqual([answer.status, answer.json?.error?.code], [status, code], answer.text);

describe('modern', () => {
  let server, web, old;
  before(async () => {
    [web, old] = [await startModern(), await startSessions()];
    server = await startServer(null, { config: {
      mcp: { backoff: '50ms', backoff_max: '200ms', servers: [{ name: 'web', url: web.url }, { name: 'old', url: old.url }, everything('all')] },
      tools: { server_timeout: '5s' },
      apps: [{ id: 'demo', name: 'Demo', org: 'demo', client_may: ['tools'] }, { id: 'small', name: 'Small', org: 'demo', mcp_servers: ['web'] }],
      keys: [
        { kind: 'client', app: 'demo', secret: keys.client }, { kind: 'server', app: 'demo', secret: keys.server }, { kind: 'admin', secret: keys.admin },
        { kind: 'server', app: 'small', secret: 'ps_test_small_key_0123456789abcdef' },
        { kind: 'server', app: 'demo', secret: 'ps_test_gated_key_0123456789abcdef', tools: ['web__*', 'old__add'], denied_tools: ['web__fail'] },
        { kind: 'server', app: 'demo', secret: 'ps_test_reader_key_0123456789abcde', tools: ['web__*'], read_only_tools: true },
      ],
    } });
    for (const name of ['web', 'old', 'all']) await ready(server, name);
  });
  after(async () => { await server?.stop(); await web?.stop(); await old?.stop(); });

  test('server/discover says what there is', async () => {
    const { status, json, headers } = await post(server, message('server/discover'));
    assert.equal(status, 200);
    assert.equal(headers['content-type'], 'application/json');
    const { result } = json;
    assert.deepEqual([result.resultType, result.supportedVersions, result.cacheScope, typeof result.ttlMs], ['complete', ['2026-07-28'], 'public', 'number']);
    assert.ok(result.capabilities.tools);
    assert.equal(result._meta['io.modelcontextprotocol/serverInfo'].name, 'parley');
  });

  test('tools/list is the same on every worker, with its schemas', async () => {
    const lists = await Promise.all(Array.from({ length: 12 }, () => post(server, message('tools/list'))));
    assert.equal(new Set(lists.map(({ text }) => text)).size, 1);
    const { result } = lists[0].json;
    assert.deepEqual([result.resultType, result.cacheScope, result.ttlMs, result.nextCursor], ['complete', 'private', 300000, undefined]);
    const names = result.tools.map(({ name }) => name);
    for (const name of ['web__add', 'old__add', 'all__echo']) assert.ok(names.includes(name), name);
    assert.deepEqual(result.tools.find(({ name }) => name === 'web__add').inputSchema.required, ['a', 'b']);
  });

  test('an app has the tools of its servers only, in lists and in calls', async () => {
    const small = { key: 'ps_test_small_key_0123456789abcdef' };
    const { json } = await post(server, message('tools/list'), {}, small);
    assert.ok(json.result.tools.length > 0 && json.result.tools.every(({ name }) => /^(web|parley)__/.test(name)));
    refused(await post(server, message('tools/call', { name: 'old__add', arguments: { a: 1, b: 2 } }), {}, small), 200, -32602);
  });

  test('a key has the tools that it may use, in lists and in calls', async () => {
    const names = async (key) => (await post(server, message('tools/list'), {}, { key })).json.result.tools.map(({ name }) => name);
    const may = async (key, name) => (await post(server, message('tools/call', { name, arguments: { a: 1, b: 2 } }), {}, { key })).json.error?.code !== -32602;
    const [gated, reader] = ['ps_test_gated_key_0123456789abcdef', 'ps_test_reader_key_0123456789abcde'];
    assert.deepEqual(await names(gated), ['web__add', 'web__numbers', 'web__picture', 'web__slow', 'old__add']);
    assert.deepEqual(await names(reader), ['web__numbers']);
    assert.deepEqual([await may(gated, 'web__add'), await may(gated, 'web__fail'), await may(gated, 'old__fail')], [true, false, false]);
    assert.deepEqual([await may(reader, 'web__numbers'), await may(reader, 'web__add')], [true, false]);
    // One of the record, that is changed while it is used; the change holds everywhere within a second.
    const made = await server.request('/admin/v1/keys', { key: keys.admin, body: { kind: 'server', app_id: 'demo', tools: ['old__*'] } });
    assert.deepEqual([made.status, made.json.tools], [201, ['old__*']]);
    assert.ok((await names(made.json.key)).every((name) => name.startsWith('old__')));
    const changed = await server.request(`/admin/v1/keys/${made.json.id}`, { key: keys.admin, method: 'PATCH', body: { tools: null, denied_tools: ['all__*', 'old__*', 'parley__*', 'web__*'] } });
    assert.equal(changed.status, 200);
    await waitFor(async () => {
      for (let i = 0; i < 8; i++) if ((await names(made.json.key)).length > 0) return false;
      return true;
    }, 'the change on all workers');
    assert.equal((await server.request('/admin/v1/keys', { key: keys.admin, body: { kind: 'server', app_id: 'demo', read_only_tools: 'yes' } })).status, 422);
  });

  test('tools/call of either era gives a modern result', async () => {
    for (const name of ['web__add', 'old__add']) {
      const { status, json } = await post(server, message('tools/call', { name, arguments: { a: 2, b: 3 } }, 'x-1'));
      assert.equal(status, 200);
      assert.equal(json.id, 'x-1');
      assert.deepEqual([json.result.resultType, json.result.content, json.result._meta['io.modelcontextprotocol/serverInfo'].name], ['complete', [{ type: 'text', text: 'sum 5' }], 'parley']);
    }
    const numbers = await post(server, message('tools/call', { name: 'web__numbers' }));
    assert.deepEqual(numbers.json.result.structuredContent, { n: 7 });
    const failed = await post(server, message('tools/call', { name: 'old__fail', arguments: {} }));
    assert.deepEqual([failed.status, failed.json.result.isError, failed.json.result.content[0].text], [200, true, 'the disk is full']);
  });

  test('progress comes on the stream of its request', async () => {
    const body = message('tools/call', { name: 'all__trigger-long-running-operation', arguments: { duration: 1, steps: 4 }, _meta: { progressToken: 'tok"en' } });
    const stream = await server.stream('/mcp', { key: keys.server, body, headers: { accept: 'application/json, text/event-stream', 'mcp-protocol-version': '2026-07-28', 'mcp-method': 'tools/call', 'mcp-name': body.params.name } });
    const frames = [];
    for await (const { event, data, id } of stream) {
      assert.deepEqual([event, id], ['message', undefined]);
      frames.push(data);
    }
    assert.equal(stream.headers['x-accel-buffering'], 'no');
    const last = frames.pop();
    assert.deepEqual([last.id, last.result.resultType], [1, 'complete']);
    assert.ok(frames.length >= 2);
    assert.ok(frames.every(({ method, params }) => method === 'notifications/progress' && params.progressToken === 'tok"en'));
    assert.ok(frames.every(({ params }, i) => i === 0 || params.progress > frames[i - 1].params.progress));
    // Who takes no stream gets the result alone.
    const plain = await post(server, body, { accept: 'application/json' });
    assert.deepEqual([plain.status, plain.headers['content-type'], plain.json.result.resultType], [200, 'application/json', 'complete']);
  });

  test('prompts, resources and templates', async () => {
    const lists = {};
    for (const [method, member] of [['prompts/list', 'prompts'], ['resources/list', 'resources'], ['resources/templates/list', 'resourceTemplates']]) {
      const texts = await Promise.all(Array.from({ length: 8 }, () => post(server, message(method))));
      assert.equal(new Set(texts.map(({ text }) => text)).size, 1);
      const { result } = texts[0].json;
      assert.deepEqual([result.resultType, result.cacheScope, typeof result.ttlMs], ['complete', 'private', 'number'], method);
      lists[member] = result[member];
      assert.ok(lists[member].length > 0, method);
    }
    const { result: prompt } = (await post(server, message('prompts/get', { name: 'all__simple-prompt' }))).json;
    assert.equal(prompt.messages[0].role, 'user');
    const [{ uri }] = lists.resources;
    const template = lists.resourceTemplates.map(({ uriTemplate }) => uriTemplate).find((text) => /text\/\{\w+\}$/.test(text));
    for (const wanted of [uri, template.replace(/\{\w+\}/, '1')]) {
      const { result } = (await post(server, message('resources/read', { uri: wanted }))).json;
      assert.equal(result.contents[0].uri, wanted);
      assert.deepEqual([result.resultType, result.ttlMs, result.cacheScope], ['complete', 0, 'private']);
    }
    const missing = await post(server, message('resources/read', { uri: 'nothing://here' }));
    refused(missing, 200, -32602);
    assert.deepEqual(missing.json.error.data, { uri: 'nothing://here' });
    refused(await post(server, message('prompts/get', { name: 'all__nothing' })), 200, -32602);
    const small = await post(server, message('resources/read', { uri }), {}, { key: 'ps_test_small_key_0123456789abcdef' });
    refused(small, 200, -32602);
  });

  test('a client that goes ends its call', async () => {
    const aborted = web.aborted;
    const body = message('tools/call', { name: 'web__slow', arguments: {} });
    const req = http.request(`${server.url}/mcp`, { method: 'POST', agent: false, headers: { authorization: `Bearer ${keys.server}`, 'content-type': 'application/json', 'mcp-protocol-version': '2026-07-28', 'mcp-method': 'tools/call', 'mcp-name': 'web__slow' } });
    req.on('error', () => {});
    req.end(JSON.stringify(body));
    await waitFor(() => web.waiting.length > 0, 'the call to arrive');
    req.destroy();
    await waitFor(() => web.aborted > aborted, 'the call to be given up');
    web.release();
  });

  test('what is wrong is said as the specification says', async () => {
    const list = message('tools/list');
    refused(await post(server, list, { 'content-type': 'text/plain' }), 415, -32000);
    refused(await server.request('/mcp', { key: keys.server, body: '{"jsonrpc":', headers: { 'content-type': 'application/json' } }), 400, -32700);
    refused(await post(server, { ...list, id: null }), 400, -32600);
    refused(await post(server, { hello: 'world' }, { 'mcp-method': 'x' }), 400, -32600);
    refused(await post(server, { ...list, params: { _meta: { 'io.modelcontextprotocol/protocolVersion': '2026-07-28' } } }), 400, -32602);
    refused(await post(server, { ...list, params: {} }), 400, -32602);
    refused(await post(server, { ...list, params: { _meta: { ...meta, 'io.modelcontextprotocol/clientCapabilities': [] } } }), 400, -32602);
    refused(await post(server, list, { 'mcp-protocol-version': undefined }), 400, -32020);
    refused(await post(server, list, { 'mcp-protocol-version': '2025-11-25' }), 400, -32020);
    refused(await post(server, list, { 'mcp-method': undefined }), 400, -32020);
    refused(await post(server, list, { 'mcp-method': 'Tools/List' }), 400, -32020);
    const call = message('tools/call', { name: 'web__add', arguments: { a: 1, b: 1 } });
    refused(await post(server, call, { 'mcp-name': undefined }), 400, -32020);
    refused(await post(server, call, { 'mcp-name': 'web__fail' }), 400, -32020);
    refused(await post(server, call, { 'mcp-name': '=?base64?***?=' }), 400, -32020);
    assert.equal((await post(server, call, { 'mcp-name': `=?base64?${Buffer.from('web__add').toString('base64')}?=`, 'mcp-method': ' tools/call ' })).json.result.content[0].text, 'sum 2');
    const future = { ...list, params: { _meta: { ...meta, 'io.modelcontextprotocol/protocolVersion': '2099-01-01' } } };
    const unsupported = await post(server, future, { 'mcp-protocol-version': '2099-01-01' });
    refused(unsupported, 400, -32022);
    assert.deepEqual(unsupported.json.error.data, { supported: ['2026-07-28'], requested: '2099-01-01' });
    assert.equal(unsupported.json.id, 1);
    for (const method of ['initialize', 'ping', 'logging/setLevel', 'resources/subscribe', 'no/such']) refused(await post(server, message(method)), 404, -32601);
    refused(await post(server, message('tools/call', { name: 'web__nothing' })), 200, -32602);
    refused(await post(server, message('tools/list', { cursor: '' })), 200, -32602);
    const said = await post(server, { jsonrpc: '2.0', method: 'notifications/cancelled', params: { requestId: 1, _meta: meta } });
    assert.deepEqual([said.status, said.text], [202, '']);
  });

  test('keys, pages and names are looked at first', async () => {
    const list = message('tools/list');
    const none = await post(server, list, {}, { key: undefined });
    assert.equal(none.status, 401);
    const url = /resource_metadata="([^"]+)"/.exec(none.headers['www-authenticate'])[1];
    assert.equal(url, `${server.url}/.well-known/oauth-protected-resource/mcp`);
    const document = await server.request('/.well-known/oauth-protected-resource/mcp');
    assert.deepEqual([document.status, document.json.resource, document.json.bearer_methods_supported], [200, `${server.url}/mcp`, ['header']]);
    assert.equal((await post(server, list, {}, { key: 'ps_wrong_key_0123456789abcdefgh' })).status, 401);
    assert.equal((await server.request(`/mcp?access_token=${keys.server}`, { body: list })).status, 401);
    const client = await post(server, list, {}, { key: keys.client });
    assert.equal(client.status, 403);
    assert.match(client.headers['www-authenticate'], /insufficient_scope/);
    assert.equal((await post(server, list, { origin: 'https://evil.example' })).status, 403);
    assert.equal((await post(server, list, { origin: 'http://localhost:6274' })).status, 200);
    assert.equal((await post(server, list, { host: 'evil.example' })).status, 403);
    const get = await server.request('/mcp', { key: keys.server, method: 'PUT' });
    assert.equal(get.status, 405);
    assert.match(get.headers.allow, /POST/);
  });

  test('the official client', async () => {
    const client = new Client({ name: 'test', version: '1' }, { versionNegotiation: { mode: 'auto' } });
    const transport = new StreamableHTTPClientTransport(new URL(`${server.url}/mcp`), { requestInit: { headers: { authorization: `Bearer ${keys.server}`, connection: 'close' } } });
    await client.connect(transport);
    const { tools } = await client.listTools();
    assert.ok(tools.some(({ name }) => name === 'all__echo'));
    for (let i = 0; i < 8; i++) {
      const { content } = await client.callTool({ name: 'web__add', arguments: { a: i, b: 1 } });
      assert.equal(content[0].text, `sum ${i + 1}`);
    }
    const seen = [];
    await client.callTool({ name: 'all__trigger-long-running-operation', arguments: { duration: 0.4, steps: 4 } }, { onprogress: ({ progress }) => seen.push(progress) });
    assert.ok(seen.length >= 2, String(seen));
    await client.close();
  });
});

test('calls that outlive a drain are answered, not cut', async (t) => {
  const web = await startModern(t);
  const server = await startServer(t, { config: { mcp: { servers: [{ name: 'web', url: web.url }] }, drain: { timeout: '1500ms' } } });
  await ready(server, 'web');
  const answers = Array.from({ length: 4 }, (_, i) => post(server, message('tools/call', { name: 'web__slow', arguments: {} }, i)));
  await waitFor(() => web.waiting.length === 4, 'calls under way');
  server.kill('SIGTERM');
  for (const [i, { json, text }] of (await Promise.all(answers)).entries()) {
    assert.deepEqual([json?.id, json?.result?.isError], [i, true], text);
    assert.match(json.result.content[0].text, /shutting down/);
  }
  assert.equal((await server.ended).code, 0);
  web.release();
});

test('who listens is told of changes, on every worker, and that it ends', async (t) => {
  const web = await startModern(t);
  const server = await startServer(t, { config: { mcp: { servers: [{ name: 'web', url: web.url }] }, drain: { timeout: '4s', spread: '100ms' } } });
  await ready(server, 'web');
  await waitFor(() => web.requests.filter(({ headers }) => headers['mcp-method'] === 'subscriptions/listen').length >= 4, 'listen streams');
  const listen = (id, notifications) => server.stream('/mcp', {
    key: keys.server, body: message('subscriptions/listen', { notifications }, id),
    headers: { accept: 'application/json, text/event-stream', 'mcp-protocol-version': '2026-07-28', 'mcp-method': 'subscriptions/listen' },
  });
  const frames = async (stream) => { const all = []; for await (const { event, data } of stream) { assert.equal(event, 'message'); all.push(data); stream.seen = all.length; } return all; };
  const streams = await Promise.all(Array.from({ length: 12 }, (_, i) => listen(`l-${i}`, { toolsListChanged: true, resourceSubscriptions: ['a://b'] })));
  const other = await listen(7, { promptsListChanged: true });
  const all = streams.map(frames);
  const others = frames(other);
  await waitFor(() => [...streams, other].every(({ seen }) => seen === 1), 'the acknowledgements');
  web.addTool('later');
  await waitFor(() => streams.every(({ seen }) => seen === 2), 'the change');
  refused(await post(server, message('subscriptions/listen')), 200, -32602);
  await server.stop();
  const key = 'io.modelcontextprotocol/subscriptionId';
  for (const [i, got] of (await Promise.all(all)).entries()) {
    const [ack, change, end] = got;
    assert.deepEqual([ack.method, ack.params.notifications, ack.params._meta[key]], ['notifications/subscriptions/acknowledged', { toolsListChanged: true }, `l-${i}`]);
    assert.deepEqual([change.method, change.params._meta[key]], ['notifications/tools/list_changed', `l-${i}`]);
    assert.deepEqual([got.length, end.id, end.result.resultType], [3, `l-${i}`, 'complete']);
  }
  assert.deepEqual((await others).map(({ method, id }) => method ?? id), ['notifications/subscriptions/acknowledged', 7]);
});

/** A modern upstream without an SDK: tools that it is handed, as answer(params) -> {result} or {error}. */
async function startPlain(t, tools) {
  const web = http.createServer(async (req, res) => {
    const parts = [];
    for await (const part of req) parts.push(part);
    const { id, method, params } = JSON.parse(Buffer.concat(parts));
    const listed = Object.entries(tools).map(([name, { schema }]) => ({ name, inputSchema: { type: 'object', ...schema } }));
    const answers = {
      'server/discover': () => ({ result: { resultType: 'complete', supportedVersions: ['2026-07-28'], capabilities: { tools: {} }, ttlMs: 1000, cacheScope: 'public' } }),
      'tools/list': () => ({ result: { resultType: 'complete', tools: listed, ttlMs: 60000, cacheScope: 'public' } }),
      'tools/call': () => tools[params.name].answer(params),
    };
    const { result, error } = answers[method]();
    res.writeHead(error ? 400 : 200, { 'content-type': 'application/json' }).end(JSON.stringify({ jsonrpc: '2.0', id, result, error }));
  });
  web.listen(0, '127.0.0.1');
  await once(web, 'listening');
  t.after(() => { web.close(); web.closeAllConnections(); });
  return `http://127.0.0.1:${web.address().port}/mcp`;
}

test('what concerns client and tool alone passes through', async (t) => {
  const state = 'opaque \u2603 "state"';
  const url = await startPlain(t, {
    place: { schema: { properties: { city: { type: 'string', 'x-mcp-header': 'City' } } }, answer: (params) => ({ result: { resultType: 'complete', content: [{ type: 'text', text: params.arguments?.city ?? 'nowhere' }] } }) },
    needs: { answer: ({ _meta }) => (_meta['io.modelcontextprotocol/clientCapabilities'].sampling
      ? { result: { resultType: 'complete', content: [] } }
      : { error: { code: -32021, message: 'sampling is needed', data: { requiredCapabilities: { sampling: {} } } } }) },
    asks: { answer: (params) => ({ result: params.requestState === state
      ? { resultType: 'complete', content: [{ type: 'text', text: JSON.stringify(params.inputResponses) }] }
      : { resultType: 'input_required', inputRequests: { name: { method: 'elicitation/create', params: { message: 'Who?' } } }, requestState: state } }) },
    reserved: { answer: () => ({ error: { code: -32050, message: 'mine' } }) },
  });
  const server = await startServer(t, { config: { mcp: { servers: [{ name: 'x', url }] } } });
  await ready(server, 'x');
  const call = (name, params = {}, headers = {}) => post(server, message('tools/call', { name, ...params }), headers);
  // Mcp-Param-City says what the argument says, or neither is there.
  const oslo = { arguments: { city: 'Oslo' } };
  assert.equal((await call('x__place', oslo, { 'mcp-param-city': 'Oslo' })).json.result.content[0].text, 'Oslo');
  assert.equal((await call('x__place', { arguments: { city: 'Ålesund' } }, { 'mcp-param-city': `=?base64?${Buffer.from('Ålesund').toString('base64')}?=` })).json.result.content[0].text, 'Ålesund');
  assert.equal((await call('x__place')).json.result.content[0].text, 'nowhere');
  refused(await call('x__place', oslo), 400, -32020);
  refused(await call('x__place', oslo, { 'mcp-param-city': 'Bergen' }), 400, -32020);
  refused(await call('x__place', oslo, { 'mcp-param-city': '=?base64?*?=' }), 400, -32020);
  refused(await call('x__place', {}, { 'mcp-param-city': 'Oslo' }), 400, -32020);
  // A capability that the client has not declared; one that it has.
  const missing = await call('x__needs');
  refused(missing, 400, -32021);
  assert.deepEqual(missing.json.error.data, { requiredCapabilities: { sampling: {} } });
  assert.equal((await call('x__needs', { _meta: { 'io.modelcontextprotocol/clientCapabilities': { sampling: {} } } })).json.result.resultType, 'complete');
  // Rounds: the client repeats the call with its answers and the state, at whichever worker.
  const { result } = (await call('x__asks')).json;
  assert.deepEqual([result.resultType, result.inputRequests.name.method, result.requestState], ['input_required', 'elicitation/create', state]);
  const second = await call('x__asks', { requestState: result.requestState, inputResponses: { name: { action: 'accept' } } });
  assert.deepEqual([second.json.result.resultType, second.json.result.content[0].text], ['complete', '{"name":{"action":"accept"}}']);
  // Codes of the specification are not an upstream's to give.
  refused(await call('x__reserved'), 200, -32603);
});

test('an upstream that is away is a failure of its tool', async (t) => {
  const web = await startModern(t);
  const server = await startServer(t, { config: { mcp: { backoff: '50ms', backoff_max: '100ms', servers: [{ name: 'web', url: web.url }] } } });
  server.expectLog(/mcp server away server=web /);
  await ready(server, 'web');
  await web.stop();
  const { status, json } = await post(server, message('tools/call', { name: 'web__add', arguments: { a: 1, b: 1 } }));
  assert.deepEqual([status, json.result.isError, json.result.resultType], [200, true, 'complete']);
  assert.match(json.result.content[0].text, /not reachable|went|broke/);
});

test('without a key on loopback, and a page that may', async (t) => {
  const web = await startModern(t);
  const server = await startServer(t, { config: { mcp: { auth: 'none', allow_origins: ['https://good.example'], allow_hosts: ['mcp.example'], url: 'https://mcp.example/mcp', prefix: false, servers: [{ name: 'web', url: web.url }] } } });
  await ready(server, 'web');
  const add = message('tools/call', { name: 'add', arguments: { a: 1, b: 1 } });
  const open = { key: undefined };
  assert.equal((await post(server, add, {}, open)).json.result.content[0].text, 'sum 2');
  assert.equal((await post(server, add, { origin: 'https://good.example', host: 'mcp.example:443' }, open)).status, 200);
  assert.equal((await post(server, add, { host: 'evil.example' }, open)).status, 403);
  const forwarded = await post(server, add, { 'x-forwarded-for': '192.0.2.1' }, open);
  assert.equal(forwarded.status, 401);
  assert.equal(forwarded.headers['www-authenticate'], 'Bearer resource_metadata="https://mcp.example/.well-known/oauth-protected-resource/mcp"');
});
