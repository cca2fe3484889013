// Who is told by webhooks, and what: the configuration's endpoints hear of tasks, and of turns whose worker died, also over
// PostgreSQL.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as signalR from '@microsoft/signalr';
import { startDns } from './lib/dns.mjs';
import { sharedPostgres } from './lib/postgres.mjs';
import { startReceiver } from './lib/receiver.mjs';
import { keys, newSession, startServer } from './lib/server.mjs';
import { waitFor } from './lib/wait.mjs';

const key = keys.server;
const webhooks = (endpoints) => ({ allow_private: true, backoff: '50ms', timeout: '10s', endpoints: Object.entries(endpoints).map(([name, { url, ...more }]) => ({ name, url, ...more })) });

async function newTask(server, text) {
  const { status, json, text: body } = await server.request('/v1/tasks', { key, body: { type: 'chat.completion', input: { model: 'default', messages: [{ role: 'user', content: text }] } } });
  assert.equal(status, 202, body);
  return json.id;
}

for (const record of ['SQLite', 'PostgreSQL']) {
  const store = async () => (record === 'SQLite' ? {} : { store: { url: await (await sharedPostgres()).newDatabase(), pool_size: 2 } });

  test(`tasks, over ${record}: those who want to hear of them do, in order`, { timeout: 90000 }, async (t) => {
    const all = await startReceiver(t), ends = await startReceiver(t), progress = await startReceiver(t);
    const server = await startServer(t, { config: { ...await store(), webhooks: webhooks({
      all: { url: all.url }, ends: { url: ends.url, events: ['task.completed', 'task.cancelled'] }, progress: { url: progress.url, events: ['task.progress'], apps: ['demo'] },
      others: { url: all.url, apps: ['another'] },
    }) } });
    const ids = [await newTask(server, 'one'), await newTask(server, 'two')];
    await waitFor(() => all.got.length >= 4 && ends.got.length >= 2, 'both, begun and ended', 30000);
    for (const id of ids) {
      const told = all.got.filter(({ json }) => json.data.id === id);
      assert.deepEqual(told.map(({ json }) => json.type), ['task.started', 'task.completed']);
      assert.equal(told[1].json.data.status, 'succeeded');
      assert.equal(told[1].json.data.app_id, 'demo');
      assert.ok(told[1].json.data.result.choices[0].message.content);
      assert.deepEqual(ends.got.filter(({ json }) => json.data.id === id).map(({ json }) => json.type), ['task.completed']);
    }
    const slow = await newTask(server, 'slow [[mock tokens=2000 interval=50]]');
    await waitFor(() => all.got.some(({ json }) => json.data.id === slow), 'its beginning', 30000);
    await server.request(`/v1/tasks/${slow}/cancel`, { key, method: 'POST' });
    await waitFor(() => ends.got.some(({ json }) => json.type === 'task.cancelled' && json.data.id === slow), 'its end', 30000);
    assert.equal(progress.got.filter(({ json }) => json.type !== 'task.progress').length, 0);
    assert.equal(all.got.filter(({ json }) => json.type === 'task.progress').length, 0, '"*" is not progress');
  });

  test(`turns lost with their worker, over ${record}: turn.failed, once for each endpoint`, { timeout: 90000 }, async (t) => {
    const one = await startReceiver(t), two = await startReceiver(t), none = await startReceiver(t);
    const server = await startServer(t, { config: { ...await store(), workers: 2, webhooks: webhooks({
      one: { url: one.url, events: ['turn.*'] }, two: { url: two.url }, none: { url: none.url, events: ['turn.completed'] }, others: { url: none.url, apps: ['another'] },
    }) } });
    server.expectLog(/worker died|backplane|store|turns lost/);
    const sessions = [];
    for (let i = 0; i < 6; i++) {
      const { id } = await newSession(server);
      const stream = await server.stream(`/v1/sessions/${id}/turns`, { key: keys.client, body: { input: 'go [[mock tokens=2000 interval=50]]', on_disconnect: 'continue' } });
      for await (const { event } of stream) if (event === 'text.delta') break;
      sessions.push(id);
    }
    for (const slot of [0, 1]) server.killWorker(slot);
    for (const receiver of [one, two]) {
      await waitFor(() => receiver.got.length >= sessions.length, 'turn.failed of each', 30000);
      assert.deepEqual(receiver.got.map(({ json }) => json.data.session_id).sort(), [...sessions].sort());
      for (const { json, id } of receiver.got) {
        assert.equal(json.type, 'turn.failed');
        assert.equal(json.data.app_id, 'demo');
        assert.equal(json.data.error.code, 'worker_lost');
        assert.match(json.data.turn_id, /^turn_[0-9a-z]{26}$/);
        assert.match(id, /^wh_[0-9a-z]{26}$/);
      }
    }
    assert.equal(none.got.length, 0);
  });
}

test('statistics of deliveries, for the app whose they are', async (t) => {
  const receiver = await startReceiver(t);
  const server = await startServer(t, { mock: false, config: { webhooks: webhooks({}) } });
  for (const app_id of ['demo', 'demo', 'another']) {
    const { status } = await server.request('/admin/v1/webhooks/test', { key: keys.admin, body: { url: receiver.url, app_id } });
    assert.equal(status, 202);
  }
  const hub = new signalR.HubConnectionBuilder().withUrl(`${server.url}/hubs/webhooks`, { accessTokenFactory: () => key }).configureLogging(signalR.LogLevel.None).build();
  const told = [];
  hub.on('DeliveryStatisticsUpdated', (one) => told.push(one));
  await hub.start();
  await waitFor(async () => {
    await hub.invoke('RequestStatistics');
    return told.at(-1).delivered === 2;
  }, 'both', 30000);
  assert.equal(told.at(-1).endpoint_count, 1);
  assert.deepEqual(told.at(-1).endpoints, [{ url: receiver.url, delivered: 2, failed: 0, dead: 0, breaker: 'closed' }]);
  await hub.stop();
});

test('a name that means the outside first and the inside then: refused where it is connected', { skip: process.getuid() !== 0 }, async (t) => {
  const receiver = await startReceiver(t), dns = await startDns(t);
  dns.say('192.0.2.1'); // nobody is there (RFC 5737)
  const server = await startServer(t, { mock: false, wrap: dns.wrap, config: { webhooks: { backoff: '50ms', timeout: '500ms', max_retries: 1, breaker: { failures: 0 } } } });
  const send = async () => {
    const { json } = await server.request('/admin/v1/webhooks/test', { key: keys.admin, body: { url: `http://hook.test:${receiver.port}/`, app_id: 'demo' } });
    const look = async () => (await server.request(`/admin/v1/webhooks/deliveries/${json.id}`, { key: keys.admin })).json;
    return waitFor(async () => { const is = await look(); return is.state === 'dead' && is; }, 'its end', 60000);
  };
  assert.doesNotMatch((await send()).last.error, /refused_address/);
  dns.say('127.0.0.1');
  // A worker that has asked for the name keeps the answer for a while, and tries the outside.
  await waitFor(async () => /refused_address/.test((await send()).last.error), 'a refusal', 100000);
  assert.equal(receiver.connections, 0);
});
