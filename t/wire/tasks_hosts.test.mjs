// Tasks of several hosts: what one stored the other runs and tells, what is cancelled at one the other stops, and when a host is
// killed its tasks go on at the other.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { startHosts } from './lib/hosts.mjs';
import { startPostgres } from './lib/postgres.mjs';
import { ask } from './lib/record.mjs';
import { startRedis } from './lib/redis.mjs';
import { startServer } from './lib/server.mjs';
import { configOf, echo, said, tasksOf } from './lib/tasks.mjs';
import { startUpstream } from './lib/upstream.mjs';
import { waitFor } from './lib/wait.mjs';

test('a host is killed with tasks that run, wait, and are looked at: the other ends them all', async (t) => {
  const postgres = await startPostgres(t);
  let is_slow = true;
  const jobs = new Map(), looked_at = new Set(), begun_again = [];
  const upstream = await startUpstream(t, (request, response) => {
    if (request.url.endsWith('/chat/completions')) {
      if (said(request) !== 'slow' || !is_slow) echo(request, response);
      return;
    }
    const id = request.url.split('/')[3] ?? `job_${jobs.size}`;
    if (request.method === 'POST') {
      const once = request.headers['idempotency-key'];
      // What is looked at is in the record as begun. A host may die before that: then it is begun again, under the same key.
      begun_again.push(...[...jobs].filter(([old, key]) => key === once && looked_at.has(old)));
      jobs.set(id, once);
    } else looked_at.add(id);
    response.setHeader('content-type', 'application/json');
    response.end(JSON.stringify(is_slow ? { id, status: 'in_progress', progress: 10 } : { id, status: 'completed', url: 'http://video' }));
  });
  const config = configOf(upstream, { store: { url: postgres.url, pool_size: 2 }, tasks: { lease: '2s', concurrency: 8, prefetch: 2 } });
  const hosts = [];
  for (let i = 0; i < 2; i++) hosts.push(tasksOf(await startServer(t, { config: { ...config, workers: 2 } })));
  for (const { server } of hosts) server.expectLog(/store|turns|host/);
  const [a, b] = hosts;
  // Either runs what the other has stored, and either tells.
  const one = (await a.chat('x')).json.id;
  assert.equal((await b.end(one)).status, 'succeeded');
  const ids = [];
  for (let i = 0; i < 24; i++) ids.push((await a.chat('slow')).json.id);
  for (let i = 0; i < 6; i++) ids.push((await a.post({ type: 'video.generation', input: { prompt: 'x' } })).json.id);
  await waitFor(() => upstream.requests.filter((request) => request.text.includes('slow')).length >= 16, 'calls of both hosts', 20000);
  await a.server.stop({ signal: 'SIGKILL' });
  is_slow = false;
  for (const request of upstream.requests) if (request.text.includes('slow') && !request.socket.destroyed) request.socket.destroy();
  for (const id of ids) {
    const task = await waitFor(() => b.end(id).catch(() => null), 'the end of a task', 60000);
    assert.equal(task.status, 'succeeded', JSON.stringify(task));
  }
  // A job is begun once for each run of its task, wherever it is looked at.
  assert.deepEqual(begun_again, []);
  assert.ok(jobs.size >= 6, `${jobs.size}`);
});

test('a task that is cancelled at one host and runs at the other: its provider is stopped at once, not when a lease is renewed', async (t) => {
  const [redis, postgres] = await Promise.all([startRedis(t), startPostgres(t)]);
  const upstream = await startUpstream(t, () => {});
  // The renewal of a lease, every three minutes, says nothing in time.
  const config = configOf(upstream, { workers: 2, tasks: { lease: '10m', concurrency: 4, prefetch: 0 } });
  const hosts = (await startHosts(t, { redis, store_url: postgres.url, mock: false, config })).map(tasksOf);
  for (const { server } of hosts) server.expectLog(/(store|backplane|events?|stats|turns?|host) /); // when the others end first
  const ids = [];
  for (let i = 0; i < 8; i++) ids.push((await hosts[0].chat('hold')).json.id);
  await waitFor(() => upstream.requests.length === 8, 'all of them to run, four at each host', 30000);
  const owners = new Set(ask(hosts[0].server, 'SELECT owner FROM tasks').map(({ owner }) => owner.split('.')[0]));
  assert.equal(owners.size, 2);
  for (const id of ids) assert.equal((await hosts[0].cancel(id)).json.status, 'cancelled');
  await waitFor(() => upstream.requests.every((request) => request.is_aborted), 'the end of all calls', 30000);
});
