// Sessions over HTTP: open, reuse by device, list, messages, close, erase; what each kind of key may do.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { keys, newSession, startServer, streamTurn } from './lib/server.mjs';
import { waitFor } from './lib/wait.mjs';

const bound_key = 'pc_test_bound_key_0123456789abcdef';
const trusting_key = 'pc_test_trusting_key_0123456789ab';
const other_key = 'ps_test_other_server_key_0123456789';
let server;

before(async () => {
  server = await startServer(null, { config: {
    apps: [
      { id: 'demo', name: 'Demo', org: 'demo', client_may: ['tools'] },
      { id: 'trusting', name: 'T', org: 'demo', trust_device_id: true, client_may: ['tools', 'model'] },
      { id: 'other', name: 'O', org: 'other' },
    ],
    keys: [
      { kind: 'client', app: 'demo', secret: keys.client, rate: { limit: 0, window: '60s' } },
      { kind: 'client', app: 'demo', secret: bound_key, device_id: 'phone-1', rate: { limit: 0, window: '60s' } },
      { kind: 'client', app: 'trusting', secret: trusting_key, rate: { limit: 0, window: '60s' } },
      { kind: 'server', app: 'demo', secret: keys.server },
      { kind: 'server', app: 'other', secret: other_key },
      { kind: 'admin', secret: keys.admin },
    ],
  } });
});
after(() => server?.stop());

const open = (body, key = keys.server) => server.request('/v1/sessions', { key, body });

function is_error({ status, json }, want_status, code, param = null) {
  assert.equal(status, want_status, JSON.stringify(json));
  assert.equal(json.error.code, code);
  assert.equal(json.error.param, param);
  assert.equal(typeof json.error.message, 'string');
  assert.equal(typeof json.request_id, 'string');
}

test('a session is made and shown by any worker', async () => {
  const { status, json, headers } = await open({ device_id: 'd1', metadata: { plan: 'pro' }, system: 'Be brief.' });
  assert.equal(status, 201);
  assert.match(json.id, /^sess_[0-9a-hjkmnp-tv-z]{26}$/);
  assert.match(json.created_at, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/);
  assert.equal(json.reused, false);
  assert.equal(json.status, 'active');
  assert.equal(json.app_id, 'demo');
  assert.equal(json.device_id, 'd1');
  assert.deepEqual(json.metadata, { plan: 'pro' });
  assert.ok(headers['x-request-id']);
  for (let i = 0; i < 12; i++) {
    const shown = await server.request(`/v1/sessions/${json.id}`, { key: keys.server });
    assert.equal(shown.status, 200);
    assert.equal(shown.json.system, 'Be brief.');
    assert.equal(shown.json.last_activity_at, json.last_activity_at);
  }
});

test('reuse takes the newest active session of the device and replaces what is given', async () => {
  const first = await open({ device_id: 'd2' });
  await waitFor(() => Date.now() > Date.parse(first.json.created_at), 'another millisecond');
  const second = await open({ device_id: 'd2', metadata: { n: 2 } });
  assert.notEqual(first.json.id, second.json.id);
  const again = await open({ device_id: 'd2', reuse: true, metadata: { n: 3 } });
  assert.equal(again.status, 200);
  assert.equal(again.json.reused, true);
  assert.equal(again.json.id, second.json.id);
  assert.deepEqual(again.json.metadata, { n: 3 });
  // Activity makes the older one the newest.
  await streamTurn(server, first.json.id, { input: 'hello' }, keys.server);
  assert.equal((await open({ device_id: 'd2', reuse: true })).json.id, first.json.id);
  // A closed one is not reused.
  await server.request(`/v1/sessions/${first.json.id}`, { key: keys.server, method: 'DELETE' });
  assert.equal((await open({ device_id: 'd2', reuse: true })).json.id, second.json.id);
});

test('simultaneous opens for one device yield one session', async () => {
  for (let round = 0; round < 3; round++) {
    const opens = await Promise.all(Array.from({ length: 24 }, () => open({ device_id: `race-${round}`, reuse: true })));
    assert.equal(new Set(opens.map(({ json }) => json.id)).size, 1);
    assert.equal(opens.filter(({ status }) => status === 201).length, 1);
  }
});

