// Ends of tasks over hubs while hosts are killed: clients of all three transports come back to whichever host is there, and a
// ledger outside says that each heard the end of each task once. Who comes when the news are gone hears it from the record.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import * as signalR from '@microsoft/signalr';
import { startHosts } from './lib/hosts.mjs';
import { sharedPostgres } from './lib/postgres.mjs';
import { startRedis } from './lib/redis.mjs';
import { keys, startMock } from './lib/server.mjs';
import { waitFor, within } from './lib/wait.mjs';

const transports = { WebSockets: 1, ServerSentEvents: 2, LongPolling: 4 };
const TASKS = 45, FOR_EACH = 2;
let redis, mock, postgres, of, hosts;

before(async () => {
  [redis, mock, postgres] = await Promise.all([startRedis(null), startMock(null), sharedPostgres()]);
  of = { redis, mock, store_url: await postgres.newDatabase(),
    config: { workers: 2, tasks: { lease: '2s', look_interval: '1s', max_losses: 100 }, events: { connect_timeout: '3s', poll_timeout: '5s' } } };
  hosts = await startHosts(null, of);
  for (const host of hosts) host.expectLog(/./); // others die and come
});
after(async () => {
  for (const host of hosts ?? []) await host.stop();
  await redis?.stop();
  await mock?.stop();
});

/** Until it is answered: the host that was asked may just be killed. */
async function newTask(n) {
  for (;;) {
    try {
      const { status, json, text } = await hosts[n % hosts.length].request('/v1/tasks', { key: keys.server, headers: { 'idempotency-key': `task ${n}` },
        body: { type: 'chat.completion', input: { model: 'default', messages: [{ role: 'user', content: `n ${n} [[mock tokens=${20 + (n % TASKS)} interval=50]]` }] } } });
      if (status < 500) {
        assert.ok(status === 202 || status === 200, text);
        return json.id;
      }
    } catch (e) {
      if (e.code === 'ERR_ASSERTION') throw e;
    }
    n += hosts.length;
    await new Promise(setImmediate);
  }
}

/** Comes back by itself, to any host, and asks again for what it has not heard the end of. */
function follow(transport, ids) {
  const self = { transport, heard: new Map(), reconnected: 0, at: 0, is_stopping: false };
  let connection, connecting;
  const ended = (id) => self.heard.set(id, (self.heard.get(id) ?? 0) + 1);
  const missing = () => ids.filter((id) => !self.heard.has(id));
  const build = () => {
    const fresh = new signalR.HubConnectionBuilder().configureLogging(signalR.LogLevel.None)
      .withUrl(`${hosts[self.at++ % hosts.length].url}/hubs/tasks`, { transport: transports[transport], accessTokenFactory: () => keys.server }).build();
    for (const name of ['TaskCompleted', 'TaskFailed', 'TaskCancelled', 'TaskTimedOut']) fresh.on(name, ended);
    fresh.onclose(() => {
      if (fresh !== connection || self.is_stopping) return; // one that never stood is tried again where it failed
      self.reconnected++;
      self.start();
    });
    return fresh;
  };
  async function connect() {
    while (!self.is_stopping) {
      const fresh = build();
      try {
        await within(fresh.start(), 'start', 10000);
        for (const id of missing()) await within(fresh.invoke('SubscribeToTask', id), 'subscribe', 10000);
        if (fresh.state === signalR.HubConnectionState.Connected) {
          connection = fresh;
          return;
        }
      } catch {
        // its host has just been killed, or is not there yet
      }
      await fresh.stop().catch(() => {});
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }
  self.start = () => connecting ??= connect().finally(() => { connecting = undefined; });
  self.stop = async () => {
    self.is_stopping = true;
    await connecting;
    await connection.stop();
  };
  return self;
}

test('hosts are killed amid tasks: each client hears each end, once', { timeout: 180000 }, async () => {
  const ids = [];
  for (let i = 0; i < TASKS; i++) ids.push(await newTask(i));
  const clients = Object.keys(transports).flatMap((transport) => Array.from({ length: FOR_EACH }, (_, i) => Object.assign(follow(transport, ids), { at: i })));
  await Promise.all(clients.map((client) => client.start()));
  const ends = () => clients.reduce((sum, { heard }) => sum + heard.size, 0);
  for (let round = 0; round < 2; round++) {
    const before_it = ends();
    await waitFor(() => ends() >= Math.min(before_it + 10, TASKS * clients.length), 'some ends', 30000);
    await hosts[round].stop({ signal: 'SIGKILL' });
    [hosts[round]] = await startHosts(null, { ...of, count: 1 });
    hosts[round].expectLog(/./);
  }
  await waitFor(() => ends() === TASKS * clients.length, () => `all ends: ${clients.map(({ transport, heard }) => `${transport} ${heard.size}`)}`, 90000);
  for (const { transport, heard } of clients) {
    for (const id of ids) assert.equal(heard.get(id), 1, `${transport} ${id}`);
  }
  assert.ok(clients.some(({ reconnected }) => reconnected > 0));
  for (const client of clients) await client.stop();

  // All that the hosts knew of these ends is gone: who comes now hears it from the record.
  await redis.kill();
  await redis.again();
  await hosts[0].stop({ signal: 'SIGKILL' });
  [hosts[0]] = await startHosts(null, { ...of, count: 1 });
  hosts[0].expectLog(/./);
  for (const transport of Object.keys(transports)) {
    const late = follow(transport, ids.slice(0, 5));
    await late.start();
    await waitFor(() => late.heard.size === 5, `${transport}, late`, 30000);
    assert.deepEqual([...late.heard.values()], [1, 1, 1, 1, 1]);
    await late.stop();
  }
  const stream = await hosts[0].stream(`/v1/events?topics=task:${ids[0]}`, { key: keys.server });
  let end;
  for await (const event of stream) if (event.event === 'task.completed') { end = event; break; }
  assert.equal(end.data.data.task_id, ids[0]);
  const again = await hosts[0].stream(`/v1/events?topics=task:${ids[0]}`, { key: keys.server, headers: { 'last-event-id': end.id } });
  const seen = [];
  for await (const event of again) { seen.push(event.event); if (event.event === 'ready') break; }
  assert.deepEqual(seen, ['ready'], 'who has heard it is not told again');
  again.close();
  stream.close();
});
