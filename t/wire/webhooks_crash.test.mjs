// A ledger outside while workers, a host and PostgreSQL die in the middle of a thousand webhooks: each comes at least once,
// under its id, in the order of its stream, and none is lost.
import assert from 'node:assert/strict';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { startHosts } from './lib/hosts.mjs';
import { sharedPostgres, startPostgres } from './lib/postgres.mjs';
import { startReceiver } from './lib/receiver.mjs';
import { startRedis } from './lib/redis.mjs';
import { keys, startServer } from './lib/server.mjs';
import { waitFor } from './lib/wait.mjs';

const key = keys.admin, secret = 'a secret of some length';
// What a host says of a database, a Redis or another host that is away.
const away = [/store /, /session sweep failed/, /webhook/, /turns? /, /keys /, /backplane /, /stats /, /host /, /events? /, /tasks? /, /usage /, /budget/];
// A receiver on a busy machine may be slow: no attempt is given up for that, nor the breaker opened. (A lease is twice the time limit.)
const webhooks = (receiver) => ({ allow_private: true, timeout: '3s', max_retries: 20, breaker: { failures: 0 }, poll: '250ms', backoff: '50ms', endpoints: [{ name: 'a', url: receiver.url, secret }] });

/** Adds count webhooks in so many streams: their ids are what must arrive. */
async function send(server, count, streams) {
  const ids = [];
  while (ids.length < count) {
    const { status, text } = await server.request('/admin/v1/webhooks/test', { key, body: { endpoint: 'conf:a', count: Math.min(100, count - ids.length), streams } });
    assert.equal(status, 202, text);
    ids.length += Math.min(100, count - ids.length);
  }
}

/** Every id that the record knows, each page by page. */
async function known(server) {
  const ids = [];
  for (let after = ''; ;) {
    const { status, json, text } = await server.request(`/admin/v1/webhooks/deliveries?limit=1000${after}`, { key, limit_ms: 20000 });
    assert.equal(status, 200, text);
    ids.push(...json.data.map(({ id, state }) => ({ id, state })));
    if (!json.has_more) return ids;
    after = `&after=${ids.at(-1).id}`;
  }
}

function checkLedger(t, receiver, rows, count) {
  const arrived = new Map();
  for (const { id, is_signed } of receiver.got) {
    assert.ok(is_signed);
    arrived.set(id, (arrived.get(id) ?? 0) + 1);
  }
  assert.equal(rows.length, count);
  for (const { id, state } of rows) {
    assert.equal(state, 'delivered', id);
    assert.ok(arrived.has(id), `${id} is lost`);
  }
  assert.equal(arrived.size, count, 'and nothing else');
  const last = new Map();
  for (const { json: { data } } of receiver.got) {
    const stream = `${data.run}:${data.stream}`, before = last.get(stream) ?? -1;
    assert.ok(data.number >= before, `stream ${stream}: ${data.number} after ${before}`);
    last.set(stream, data.number);
  }
  t.diagnostic(`${receiver.got.length} requests for ${count} webhooks, ${[...arrived.values()].filter((n) => n > 1).length} came more than once`);
}

/** By the record: the endpoint's statistics count also what was delivered twice. */
const isAllDelivered = (server) => waitFor(async () => {
  const { json } = await server.request('/admin/v1/webhooks/deliveries?state=pending&limit=1', { key, limit_ms: 20000 }).catch(() => ({}));
  return json?.data?.length === 0;
}, 'the end of what is pending', 60000);

test('workers are killed in the middle, over SQLite', { timeout: 200000 }, async (t) => {
  const receiver = await startReceiver(t, { secret });
  receiver.respond = (request, response) => setTimeout(() => response.end('ok'), 10);
  const server = await startServer(t, { mock: false, config: { store: { url: undefined }, webhooks: webhooks(receiver) } });
  for (const regex of away) server.expectLog(regex);
  await send(server, 500, 20);
  for (const [i, slot] of [0, 1, 2, 3].entries()) {
    await waitFor(() => receiver.got.length > 40 + i * 60, 'some of them', 30000);
    const pid = server.killWorker(slot);
    await server.replaced(slot, pid);
  }
  await isAllDelivered(server);
  checkLedger(t, receiver, await known(server), 500);
});

test('a worker, PostgreSQL and a host are killed in the middle of a thousand', { timeout: 250000 }, async (t) => {
  const [redis, postgres, receiver] = await Promise.all([startRedis(t), startPostgres(t, { fsync: 'on' }), startReceiver(t, { secret })]);
  receiver.respond = (request, response) => setTimeout(() => response.end('ok'), 10);
  const hosts = await startHosts(t, { redis, store_url: postgres.url, mock: false, config: { workers: 2, backplane: { lease: '3s' }, webhooks: webhooks(receiver) } });
  for (const host of hosts) for (const regex of away) host.expectLog(regex);
  await Promise.all(hosts.map((host) => send(host, 500, 25)));
  await waitFor(() => receiver.got.length > 100, 'some of them', 30000);
  const pid = hosts[0].killWorker(0);
  await hosts[0].replaced(0, pid);
  await waitFor(() => receiver.got.length > 250, 'more of them', 30000);
  await postgres.kill();
  await postgres.again();
  await waitFor(() => receiver.got.length > 450, 'more after the database', 30000);
  await hosts[1].stop({ signal: 'SIGKILL' });
  await isAllDelivered(hosts[0]);
  checkLedger(t, receiver, await known(hosts[0]), 1000);
});

/** An endpoint that answers nobody until it is told to; a lease lasts for longer than the tests. */
async function startSilent(t) {
  const receiver = await startReceiver(t, { secret });
  let is_silent = true;
  receiver.respond = (request, response) => { if (!is_silent) response.end('ok'); };
  receiver.speak = () => { is_silent = false; };
  receiver.conf = { ...webhooks(receiver), timeout: '90s' };
  return receiver;
}

for (const kind of ['SQLite', 'PostgreSQL']) {
  test(`what killed workers had claimed is sent by others at once, in its order, over ${kind}`, { timeout: 200000 }, async (t) => {
    const receiver = await startSilent(t);
    const url = kind === 'SQLite' ? undefined : await (await sharedPostgres()).newDatabase();
    const server = await startServer(t, { mock: false, config: { store: { url }, webhooks: receiver.conf } });
    for (const regex of away) server.expectLog(regex);
    await send(server, 40, 8);
    await waitFor(() => new Set(receiver.ids()).size === 8, 'the first of each stream', 30000);
    receiver.speak();
    for (const slot of [0, 1, 2, 3]) await server.replaced(slot, server.killWorker(slot));
    await isAllDelivered(server);
    checkLedger(t, receiver, await known(server), 40);
  });
}

test('a host that was killed sends at once what its former life had claimed, over SQLite', { timeout: 200000 }, async (t) => {
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'parley-record-'));
  process.on('exit', () => fs.rmSync(dir, { recursive: true, force: true }));
  const receiver = await startSilent(t);
  const config = { store: { url: `sqlite:${dir}/parley.db` }, webhooks: receiver.conf };
  const former = await startServer(t, { mock: false, config });
  await send(former, 20, 4);
  await waitFor(() => new Set(receiver.ids()).size === 4, 'the first of each stream', 30000);
  await former.stop({ signal: 'SIGKILL' });
  receiver.speak();
  const server = await startServer(t, { mock: false, config });
  await isAllDelivered(server);
  checkLedger(t, receiver, await known(server), 20);
});
