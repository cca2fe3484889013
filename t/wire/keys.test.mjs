// Keys: minted for clients, made and revoked by the command line while the server runs, limited per key.
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { promisify } from 'node:util';
import { build } from './lib/process.mjs';
import { parseMetrics, sumOf } from './lib/metrics.mjs';
import { collect } from './lib/http.mjs';
import { is_last_event, keys, startServer } from './lib/server.mjs';
import { waitFor } from './lib/wait.mjs';
import { openChat } from './lib/ws.mjs';

const limited_key = 'pc_test_limited_key_0123456789abc';
let server;
before(async () => {
  server = await startServer(null, { config: { keys: [
    { kind: 'client', app: 'demo', secret: keys.client, rate: { limit: 0, window: '60s' } },
    { kind: 'client', app: 'demo', secret: limited_key, rate: { limit: 10, window: '60s' } },
    { kind: 'server', app: 'demo', secret: keys.server },
    { kind: 'admin', secret: keys.admin },
  ] } });
  server.expectLog(/store write waits /); // the command line writes into the record beside it, as fast as the disk lets it
});
after(() => server?.stop());

const parleyd = (...args) => promisify(execFile)(path.join(build, 'parleyd'), ['--config', server.file, ...args], { cwd: server.dir });
const open = (key) => server.request('/v1/sessions', { key, body: {} });

test('a server key mints client keys that end', async () => {
  const minted = await server.request('/v1/client-keys', { key: keys.server, body: { app_id: 'demo', device_id: 'dev-9', expires_in: 5 } });
  assert.equal(minted.status, 201, minted.text);
  assert.match(minted.json.key, /^pc_.{24,}$/);
  for (let i = 0; i < 8; i++) {
    const opened = await server.request('/v1/sessions', { key: minted.json.key, body: { reuse: true } });
    assert.equal(opened.status, i === 0 ? 201 : 200);
    assert.equal(opened.json.device_id, 'dev-9');
  }
  await waitFor(async () => (await open(minted.json.key)).status === 401, 'end of the key');
  assert.equal((await server.request('/v1/client-keys', { key: keys.server, body: { app_id: 'other' } })).status, 403);
  assert.equal((await server.request('/v1/client-keys', { key: keys.client, body: { app_id: 'demo' } })).status, 403);
  assert.equal((await server.request('/v1/client-keys', { key: keys.server, body: { expires_in: 0 } })).status, 422);
});

test('parleyd key create, list and revoke; revoked on all workers within a second', async () => {
  const { stdout } = await parleyd('key', 'create', '--kind', 'server', '--app', 'demo', '--name', 'ci');
  const secret = /ps_\S{24,}/.exec(stdout)[0];
  const id = /key_[0-9a-z]{26}/.exec(stdout)[0];
  await waitFor(async () => (await open(secret)).status === 201, 'the new key');
  for (let i = 0; i < 12; i++) assert.equal((await open(secret)).status, 201);
  const listed = (await parleyd('key', 'list')).stdout;
  assert.match(listed, new RegExp(id));
  assert.ok(!listed.includes(secret));
  await parleyd('key', 'revoke', id);
  const revoked_at = Date.now();
  await waitFor(async () => (await Promise.all(Array.from({ length: 12 }, () => open(secret)))).every(({ status }) => status === 401), 'revocation', 3000);
  assert.ok(Date.now() - revoked_at < 5000);
  await assert.rejects(parleyd('key', 'revoke', 'key_01234567890123456789abcdef'));
});

test('parleyd key create with a budget, models and limits: a key that has them', async () => {
  const create = async (...more) => {
    const { stdout } = await parleyd('key', 'create', '--kind', 'server', '--app', 'demo', ...more);
    const secret = /ps_\S{24,}/.exec(stdout)[0];
    await waitFor(async () => (await server.request('/v1/models', { key: secret })).status === 200, 'the new key');
    return secret;
  };
  const chat = (key, body = {}) => server.request('/v1/chat/completions', { key, body: { model: 'default', max_tokens: 100, messages: [{ role: 'user', content: 'hi' }], ...body } });
  const poor = await create('--budget', '0.0001/month');
  const over = await chat(poor);
  assert.equal(over.status, 402, over.text);
  assert.deepEqual([over.json.budget.of, over.json.budget.period, over.json.budget.amount], ['key', 'month', 0.0001]);
  assert.equal((await chat(await create('--budget', '5'))).status, 200);
  assert.equal((await chat(await create('--budget', '0.0001'))).json.budget.period, 'total');
  assert.equal((await chat(await create('--models', 'other,oth*'))).status, 403);
  assert.equal((await chat(await create('--models', 'other, def*'))).status, 200);
  assert.match((await chat(await create('--tpm', '20'), { messages: [{ role: 'user', content: 'x'.repeat(200) }] })).headers['x-parley-provider'], /mock/);
  const few = await create('--rpd', '2', '--rpm', '50'); // asked once by create() at least
  await waitFor(async () => (await chat(few)).status === 429, 'the end of the day\'s two');
  assert.equal((await chat(few)).json.limit.unit, 'requests per day');
  for (const wrong of [['--budget', '0'], ['--budget', '10/year'], ['--budget', 'much'], ['--budget', '-1/day'], ['--rpm', 'x'], ['--models', ' ,']])
    await assert.rejects(create(...wrong), (error) => error.code === 64, wrong.join(' '));
  await assert.rejects(parleyd('key', 'create', '--kind', 'client', '--app', 'demo', '--budget', '1'), /only a server key/);
});

