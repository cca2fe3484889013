// What a worker claims of many endpoints at once: what it can hold, from each in its turn; and what it says of an open breaker.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseMetrics, sumOf } from './lib/metrics.mjs';
import { how, startReceiver } from './lib/receiver.mjs';
import { change } from './lib/record.mjs';
import { keys, startServer } from './lib/server.mjs';
import { waitFor } from './lib/wait.mjs';

const key = keys.admin;
const held = async (server) => sumOf(parseMetrics((await server.request('/metrics')).text), 'parley_webhooks_held');
const webhooks = { allow_private: true, backoff: '50ms', timeout: '60s', poll: '200ms' };
// The rows of a crowd are made by hand; what claims them is the same over PostgreSQL.
const is_postgres = process.env.PARLEY_TEST_STORE === 'postgres';

/** Endpoints "whe_00000", .. with so many webhooks each, in one transaction, for which the server's own writes may have to wait. */
function addCrowd(server, url, endpoints, each, bytes) {
  server.expectLog(/store write waits/);
  const now = Date.now(), many = (n) => `WITH RECURSIVE n (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < ${n - 1})`;
  change(server, `BEGIN IMMEDIATE;
    ${many(endpoints)} INSERT INTO webhook_endpoints (id, app_id, url, batch, failures, delivered, failed, dead, created_at, used_at)
    SELECT printf('whe_%05d', i), 'demo', '${url}', 1, 0, 0, 0, 0, ${now}, ${now} FROM n;
    ${many(endpoints * each)} INSERT INTO webhooks (id, endpoint_id, app_id, order_key, position, event, body, state, attempts, claim, due_at, created_at)
    SELECT printf('wh_%08d', i), printf('whe_%05d', i % ${endpoints}), 'demo', printf('o%d', i), 1, 'webhook.test', '{"text":"' || replace(hex(zeroblob(${bytes / 2})), '0', 'x') || '"}',
    'pending', 0, 0, ${now}, ${now} FROM n;
    COMMIT`);
}

test('bodies that nobody has seen, of many endpoints: a worker claims what it can hold', { skip: is_postgres }, async (t) => {
  const receiver = await startReceiver(t), answers = [];
  let is_silent = true;
  receiver.respond = (request, response) => { if (is_silent) answers.push(response); else response.end(); };
  const server = await startServer(t, { mock: false, config: { workers: 1, webhooks } });
  addCrowd(server, receiver.url, 40, 2, 1 << 20);
  await waitFor(() => receiver.got.length >= 10, 'the first attempts', 30000);
  // 32 MiB, and no more than one claim beyond.
  const most = await held(server);
  assert.ok(most <= 40, `${most} of 80 are held, of 1 MiB each`);
  is_silent = false;
  for (const response of answers) response.end();
  await waitFor(() => new Set(receiver.ids()).size === 80, 'all of them', 60000);
  await waitFor(async () => await held(server) === 0, 'an end', 30000);
});

test('many endpoints with much to send: one more has its turn', { skip: is_postgres }, async (t) => {
  const receiver = await startReceiver(t), late = await startReceiver(t);
  const server = await startServer(t, { mock: false, config: { workers: 1, webhooks } });
  addCrowd(server, receiver.url, 60, 300, 100);
  await waitFor(() => receiver.got.length > 1500, 'some of them', 60000);
  const before = receiver.got.length;
  const { status } = await server.request('/admin/v1/webhooks/test', { key, body: { url: late.url, app_id: 'demo' } });
  assert.equal(status, 202);
  await waitFor(() => late.got.length === 1, 'the one more', 60000);
  const between = receiver.got.length - before;
  t.diagnostic(`${between} of others were sent before it`);
  assert.ok(between < 9000, `${between} of others were sent before it`);
});

test('that a breaker has opened is said, also by the worker that saw it first', async (t) => {
  const receiver = await startReceiver(t);
  receiver.respond = how.status(500);
  const server = await startServer(t, { mock: false, config: { workers: 1, webhooks: { ...webhooks, breaker: { failures: 2, recovery: '1h' }, endpoints: [{ name: 'a', url: receiver.url }] } } });
  const { status } = await server.request('/admin/v1/webhooks/test', { key, body: { endpoint: 'conf:a' } });
  assert.equal(status, 202);
  await server.line(/webhook breaker open endpoint=conf:a failures=2 status=500 /, 30000);
});
