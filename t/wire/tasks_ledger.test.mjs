// A ledger outside, of 1,000 tasks over two hosts while a worker, PostgreSQL and a host are killed in the middle: none is lost, each final
// state comes once to each subscriber and at least once under its webhook's id, and the order of each partition key is kept.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { startHosts } from './lib/hosts.mjs';
import { startPostgres } from './lib/postgres.mjs';
import { startReceiver } from './lib/receiver.mjs';
import { startRedis } from './lib/redis.mjs';
import { subscribe } from './lib/subscriber.mjs';
import { configOf, echo, said, tasksOf } from './lib/tasks.mjs';
import { startUpstream } from './lib/upstream.mjs';
import { waitFor } from './lib/wait.mjs';

const total = 1000, partitions = 20, in_partition = 20, posters = 12, watched = 60;
// What a host says of a database, a Redis or another host that is away, and of calls that died with their worker.
const away = [/store /, /session sweep failed/, /webhook/, /turns? /, /keys /, /backplane /, /stats /, /host /, /events? /, /tasks? /, /usage /, /budget/];
const patiently = (fn, what) => waitFor(() => fn().catch(() => null), what, 60000);

/** What was broken off was sent by who died, some time before it was read here. */
function checkOrder(upstream, story) {
  const last = new Map();
  for (const request of upstream.requests) {
    const [partition, n] = said(request).split(' ');
    if (partition === 'free' || request.is_aborted) continue;
    const before = last.get(partition) ?? -1;
    assert.ok(Number(n) === before || Number(n) === before + 1, `${partition}: ${n} after ${before}\n${story(partition)}`);
    last.set(partition, Number(n));
  }
  assert.equal(last.size, partitions);
  for (const [partition, n] of last) assert.equal(n, in_partition - 1, partition);
}

function checkWebhooks(t, receiver, ids) {
  const of = new Map();
  for (const { id, is_signed, json: { type, data } } of receiver.got) {
    assert.ok(is_signed);
    assert.equal(type, 'task.completed');
    of.set(data.id, (of.get(data.id) ?? new Set()).add(id));
  }
  for (const id of ids) assert.equal(of.get(id)?.size, 1, `webhooks of ${id}: ${[...of.get(id) ?? []]}`);
  assert.equal(of.size, ids.length);
  t.diagnostic(`${receiver.got.length} requests for ${ids.length} webhooks`);
}