const admin = (route, method, body) => server.request(`/admin/v1/keys${route}`, { key: keys.admin, method, body });

test('an admin makes, lists, changes and revokes keys', async () => {
  const made = await admin('', 'POST', { kind: 'server', app_id: 'demo', name: 'first', rpm: 100, models: ['default'], budget: { amount: 5, period: 'month' }, expires_in: 3600 });
  assert.equal(made.status, 201, made.text);
  const { key, ...shown } = made.json;
  assert.match(key, /^ps_.{24,}$/);
  assert.deepEqual([shown.kind, shown.app_id, shown.name, shown.state, shown.rpm, shown.tpm, shown.models, shown.budget, shown.rate],
    ['server', 'demo', 'first', 'valid', 100, null, ['default'], { amount: 5, period: 'month' }, null]);
  assert.ok(Math.abs(Date.parse(shown.expires_at) - Date.parse(shown.created_at) - 3600000) < 1000, JSON.stringify(shown));
  assert.equal((await open(key)).status, 201);
  assert.deepEqual((await admin(`/${shown.id}`)).json, shown);

  const second = (await admin('', 'POST', { kind: 'client', app_id: 'demo', device_id: 'dev-1', rate: { limit: 3, window: '1m' } })).json;
  assert.deepEqual(second.rate, { limit: 3, window_ms: 60000 });
  const pages = [];
  for (let after = ''; ;) {
    const page = await admin(`?limit=1&app=demo${after && `&after=${after}`}`);
    assert.equal(page.status, 200, page.text);
    pages.push(...page.json.data);
    if (!page.json.has_more) break;
    after = page.json.data[0].id;
  }
  for (const { id } of [shown, second]) assert.equal(pages.filter((one) => one.id === id).length, 1);
  assert.ok(!JSON.stringify(pages).includes(key));

  const models = async () => (await server.request('/v1/models', { key })).json.data.length;
  assert.equal(await models(), 1);
  const changed = await admin(`/${shown.id}`, 'PATCH', { models: ['other'], rpm: null, budget: { amount: 7 }, name: null });
  assert.equal(changed.status, 200, changed.text);
  assert.deepEqual([changed.json.models, changed.json.rpm, changed.json.budget, changed.json.name], [['other'], null, { amount: 7, period: 'total' }, null]);
  await waitFor(async () => (await Promise.all(Array.from({ length: 8 }, models))).every((n) => n === 0), 'the change on all workers');

  const revoked = await admin(`/${shown.id}`, 'DELETE');
  assert.equal(revoked.status, 200, revoked.text);
  assert.equal(revoked.json.state, 'revoked');
  assert.ok(revoked.json.revoked_at);
  await waitFor(async () => (await Promise.all(Array.from({ length: 12 }, () => open(key)))).every(({ status }) => status === 401), 'revocation', 3000);
  assert.deepEqual((await admin(`/${shown.id}`, 'DELETE')).json, revoked.json, 'twice is once');
  assert.equal((await admin(`/${shown.id}`, 'PATCH', { name: 'x' })).status, 404);
});

test('what is no key is refused, and only an admin may', async () => {
  const wrong = {
    kind: { kind: 'root' }, app_id: { kind: 'client', app_id: 'none' }, device_id: { kind: 'server', app_id: 'demo', device_id: 'd' },
    rpm: { kind: 'client', app_id: 'demo', rpm: 1 }, rate: { kind: 'client', app_id: 'demo', rate: { limit: -1 } },
    budget: { kind: 'server', app_id: 'demo', budget: { amount: 0 } }, models: { kind: 'server', app_id: 'demo', models: 'all' },
    expires_in: { kind: 'server', app_id: 'demo', expires_in: 0 },
  };
  for (const [param, body] of Object.entries(wrong)) {
    const { status, json } = await admin('', 'POST', body);
    assert.equal(status, 422, param);
    assert.equal(json.error.param, param);
  }
  assert.equal((await admin('', 'POST', { kind: 'admin', app_id: 'demo' })).status, 422);
  for (const id of ['key_01234567890123456789abcdef', 'key_conf_0123456789abcdef', 'x']) {
    for (const method of ['GET', 'DELETE']) assert.equal((await admin(`/${id}`, method)).status, 404);
  }
  for (const key of [keys.server, keys.client]) assert.equal((await server.request('/admin/v1/keys', { key })).status, 403);
});

