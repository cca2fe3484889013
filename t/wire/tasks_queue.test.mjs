// How many tasks of one app may wait: orders beyond tasks.max_queued are refused, whatever their route, until some are gone.
// Over SQLite, and over PostgreSQL in tasks_postgres.test.mjs.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseMetrics, sumOf } from './lib/metrics.mjs';
import { keys } from './lib/server.mjs';
import { echo, key, said, start } from './lib/tasks.mjs';
import { waitFor } from './lib/wait.mjs';

const other = 'ps_other_server_key_0123456789abcdef';
const apps = [{ id: 'demo', name: 'Demo', org: 'demo' }, { id: 'other', name: 'Other', org: 'demo' }];
const all_keys = [...Object.entries(keys).map(([kind, secret]) => ({ kind, secret, ...(kind === 'admin' ? {} : { app: 'demo' }) })), { kind: 'server', app: 'other', secret: other }];

/** One task of a partition runs until let_go() is called, and the rest of the partition waits for it. */
async function startHeld(t, max_queued) {
  let held = null;
  const tasks = await start(t, (request, response) => {
    if (said(request) === 'hold') held = () => echo(request, response);
    else echo(request, response);
  }, { tasks: { max_queued }, apps, keys: all_keys });
  tasks.order = (more = {}) => tasks.chat('x', { partition_key: 'p' }, more);
  const { json } = await tasks.chat('hold', { partition_key: 'p' });
  await waitFor(() => held, 'the first to run', 30000);
  return { ...tasks, first: json.id, let_go: () => held() };
}

test('orders beyond tasks.max_queued are refused on every route, of this app alone, until one has gone', async (t) => {
  const { server, order, chat, cancel, end, first, let_go } = await startHeld(t, 5);
  const once = { headers: { 'idempotency-key': 'once' } };
  const ids = [];
  for (let i = 0; i < 5; i++) {
    const { status, json, text } = await order(i === 2 ? once : {});
    assert.equal(status, 202, text);
    ids.push(json.id);
  }
  const image = { prompt: 'x', model: 'default' };
  const orders = [order, () => chat('without a partition'),
    () => server.request('/v1/images/generations/async', { key, body: image }), () => server.request('/v1/videos/generations/async', { key, body: image })];
  for (const one of orders) {
    const { status, json, headers, text } = await one();
    assert.equal(status, 429, text);
    assert.deepEqual([json.error.type, json.error.code], ['rate_limited', 'queue_full']);
    assert.ok(Number(headers['retry-after']) >= 1);
  }
  const again = await order(once);
  assert.deepEqual([again.status, again.json.id], [202, ids[2]], 'what was ordered before is answered');
  assert.equal((await order({ headers: { 'idempotency-key': 'another' } })).status, 429);
  const { status } = await server.request('/v1/tasks', { key: other, body: { type: 'chat.completion', input: { messages: [{ role: 'user', content: 'x' }] } } });
  assert.equal(status, 202, 'another app is not concerned');
  const metrics = parseMetrics((await server.request('/metrics')).text);
  assert.ok(sumOf(metrics, 'parley_rate_limited_total', { kind: 'waiting_tasks' }) >= orders.length);

  assert.equal((await cancel(ids[4])).status, 200);
  const { json: next } = await waitFor(async () => { const answer = await order(); return answer.status === 202 && answer; }, 'a place', 30000);
  assert.equal((await order()).status, 429, 'and no more than that');
  let_go();
  for (const id of [first, ...ids.slice(0, 4), next.id]) assert.equal((await end(id)).status, 'succeeded');
  await waitFor(async () => (await order()).status === 202, 'places', 30000);
});

test('a crowd at once, over all workers: little more than tasks.max_queued is taken, and no order is lost', async (t) => {
  const { order, end, let_go } = await startHeld(t, 20);
  const answers = await Promise.all(Array.from({ length: 100 }, () => order()));
  const taken = answers.filter(({ status }) => status === 202);
  assert.ok(answers.every(({ status }) => status === 202 || status === 429), JSON.stringify(answers.map(({ status }) => status)));
  // Each of the three other workers may have a quarter of the places in hand when one counts.
  assert.ok(taken.length >= 20 && taken.length <= 35, `${taken.length} were taken`);
  // A worker that had few of them may have some of its share left, for a second.
  for (let answer; (answer = await order()).status !== 429;) taken.push(answer);
  assert.ok(taken.length <= 35, `${taken.length} were taken`);
  let_go();
  for (const { json } of taken) assert.equal((await end(json.id)).status, 'succeeded');
});

test('0 is no limit', async (t) => {
  const { order, let_go, end } = await startHeld(t, 0);
  const answers = await Promise.all(Array.from({ length: 60 }, () => order()));
  assert.ok(answers.every(({ status }) => status === 202));
  let_go();
  assert.equal((await end(answers.at(-1).json.id)).status, 'succeeded');
});