test('1,000 tasks, and a worker, PostgreSQL and a host that are killed in the middle', { timeout: 400000 }, async (t) => {
  const secret = 'a secret of some length';
  const [redis, postgres, receiver] = await Promise.all([startRedis(t), startPostgres(t, { fsync: 'on' }), startReceiver(t, { secret })]);
  const upstream = await startUpstream(t, (request, response) => { request.at = Date.now(); setTimeout(() => echo(request, response), 15); });
  const config = configOf(upstream, {
    workers: 2, backplane: { lease: '3s' }, tasks: { lease: '3s', max_losses: 100 }, events: { max_topics: 100 },
    webhooks: { allow_private: true, timeout: '30s', poll: '250ms', backoff: '50ms' },
  });
  const hosts = (await startHosts(t, { redis, store_url: postgres.url, mock: false, config })).map(tasksOf);
  for (const { server } of hosts) for (const regex of away) server.expectLog(regex);
  let living = hosts;
  const fleet = () => living.map(({ server }) => server);

  // Who listens: to all that there is, at either host; to one task each; and, when all is over, who comes late.
  const all = [0, 1].map((at) => subscribe(fleet, 'tasks:chat.completion', { at }));
  for (const one of all) await one.ready();
  const of_one = new Map();

  const posted = new Map();
  let n = 0;
  const post = async (at, text, more) => {
    const headers = { 'idempotency-key': text };
    const task = await patiently(async () => {
      const { status, json } = await living[at++ % living.length].chat(text, { webhook: { url: receiver.url, secret }, ...more }, { headers });
      return status === 202 && json;
    }, `202 for ${text}`);
    posted.set(text, task.id);
    if (n++ % Math.floor(total / watched) === 0) of_one.set(task.id, subscribe(fleet, `task:${task.id}`, { at }));
  };
  const orders = [];
  for (let p = 0; p < partitions; p++) orders.push(Array.from({ length: in_partition }, (_, i) => [`p${p} ${i}`, { partition_key: `p${p}` }]));
  for (let i = partitions * in_partition; i < total; i++) orders.push([[`free ${i}`, {}]]);
  const plain = orders.filter((order) => order.length === 1), keyed = orders.filter((order) => order.length > 1);
  // Of one partition key one after the other; in between those without.
  const lanes = [...keyed, ...Array.from({ length: posters }, () => [])];
  plain.forEach((order, i) => lanes[i % lanes.length].splice(2 * Math.floor(i / lanes.length), 0, ...order));
  const posting = Promise.all(lanes.map(async (lane, at) => { for (const [text, more] of lane) await post(at, text, more); }));

  const heard = () => Math.max(...all.map((one) => one.heard.size));
  const worker = async (host, slot) => {
    const pid = host.server.killWorker(slot);
    await host.server.replaced(slot, pid);
  };
  await waitFor(() => heard() > 150, 'the first', 60000);
  await worker(hosts[0], 0);
  await waitFor(() => heard() > 300, 'more after a worker', 60000);
  await worker(hosts[1], 1);
  await waitFor(() => heard() > 400, 'more after another worker', 60000);
  await postgres.kill('SIGKILL');
  await patiently(async () => { await postgres.again(); return true; }, 'PostgreSQL again');
  await waitFor(() => heard() > 600, 'more after PostgreSQL', 60000);
  living = [hosts[0]];
  await hosts[1].server.stop({ signal: 'SIGKILL' });
  await posting;

  // The record, asked by who waits.
  const ids = [...posted.values()];
  assert.equal(new Set(ids).size, total);
  for (const id of ids) {
    const task = await patiently(() => hosts[0].end(id), 'the end of a task');
    assert.equal(task.status, 'succeeded', JSON.stringify(task));
  }
  await waitFor(() => new Set(receiver.got.map(({ json }) => json.data.id)).size === total, 'a webhook of each', 60000)
    .catch((e) => t.diagnostic(e.message));
  await waitFor(() => all.every((one) => one.heard.size === total) && [...of_one].every(([id, one]) => one.heard.has(id)), 'each final state at each subscriber', 15000)
    .catch((e) => t.diagnostic(e.message));
  const late = [...ids.filter((_, i) => i % 40 === 0)].map((id) => [id, subscribe(fleet, `task:${id}`)]);
  for (const [, one] of late) await one.ready();
  await waitFor(() => late.every(([id, one]) => one.heard.has(id)), 'the final state for who comes late', 10000).catch((e) => t.diagnostic(e.message));
  const together = ids.slice(0, 50), many = subscribe(fleet, together.map((id) => `task:${id}`).join(','));
  await many.ready();
  await waitFor(() => many.heard.size === together.length, 'all final states for who comes late', 10000).catch((e) => t.diagnostic(e.message));

  const story = (partition) => upstream.requests.filter((request) => said(request).startsWith(`${partition} `))
    .map((request) => `${new Date(request.at).toISOString()} ${said(request)} ${request.headers['idempotency-key']} ${request.is_aborted}`).join('\n');
  const about = (one, id) => [...one.story, ...hosts.flatMap(({ server }) => server.lines)].filter((line) => line.includes(id)).join('\n');
  checkOrder(upstream, story);
  checkWebhooks(t, receiver, ids);
  for (const [i, one] of all.entries()) {
    t.diagnostic(`subscriber ${i}: ${one.connections} connections, ${one.gaps} gaps, ${one.heard.size} heard`);
    for (const id of ids) assert.deepEqual(one.heard.get(id), ['task.completed'], `subscriber ${i}, ${id}\n${about(one, id)}`);
  }
  for (const [id, one] of of_one) assert.deepEqual([...one.heard], [[id, ['task.completed']]], `subscriber of ${id}`);
  for (const [id, one] of late) assert.deepEqual([...one.heard], [[id, ['task.completed']]], `late subscriber of ${id}`);
  assert.deepEqual([...many.heard].sort(), together.map((id) => [id, ['task.completed']]).sort());
  const every = [...all, ...of_one.values(), ...late.map(([, one]) => one), many];
  await Promise.all(every.map((one) => one.close()));
});
