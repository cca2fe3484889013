// Everything that a network does to the connections to PostgreSQL, while clients go on asking: each is answered in its
// time or told why not, what was acknowledged is there, and all is well again by itself.
import assert from 'node:assert/strict';
import { before, describe, test } from 'node:test';
import { startCutter } from './lib/cutter.mjs';
import { startDns } from './lib/dns.mjs';
import { sharedPostgres } from './lib/postgres.mjs';
import { keys, startServer } from './lib/server.mjs';
import { waitFor } from './lib/wait.mjs';

const key = keys.server, workers = 2;
const limits = { acquire_timeout: '1500ms', connect_timeout: '1s', grace: '1s', pool_size: 3, max_overflow: 2 };
const patient = { acquire_timeout: '15s', connect_timeout: '15s' }; // where nobody is to be refused
// What a worker says of a database that is away.
const away = [/store connection (lost|failed) /, /store (reads|writes) fail/, /store operation (failed|given up)/, /store pool exhausted/,
  /session sweep failed/, /usage not written/, /turns? .*(not recorded|not saved|not stored)/, /keys .*(fail|cannot)/];
let postgres;

process.setMaxListeners(50);
before(async () => { postgres = await sharedPostgres(); });

/** Clients that open sessions and take turns, and note what they were promised. */
function startClients(host, n) {
  const state = { sessions: [], turns: [], refused: 0, worst_ms: 0, is_over: false };
  const ask = async (route, body, good) => {
    const began = Date.now();
    const answer = await host.request(route, { key, body, limit_ms: 20000 });
    state.worst_ms = Math.max(state.worst_ms, Date.now() - began);
    if (answer.status === good) return answer.json;
    assert.equal(answer.status, 503, answer.text);
    assert.equal(answer.json.error.code, 'store_unavailable', answer.text);
    assert.ok(Number(answer.headers['retry-after']) > 0, answer.text);
    assert.notEqual(answer.json.error.message, '');
    state.refused++;
    return null;
  };
  const client = async (c) => {
    while (!state.is_over) {
      const session = await ask('/v1/sessions', { device_id: `d${c}-${state.sessions.length}` }, 201);
      if (!session) continue;
      state.sessions.push(session.id);
      for (let i = 0; i < 3 && !state.is_over; i++) {
        const turn = await ask(`/v1/sessions/${session.id}/turns`, { input: `${c} ${i}` }, 200);
        if (!turn) break; // it may be live in the record for a while
        state.turns.push([turn.turn_id, turn.message.content]);
      }
    }
  };
  const all = Promise.all(Array.from({ length: n }, (_, c) => client(c)));
  all.catch(() => {}); // said by stop()
  const until = (fn, what) => Promise.race([waitFor(fn, what, 15000), all]);
  state.more = (turns = 20) => {
    const seen = state.turns.length;
    return until(() => state.turns.length >= seen + turns, `${turns} more turns`);
  };
  state.refusals = (count) => until(() => state.refused >= count, `${count} refusals`);
  state.stop = () => {
    state.is_over = true;
    return all;
  };
  return state;
}

const isReady = async (host) => (await host.request('/health/ready')).status === 200;

async function checkRecord(database, { sessions, turns }) {
  const sql = async (text) => new Set((await postgres.sql(text, database)).split('\n'));
  await waitFor(async () => (await postgres.sql("SELECT count(*) FROM turns WHERE state = 'live'", database)) === '0', 'no live turn in the record', 15000);
  const stored = await sql('SELECT id FROM chat_sessions');
  assert.deepEqual(sessions.filter((id) => !stored.has(id)), []);
  const ended = await sql("SELECT id || ' ' || text FROM turns WHERE state = 'completed'");
  assert.deepEqual(turns.filter(([id, text]) => !ended.has(`${id} ${text}`)), []);
  await waitFor(async () => {
    const paid = await sql('SELECT turn_id FROM usage');
    return turns.every(([id]) => paid.has(id));
  }, 'a row of usage for each turn', 15000);
}

async function startBehind(t, begin, more = {}) {
  const dns = begin.length > 1 ? await startDns(t) : null;
  const url = new URL(await postgres.newDatabase()), database = url.pathname.slice(1);
  const cutter = await startCutter(t, postgres);
  url.port = String(cutter.port);
  if (dns) url.hostname = 'postgres.test';
  const host = await startServer(t, { wrap: dns?.wrap, config: { workers, store: { url: url.href, ...limits, ...more } } });
  for (const regex of away) host.expectLog(regex);
  return { dns, database, cutter, host };
}

const faults = [
  ['half-open connections', (cutter) => cutter.halfOpen()],
  ['a reset, and nobody listens', (cutter) => cutter.refuse()],
  ['byte by byte', (cutter) => cutter.drip(40)],
  ['a pause', (cutter) => cutter.hold()],
  ['what is sent is lost', (cutter) => cutter.swallow()],
  ['latency beyond the limit', (cutter) => cutter.delay(1600)],
  ['a name that nobody resolves', (cutter, dns) => { dns.hang(); cutter.cut(); }],
];

describe('PostgreSQL behind', { concurrency: true }, () => {
  for (const [name, begin] of faults) {
    test(name, { timeout: 120000 }, async (t) => {
      if (begin.length > 1 && process.getuid() !== 0) {
        t.skip('needs root: a mount namespace with a name server of its own');
        return;
      }
      const { dns, database, cutter, host } = await startBehind(t, begin);
      const clients = startClients(host, 4);
      await clients.more();

      const { refused: earlier } = clients; // none, but where the machine has much else to do
      begin(cutter, dns);
      await clients.refusals(earlier + 4);
      await waitFor(async () => !(await isReady(host)), 'not ready: away for longer than its grace');
      const { json } = await host.request('/health');
      assert.equal(json.checks.store.available, false);
      assert.equal((await host.request('/health/live')).status, 200);
      await clients.refusals(clients.refused + 4);

      dns?.answer();
      cutter.open();
      await clients.more();
      await waitFor(() => isReady(host), 'ready again');
      await clients.stop();
      assert.doesNotMatch(host.output(), /results out of order/);
      const { refused } = clients;
      await checkRecord(database, clients);
      assert.ok(cutter.pairs.size <= workers * (limits.pool_size + limits.max_overflow), `${cutter.pairs.size} connections`);
      t.diagnostic(`${clients.turns.length} turns, ${refused} refusals, the longest answer took ${clients.worst_ms} ms`);
      // A turn waits for the record at its beginning, and its end is tried again for a while.
      assert.ok(clients.worst_ms < 12000, `${clients.worst_ms} ms`);
    });
  }

  test('latency within the limit: nothing changes but the time', { timeout: 60000 }, async (t) => {
    const { database, cutter, host } = await startBehind(t, () => {}, patient);
    const clients = startClients(host, 4);
    await clients.more();
    cutter.delay(40);
    await clients.more(12);
    await clients.stop();
    assert.equal(clients.refused, 0);
    await checkRecord(database, clients);
  });

  test('resets again and again: nobody is refused', { timeout: 60000 }, async (t) => {
    const { database, cutter, host } = await startBehind(t, () => {}, patient);
    const clients = startClients(host, 4);
    for (let round = 0; round < 4; round++) {
      await clients.more(8);
      cutter.cut();
    }
    await clients.more(8);
    await clients.stop();
    assert.equal(clients.refused, 0);
    await checkRecord(database, clients);
  });
});
