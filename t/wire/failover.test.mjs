// A database server or a Redis is taken over by its replica: what was acknowledged is there, and everybody goes where
// writes are taken, by himself.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { startCutter } from './lib/cutter.mjs';
import { startPostgres, startStandby } from './lib/postgres.mjs';
import { startRedis } from './lib/redis.mjs';
import { keys, newSession, startMock, startServer, streamTurn } from './lib/server.mjs';
import { waitFor } from './lib/wait.mjs';

const key = keys.client;
const limited_key = 'pc_test_limited_key_0123456789abcdef';
let mock;
before(async () => { mock = await startMock(null); });
after(() => mock?.stop());

test('two database servers: the primary dies, its standby is promoted, nothing acknowledged is lost', async (t) => {
  const primary = await startPostgres(t);
  const standby = await startStandby(t, primary);
  await primary.sql(`ALTER SYSTEM SET synchronous_standby_names = '*'`);
  await primary.sql('SELECT pg_reload_conf()');
  await waitFor(async () => (await primary.sql(`SELECT count(*) FROM pg_stat_replication WHERE sync_state IN ('sync', 'quorum')`)) === '1', 'a synchronous standby');

  const url = `postgres://parley@127.0.0.1:${standby.port},127.0.0.1:${primary.port}/parley`; // the standby first: it takes no writes
  const server = await startServer(t, { mock, config: { workers: 2, store: { url, acquire_timeout: '10s' }, sessions: { sweep_interval: '1d' } } });
  for (const line of [/store connection (lost|failed)/, /store (reads|writes) fail/, /store operation/, /store pool exhausted/, /turns of dead hosts not recorded/]) server.expectLog(line);
  const acknowledged = [];
  let is_over = false;
  const talk = async () => {
    while (!is_over) {
      const opened = await server.request('/v1/sessions', { key, body: {}, limit_ms: 30000 });
      if (opened.status !== 201) {
        assert.equal(opened.status, 503, opened.text);
        continue;
      }
      acknowledged.push(opened.json.id);
    }
  };
  const talking = [talk(), talk(), talk()];
  await waitFor(() => acknowledged.length > 50, 'sessions');
  await primary.kill();
  const before_count = acknowledged.length;
  await standby.promote();
  await waitFor(() => acknowledged.length > before_count + 50, 'sessions again', 30000);
  is_over = true;
  await Promise.all(talking);
  const there = new Set((await standby.sql('SELECT id FROM chat_sessions')).split('\n'));
  assert.deepEqual(acknowledged.filter((id) => !there.has(id)), []);
  assert.equal((await streamTurn(server, acknowledged[0], { input: 'Hello' })).at(-1).event, 'turn.completed');
  await waitFor(async () => (await server.request('/health')).json.status === 'ok', 'health');
});

test('Redis is demoted behind its name: READONLY leads to the new primary, and limits go on where they were', async (t) => {
  const [first, second] = [await startRedis(t), await startRedis(t)];
  await second.command('REPLICAOF', '127.0.0.1', String(first.port));
  await waitFor(async () => /master_link_status:up/.test(await second.command('INFO', 'replication')), 'a replica');
  const name = await startCutter(t, { port: first.port });
  const server = await startServer(t, { mock, config: {
    workers: 2, backplane: { url: `redis://127.0.0.1:${name.port}/0`, lease: '1s' },
    keys: [
      { kind: 'client', app: 'demo', secret: key, rate: { limit: 0, window: '60s' } },
      { kind: 'client', app: 'demo', secret: limited_key, rate: { limit: 30, window: '10m' } },
    ],
  } });
  server.expectLog(/backplane degraded to local .*READONLY/);
  const mode = async () => (await server.request('/health')).json.checks.backplane.mode;
  const ask = async (count) => (await Promise.all(Array.from({ length: count }, () => server.request('/v1/sessions/sess_01m7x2gjd8y1r50z4s26qtean5', { key: limited_key }))))
    .filter(({ status }) => status === 404).length;
  await waitFor(async () => (await mode()) === 'redis', 'Redis');
  assert.equal(await ask(10), 10);
  await waitFor(async () => (await second.command('KEYS', '*lim:*')) !== '', 'the window at the replica');

  // As a failover does: the replica is promoted, the name is its own, who was the primary follows it. No connection breaks.
  await second.command('REPLICAOF', 'NO', 'ONE');
  name.target.port = second.port;
  await first.command('REPLICAOF', '127.0.0.1', String(second.port));
  await server.line(/backplane is back/, 20000);
  await waitFor(() => [...name.pairs].every(({ far }) => far?.remotePort === second.port), 'nobody at the old one');
  await waitFor(async () => Number(await second.command('ZCARD', 'parley:workers')) === 2 && (await mode()) === 'redis', 'all workers at the new one');
  assert.equal(await ask(40), 20, 'the ten before count');
  const { id } = await newSession(server);
  assert.equal((await streamTurn(server, id, { input: 'Hello' })).at(-1).event, 'turn.completed');
});