test('who may name a device', async () => {
  is_error(await open({ device_id: 'x', reuse: true }, keys.client), 403, 'forbidden', 'device_id');
  const unbound = await open({ device_id: 'phone-1' }, keys.client);
  assert.equal(unbound.status, 201);
  assert.equal(unbound.json.device_id, null);
  const bound = await open({ reuse: true }, bound_key);
  assert.equal(bound.status, 201);
  assert.equal(bound.json.device_id, 'phone-1');
  assert.equal((await open({ reuse: true }, bound_key)).json.id, bound.json.id);
  is_error(await open({ device_id: 'phone-2' }, bound_key), 403, 'forbidden', 'device_id');
  const trusted = await open({ device_id: 'guessless', reuse: true }, trusting_key);
  assert.equal(trusted.status, 201);
  assert.equal((await open({ device_id: 'guessless', reuse: true }, trusting_key)).json.id, trusted.json.id);
});

test('what a client may choose', async () => {
  is_error(await open({ system: 'You are a pirate.' }, keys.client), 403, 'forbidden', 'system');
  is_error(await open({ model: 'default' }, keys.client), 403, 'forbidden', 'model');
  assert.equal((await open({ model: 'default' }, trusting_key)).status, 201);
  const tools = [{ type: 'function', function: { name: 'look', parameters: { type: 'object' } } }];
  const opened = await open({ tools }, keys.client);
  assert.equal(opened.status, 201);
  assert.deepEqual(opened.json.tools, tools);
  assert.equal('system' in opened.json, false);
});

test('wrong input is named', async () => {
  is_error(await open({ device_id: 5 }), 422, 'invalid_value', 'device_id');
  is_error(await open({ reuse: 'yes' }), 422, 'invalid_value', 'reuse');
  is_error(await open({ reuse: true }), 422, 'invalid_value', 'device_id');
  is_error(await open({ model: 'nope' }), 422, 'invalid_value', 'model');
  is_error(await open({ metadata: [] }), 422, 'invalid_value', 'metadata');
  is_error(await open({ tools: [{ type: 'function', function: { name: 'a b' } }] }), 422, 'invalid_value', 'tools');
  is_error(await server.request('/v1/sessions', { key: keys.server, body: '{"a":', headers: { 'content-type': 'application/json' } }), 400, 'invalid_json');
  is_error(await server.request('/v1/sessions', { key: keys.server, body: '[1]', headers: { 'content-type': 'application/json' } }), 400, 'invalid_request');
  is_error(await server.request('/v1/sessions', { key: keys.server, body: 'x=1', headers: { 'content-type': 'text/plain' } }), 415, 'unsupported_media_type');
  assert.equal((await open({ unknown_field: 1 })).status, 201);
});

test('keys: none, wrong, wrong kind', async () => {
  is_error(await server.request('/v1/sessions', { body: {} }), 401, 'unauthorized');
  const wrong = await open({}, 'ps_wrong_key_wrong_key_wrong_key');
  is_error(wrong, 401, 'unauthorized');
  assert.match(wrong.headers['www-authenticate'], /^Bearer/);
  is_error(await open({}, keys.admin), 403, 'forbidden');
  is_error(await server.request('/v1/sessions', { key: keys.client }), 403, 'forbidden');
  assert.equal((await server.request('/v1/sessions', { headers: { 'x-api-key': keys.server } })).status, 200);
});

test("another app's session does not exist", async () => {
  const { id } = await newSession(server);
  for (const [method, route] of [['GET', ''], ['DELETE', ''], ['GET', '/messages']]) {
    is_error(await server.request(`/v1/sessions/${id}${route}`, { key: other_key, method }), 404, 'not_found');
  }
  is_error(await server.request('/v1/sessions/sess_0', { key: keys.server }), 404, 'not_found');
  is_error(await server.request('/v1/sessions/sess_01234567890123456789abcdef', { key: keys.server }), 404, 'not_found');
});