test('streams of a revoked key end with an error, sockets with 1008', async (t) => {
  const { id: key_id, key } = (await admin('', 'POST', { kind: 'client', app_id: 'demo' })).json;
  const { id } = (await open(key)).json;
  const streams = [];
  const start = await server.stream(`/v1/sessions/${id}/turns`, { key, body: { input: 'go [[mock tokens=2000 interval=20]]' } });
  assert.equal(start.status, 200, start.text);
  streams.push(start);
  const turn = start.headers['x-parley-turn'];
  for (let i = 0; i < 6; i++) streams.push(await server.stream(`/v1/sessions/${id}/turns/${turn}/events`, { key }));
  const other = await server.stream(`/v1/sessions/${id}/turns/${turn}/events`, { key: keys.client });
  const chat = await openChat(t, server, { key });
  chat.send({ action: 'join', request_id: 'join', payload: { session_id: id } });
  await chat.frame({ request_id: 'join' });
  const reading = streams.map((events) => collect(events, ({ event }) => event === 'error'));
  const revoked_at = Date.now();
  assert.equal((await admin(`/${key_id}`, 'DELETE')).status, 200);
  for (const seen of await Promise.all(reading)) {
    assert.equal(seen.at(-1).data.error.code, 'unauthorized');
  }
  assert.equal((await chat.end()).code, 1008);
  assert.ok(Date.now() - revoked_at < 5000);
  // Another key's reader goes on.
  assert.equal((await server.request(`/v1/sessions/${id}/turns/${turn}/cancel`, { key: keys.client, method: 'POST' })).status, 200);
  assert.equal((await collect(other, is_last_event)).at(-1).event, 'turn.cancelled');
});

test("a client key's rate limit is exact across the workers", async () => {
  const answers = await Promise.all(Array.from({ length: 30 }, () => open(limited_key)));
  assert.equal(answers.filter(({ status }) => status === 201).length, 10);
  const refused = answers.filter(({ status }) => status === 429);
  assert.equal(refused.length, 20);
  for (const { headers, json } of refused) {
    assert.equal(json.error.code, 'rate_limited');
    assert.ok(Number(headers['retry-after']) >= 1 && Number(headers['retry-after']) <= 60);
    assert.equal(headers['x-ratelimit-limit'], '10');
    assert.equal(headers['x-ratelimit-remaining'], '0');
    assert.ok(Number(headers['x-ratelimit-reset']) >= 1);
  }
});

test('requests without a valid key are limited by address, those with one are not', async (t) => {
  const own = await startServer(t, { config: { limits: { address_limit: 10, address_window: '60s' } } });
  const ask = (key) => own.request('/v1/sessions', { key, body: {} });
  const wrong = ['pc_nobody_has_this_key_0123456789', 'nonsense', undefined];
  const answers = await Promise.all(Array.from({ length: 30 }, (_, i) => ask(wrong[i % 3])));
  assert.equal(answers.filter(({ status }) => status === 401).length, 10);
  for (const { status, headers, json } of answers.filter((answer) => answer.status !== 401)) {
    assert.equal(status, 429);
    assert.equal(json.error.code, 'rate_limited');
    assert.ok(Number(headers['retry-after']) >= 1);
  }
  assert.equal((await ask(keys.client)).status, 201);
  assert.equal((await own.request('/health')).status, 200);
  assert.equal(sumOf(parseMetrics((await own.request('/metrics')).text), 'parley_rate_limited_total', { kind: 'address' }), 20);
});

test('of several limits the client is told of one', async (t) => {
  const key = 'ps_with_several_limits_0123456789';
  const own = await startServer(t, { config: { keys: [{ kind: 'server', app: 'demo', secret: key, rpm: 3, rpd: 100, rate: { limit: 50, window: '60s' } }] } });
  for (const want of ['2', '1', '0']) {
    const { status, headers } = await own.request('/v1/sessions', { key });
    assert.equal(status, 200);
    assert.equal(headers['x-ratelimit-limit'], '3');
    assert.equal(headers['x-ratelimit-remaining'], want);
  }
  assert.equal((await own.request('/v1/sessions', { key })).status, 429);
});
