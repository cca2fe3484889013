// Messages of 2024-11-05 whose sender is being looked up in the record, at the worker that has the stream: they count as requests in
// progress, so that a record that is slow is no room without a limit.
import assert from 'node:assert/strict';
import http from 'node:http';
import { test } from 'node:test';
import { sharedPostgres } from './lib/postgres.mjs';
import { keys, startServer } from './lib/server.mjs';
import { holders } from './lib/sockets.mjs';
import { waitFor } from './lib/wait.mjs';

/** A connection that stays, so that one worker takes all that is asked on it. */
class Lasting {
  constructor(server) {
    this.server = server;
    this.agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
  }

  ask(route, key, body) {
    return new Promise((resolve, reject) => {
      const text = body && JSON.stringify(body);
      const req = http.request(this.server.url + route, { agent: this.agent, method: text ? 'POST' : 'GET',
        headers: { authorization: `Bearer ${key}`, ...(text && { 'content-type': 'application/json', 'content-length': Buffer.byteLength(text) }) } }, (res) => {
        this.port ??= res.socket.localPort;
        assert.equal(res.socket.localPort, this.port);
        res.resume();
        res.on('end', () => resolve({ status: res.statusCode, headers: res.headers }));
      });
      req.on('error', reject);
      req.end(text);
    });
  }
}

test('at the limit further ones are refused; those that wait are answered', async (t) => {
  const postgres = await sharedPostgres();
  const url = await postgres.newDatabase(), database = new URL(url).pathname.slice(1);
  const sql = (query) => postgres.sql(query, database);
  const store = { url, acquire_timeout: '10m', statement_timeout: '0' };
  // Keys of the record, made before, so that no cache is dropped because of them.
  const before = await startServer(t, { config: { workers: 1, store } });
  const made = await Promise.all(Array.from({ length: 21 }, () => before.request('/admin/v1/keys', { key: keys.admin, body: { kind: 'server', app_id: 'demo' } })));
  await before.stop();
  const [key, ...others] = made.map(({ json }) => json.key);

  const server = await startServer(t, { config: { store, http: { keepalive_timeout: '5m' }, auth: { cache_size: 16 }, mcp: { max_pending: 4 } } });
  const stream = await server.stream('/sse', { key });
  let endpoint;
  const answered = [];
  (async () => { for await (const { event, data } of stream) if (event === 'endpoint') endpoint = data; else answered.push(data); })().catch(() => {}); // we close it
  await waitFor(() => endpoint, 'the endpoint event', 30000);
  const home_pid = holders(server.port, server.workers()).get(stream.local_port);
  assert.ok(home_pid);
  const connections = [];
  const at = async (is_it) => {
    const one = new Lasting(server);
    connections.push(one);
    await one.ask('/health/live', key);
    return is_it(holders(server.port, server.workers()).get(one.port) === home_pid) ? one : null;
  };
  const home = await waitFor(() => at((is_home) => is_home), 'a connection to the worker of the stream', 30000);
  const away = await waitFor(() => at((is_home) => !is_home), 'one to another worker', 30000);
  const ping = (id) => away.ask(endpoint, key, { jsonrpc: '2.0', id, method: 'ping' });
  const is_answered = (id) => answered.some((message) => message.id === id && message.result);

  assert.equal((await ping('before')).status, 202);
  await waitFor(() => is_answered('before'), 'its answer', 30000);
  // That worker forgets the key for others, and cannot look it up.
  for (const other of others) assert.equal((await home.ask('/v1/tasks', other)).status, 200);
  const locks = "FROM pg_locks WHERE relation = 'keys'::regclass AND mode = 'AccessExclusiveLock' AND granted";
  const locker = sql('LOCK TABLE keys IN ACCESS EXCLUSIVE MODE; SELECT pg_sleep(600)').catch(() => {});
  try {
    await waitFor(async () => await sql(`SELECT count(*) ${locks}`) === '1', 'the lock', 30000);
    for (let i = 0; i < 4; i++) assert.equal((await ping(`waits-${i}`)).status, 202);
    const { status, headers } = await ping('too many');
    assert.deepEqual([status, headers['retry-after']], [503, '1']);
    assert.deepEqual(answered.map(({ id }) => id), ['before']);
  } finally {
    await sql(`SELECT pg_terminate_backend(pid) ${locks}`);
    await locker;
  }
  for (let i = 0; i < 4; i++) await waitFor(() => is_answered(`waits-${i}`), 'its answer', 30000);
  assert.equal((await ping('after')).status, 202);
  await waitFor(() => is_answered('after'), 'its answer', 30000);
  for (const { agent } of connections) agent.destroy();
  stream.close();
});
