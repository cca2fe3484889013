// Keys: minted for clients, made and revoked by the command line while the server runs, limited per key.
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { promisify } from 'node:util';
import { build } from './lib/process.mjs';
import { parseMetrics, sumOf } from './lib/metrics.mjs';
import { keys, startServer } from './lib/server.mjs';
import { waitFor } from './lib/wait.mjs';

const limited_key = 'pc_test_limited_key_0123456789abc';
let server;
before(async () => { server = await startServer(null, { config: { keys: [
  { kind: 'client', app: 'demo', secret: keys.client, rate: { limit: 0, window: '60s' } },
  { kind: 'client', app: 'demo', secret: limited_key, rate: { limit: 10, window: '60s' } },
  { kind: 'server', app: 'demo', secret: keys.server },
] } }); });
after(() => server?.stop());

const parleyd = (...args) => promisify(execFile)(path.join(build, 'parleyd'), ['--config', server.file, ...args], { cwd: server.dir });
const open = (key) => server.request('/v1/sessions', { key, body: {} });

test('a server key mints client keys that end', async () => {
  const minted = await server.request('/v1/client-keys', { key: keys.server, body: { app_id: 'demo', device_id: 'dev-9', expires_in: 2 } });
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
  assert.ok(Date.now() - revoked_at < 1500);
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