test('a server key lists its sessions by pages, newest first', async () => {
  const ids = [];
  for (let i = 0; i < 5; i++) ids.unshift((await open({ device_id: 'lister' })).json.id);
  const seen = [];
  let after_id;
  do {
    const { json } = await server.request(`/v1/sessions?device_id=lister&limit=2${after_id ? `&after=${after_id}` : ''}`, { key: keys.server });
    assert.ok(json.data.length <= 2);
    seen.push(...json.data.map(({ id }) => id));
    after_id = json.has_more ? json.data.at(-1).id : null;
  } while (after_id);
  // Ids sort by time; those of one millisecond in an order of their own.
  ids.sort().reverse();
  assert.deepEqual(seen, ids);
  await server.request(`/v1/sessions/${ids[0]}`, { key: keys.server, method: 'DELETE' });
  const closed = await server.request('/v1/sessions?device_id=lister&status=closed', { key: keys.server });
  assert.deepEqual(closed.json.data.map(({ id }) => id), [ids[0]]);
  is_error(await server.request('/v1/sessions?status=odd', { key: keys.server }), 422, 'invalid_value', 'status');
  is_error(await server.request('/v1/sessions?limit=0', { key: keys.server }), 422, 'invalid_value', 'limit');
  is_error(await server.request('/v1/sessions?after=x', { key: keys.server }), 422, 'invalid_value', 'after');
});

test('messages come in order, by pages', async () => {
  const { id } = await newSession(server);
  for (const input of ['one', 'two', 'three']) await streamTurn(server, id, { input });
  const seen = [];
  let after_id;
  do {
    const { json } = await server.request(`/v1/sessions/${id}/messages?limit=2${after_id ? `&after=${after_id}` : ''}`, { key: keys.client });
    seen.push(...json.data);
    after_id = json.has_more ? json.data.at(-1).id : null;
  } while (after_id);
  assert.deepEqual(seen.map(({ role, content }) => `${role}: ${content}`), [
    'user: one', 'assistant: echo: one', 'user: two', 'assistant: echo: two', 'user: three', 'assistant: echo: three']);
  for (const message of seen) assert.match(message.id, /^msg_/);
});

test('a closed session takes no turn, an erased one has no content', async () => {
  const { id } = await newSession(server);
  await streamTurn(server, id, { input: 'secret words' });
  const closed = await server.request(`/v1/sessions/${id}`, { key: keys.client, method: 'DELETE' });
  assert.equal(closed.status, 200);
  assert.equal(closed.json.status, 'closed');
  is_error(await server.request(`/v1/sessions/${id}/turns`, { key: keys.client, body: { input: 'more' } }), 409, 'session_closed');
  is_error(await server.request(`/v1/sessions/${id}?erase=true`, { key: keys.client, method: 'DELETE' }), 403, 'forbidden', 'erase');
  assert.equal((await server.request(`/v1/sessions/${id}/messages`, { key: keys.client })).json.data.length, 2);
  assert.equal((await server.request(`/v1/sessions/${id}?erase=true`, { key: keys.server, method: 'DELETE' })).status, 200);
  const { text } = await server.request(`/v1/sessions/${id}/messages`, { key: keys.server });
  assert.doesNotMatch(text, /secret words/);
});

test('content goes after sessions.retention, in batches; usage stays', async (t) => {
  const own = await startServer(t, { mock: server.mock, config: { sessions: { sweep_interval: '1s', sweep_batch: 2, idle_expiry: '2s', retention: '1s' } } });
  const ids = [];
  for (let i = 0; i < 5; i++) {
    const { id } = await newSession(own, { metadata: { said: 'secret words' } }, keys.server);
    assert.equal((await streamTurn(own, id, { input: 'secret words' })).at(-1).event, 'turn.completed');
    if (i % 2 === 0) assert.equal((await own.request(`/v1/sessions/${id}`, { key: keys.client, method: 'DELETE' })).status, 200);
    ids.push(id);
  }
  for (const [i, id] of ids.entries()) {
    await waitFor(async () => (await own.request(`/v1/sessions/${id}/messages`, { key: keys.server })).json.data.length === 0, 'no messages');
    const { json, text } = await own.request(`/v1/sessions/${id}`, { key: keys.server });
    assert.equal(json.status, i % 2 === 0 ? 'closed' : 'expired');
    assert.doesNotMatch(text, /secret/);
  }
  const day = new Date().toISOString().slice(0, 10);
  const usage = await own.request(`/admin/v1/usage?from=${new Date(Date.now() - 86400000).toISOString().slice(0, 10)}&to=${day}`, { key: keys.admin });
  assert.equal(usage.json.data.reduce((sum, row) => sum + row.calls, 0), 5, usage.text);
});
