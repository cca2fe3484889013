// Who is told by webhooks, and what: the configuration's endpoints hear of tasks, and of turns whose worker died, also over
// PostgreSQL.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { sharedPostgres } from './lib/postgres.mjs';
import { startReceiver } from './lib/receiver.mjs';
import { keys, newSession, startServer } from './lib/server.mjs';
import { waitFor } from './lib/wait.mjs';

const key = keys.server;
const webhooks = (endpoints) => ({ allow_private: true, backoff: '50ms', timeout: '2s', endpoints: Object.entries(endpoints).map(([name, { url, ...more }]) => ({ name, url, ...more })) });

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
