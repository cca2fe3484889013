// What is said and done about all tasks: how many wait and for how long, those of each app in turn, and what is over goes, however
// much there is of it. Over SQLite, and over PostgreSQL in tasks_postgres.test.mjs.
import assert from 'node:assert/strict';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { parseMetrics, sumOf } from './lib/metrics.mjs';
import { sharedPostgres } from './lib/postgres.mjs';
import { ask, change } from './lib/record.mjs';
import { keys, startServer } from './lib/server.mjs';
import { configOf, echo, key, said, start, tasksOf } from './lib/tasks.mjs';
import { waitFor } from './lib/wait.mjs';

const metrics = async (server) => parseMetrics((await server.request('/metrics')).text);
const check = async (server) => (await server.request('/health')).json.checks.tasks;

/** Those that say "hold" are answered when let_go() is called. */
async function startHeld(t, config) {
  const held = [];
  let is_open = false;
  const tasks = await start(t, (request, response) => {
    if (said(request) !== 'hold' || is_open) return echo(request, response);
    held.push(() => echo(request, response));
  }, config);
  const let_go = () => {
    is_open = true;
    for (const one of held) one();
  };
  return { ...tasks, held, let_go };
}

test('how many wait, and for how long: in metrics, and above tasks.alarm in /health', async (t) => {
  const { server, chat, end, held, let_go } = await startHeld(t, { tasks: { concurrency: 4, prefetch: 0, alarm: 5 } });
  const ids = [];
  for (let i = 0; i < 4; i++) ids.push((await chat('hold')).json.id);
  await waitFor(() => held.length === 4, 'four that run', 30000);
  assert.equal((await check(server)).status, 'ok');
  for (let i = 0; i < 6; i++) ids.push((await chat('x')).json.id);
  const { queued, oldest_s, reason } = await waitFor(async () => {
    const is = await check(server);
    return is.status === 'degraded' && is.oldest_s >= 1 && is;
  }, 'a warning', 30000);
  assert.deepEqual([queued, reason], [6, 'queue']);
  const then = await metrics(server);
  assert.equal(sumOf(then, 'parley_tasks_queued'), 6);
  assert.equal(sumOf(then, 'parley_tasks_running'), 4);
  assert.ok(sumOf(then, 'parley_tasks_oldest_seconds') >= oldest_s);
  let_go();
  for (const id of ids) assert.equal((await end(id)).status, 'succeeded');
  await waitFor(async () => { const is = await check(server); return is.status === 'ok' && is.queued === 0; }, 'an end of the warning', 30000);
  await waitFor(async () => sumOf(await metrics(server), 'parley_tasks_total', { type: 'chat.completion', outcome: 'succeeded' }) === 10, 'all to be counted', 30000);
  const { text } = await server.request('/metrics');
  const figure = (name) => Number(new RegExp(`^parley_task_${name}\\{type="chat.completion"\\} (\\S+)$`, 'm').exec(text)[1]);
  assert.equal(figure('wait_seconds_count'), 10);
  assert.ok(figure('wait_seconds_sum') >= 1, 'six have waited for a second and more');
  assert.ok(figure('run_seconds_count') >= 4, 'one that takes no millisecond may have no time');
  assert.ok(figure('run_seconds_sum') >= 1);
});

test('an app with a long queue keeps no other from running', async (t) => {
  const other = 'ps_other_server_key_0123456789abcdef';
  const apps = [{ id: 'demo', name: 'Demo', org: 'demo' }, { id: 'other', name: 'Other', org: 'demo' }];
  const all_keys = [...Object.entries(keys).map(([kind, secret]) => ({ kind, secret, ...(kind === 'admin' ? {} : { app: 'demo' }) })), { kind: 'server', app: 'other', secret: other }];
  const { upstream, chat, end, held, let_go } = await startHeld(t, { tasks: { concurrency: 4, prefetch: 4 }, apps, keys: all_keys });
  for (let i = 0; i < 4; i++) await chat('hold');
  await waitFor(() => held.length === 4, 'all places taken', 30000);
  const ids = [];
  for (let i = 0; i < 120; i++) ids.push((await chat(`long ${i}`)).json.id);
  for (let i = 0; i < 3; i++) assert.equal((await chat(`short ${i}`, {}, { key: other })).status, 202);
  let_go();
  for (const id of ids) await end(id);
  const order = upstream.requests.map(said).filter((text) => text !== 'hold');
  for (let i = 0; i < 3; i++) {
    const at = order.indexOf(`short ${i}`);
    assert.ok(at >= 0 && at < 100, `short ${i} came as number ${at} of ${order.length}`);
  }
});

test('a task lives no longer than tasks.timeout, whatever it asks for', async (t) => {
  const { chat, end } = await startHeld(t, { tasks: { timeout: '1s' } });
  for (const more of [{}, { timeout_s: 600 }]) {
    const task = await end((await chat('hold', more)).json.id);
    assert.deepEqual([task.status, task.error.code], ['timed_out', 'timeout']);
  }
});

test('what is over is archived, and goes in the end, however much there is of it', async (t) => {
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'parley-record-'));
  process.on('exit', () => fs.rmSync(dir, { recursive: true, force: true }));
  const store = { url: process.env.PARLEY_TEST_STORE === 'postgres' ? await (await sharedPostgres()).newDatabase() : `sqlite:${dir}/parley.db` };
  // Over PostgreSQL another host does it when the lease of the one before is over.
  const config = { store, backplane: { lease: '4s' }, tasks: { archive_after: '1h', retention: '2h' } };
  const former = await start(t, echo, config);
  const recent = await former.end((await former.chat('x')).json.id);
  await former.server.stop();
  const { server: old } = former;
  const is_postgres = old.config.store.url.startsWith('postgres');
  const ago = (hours) => (is_postgres ? `now() - interval '${hours} hours'` : `${Date.now() - hours * 3600000}`);
  const many = 'WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 4000)';
  const rows = (name, ended, archived) => `${many} INSERT INTO tasks (id, app_id, type, stripe, position, state, input, progress, attempts, losses, runs, fence, timeout_ms, deadline_at, created_at,
    updated_at, ended_at, archived_at) SELECT '${name}' || i, 'demo', 'chat.completion', 0, 1, 'succeeded', '{}', 100, 0, 0, 0, 1, 1000, ${ended}, ${ended}, ${ended}, ${ended}, ${archived} FROM n`;
  change(old, `${rows('task_ended', ago(1.5), 'NULL')}; ${rows('task_archived', ago(9), ago(3))}`);
  // Another life of the host: it looks when it begins, and then twice a minute.
  const { server, get } = tasksOf(await startServer(t, { mock: false, config: configOf(former.upstream, config) }));
  const count = (what) => Number(ask(server, `SELECT count(*) AS n FROM tasks WHERE ${what}`)[0].n);
  await waitFor(() => count("id LIKE 'task_archived%'") === 0, 'the end of what was archived long ago', 30000);
  await waitFor(() => count('archived_at IS NULL') === 1, 'the rest in the archive', 30000);
  assert.equal(count("id LIKE 'task_ended%' AND input IS NULL"), 4000);
  const { json: { data } } = await server.request('/v1/tasks?limit=100', { key });
  assert.deepEqual(data.map(({ id }) => id), [recent.id]);
  assert.equal((await get(recent.id)).status, 'succeeded');
});
