// Hosts that share a record: what becomes of one that dies as a whole, of its turns, its listeners and its duties; and that
// nobody takes a living one for dead, with Redis, without it, and after the record was away for longer than a lease.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { after, before, test } from 'node:test';
import { isAlone, isUp } from './lib/hosts.mjs';
import { collect } from './lib/http.mjs';
import { sharedPostgres, startPostgres } from './lib/postgres.mjs';
import { startRedis } from './lib/redis.mjs';
import { is_last_event, keys, newSession, startMock, startServer, streamTurn } from './lib/server.mjs';
import { waitFor } from './lib/wait.mjs';
import { openChat } from './lib/ws.mjs';

const key = keys.client;
const lease = '1s';
const tools = [{ type: 'function', function: { name: 'weather', description: 'weather', parameters: { type: 'object' } } }];
let postgres, redis, mock;
process.setMaxListeners(50);

before(async () => {
  [postgres, redis, mock] = await Promise.all([sharedPostgres(), startRedis(null), startMock(null)]);
});
after(async () => {
  await redis?.stop();
  await mock?.stop();
});

/** Hosts with 2 workers over one database; `prefix` names their keys in Redis, none: without it. */
async function startHosts(t, count, url, prefix, config = {}) {
  const hosts = [];
  for (let i = 0; i < count; i++) {
    const backplane = { lease, ...(prefix && { url: redis.url, key_prefix: prefix }) };
    hosts.push(await startServer(t, { mock, config: { workers: 2, store: { url, pool_size: 2 }, backplane, ...config } }));
  }
  if (prefix) await waitFor(async () => Number(await redis.command('ZCARD', `${prefix}workers`)) >= 2 * count, 'all workers in the registry');
  return hosts;
}

/** kill -9 of every process of a host at once, the master first: nobody is left to say anything. */
async function killHost(host) {
  const { stdout } = spawnSync('ps', ['-o', 'pid=', '--ppid', String(host.pid)], { encoding: 'utf8' });
  for (const pid of [host.pid, ...stdout.split('\n').filter(Boolean).map(Number)]) {
    try {
      process.kill(pid, 'SIGKILL');
    } catch (e) {
      if (e.code !== 'ESRCH') throw e; // its parent took it along
    }
  }
  await host.stop({ signal: 'SIGKILL' });
}

async function beginTurn(host, id, body) {
  const events = await host.stream(`/v1/sessions/${id}/turns`, { key, body: { stream: true, ...body } });
  assert.equal(events.status, 200, events.text);
  return { turn: events.headers['x-parley-turn'], events };
}

const turnOf = async (host, id, turn) => (await host.request(`/v1/sessions/${id}/turns/${turn}`, { key })).json;
const textOf = (events) => events.filter(({ event }) => event === 'text.delta').map(({ data }) => data.text).join('');

/** Reads in the background, also beyond the cut of a stream whose server dies. */
function reading(events) {
  const seen = [];
  const done = (async () => {
    for await (const event of events) {
      seen.push(event);
      if (is_last_event(event)) break;
    }
  })().catch(() => {});
  return { seen, done };
}

test('a host dies as a whole: after its lease its turns are lost with their text, listeners are told, and sessions go on', async (t) => {
  const [a, b] = await startHosts(t, 2, await postgres.newDatabase(), 'dead:', { turns: { progress_interval: '100ms' } });
  const { id } = await newSession(b);
  const ask = { input: 'go [[mock tokens=500 interval=10]]', request_id: 'r1' };
  const { turn, events } = await beginTurn(a, id, ask);
  const here = reading(events);
  const far = await b.stream(`/v1/sessions/${id}/turns/${turn}/events`, { key });
  const there = reading(far);
  const chat = await openChat(t, b);
  chat.send({ action: 'resume', request_id: 'resume', payload: { session_id: id, turn_id: turn, after: 0 } });
  await waitFor(() => there.seen.length > 20, 'events on the other host');
  await waitFor(async () => Number(await postgres.sql(`SELECT coalesce(length(text), 0) FROM turns WHERE id = '${turn}'`, new URL(b.config.store.url).pathname.slice(1))) > 20, 'a part in the record');
  await killHost(a);
  await Promise.all([here.done, there.done]);

  const last = there.seen.at(-1);
  assert.equal(last.event, 'turn.failed', JSON.stringify(last));
  assert.equal(last.data.error.code, 'worker_lost');
  assert.deepEqual(there.seen.map((e) => Number(e.id.split('.')[1])), there.seen.map((_, i) => i + 1), 'in order, nothing twice, nothing missing');
  assert.equal((await chat.frame((frame) => frame.status === 'error')).chunk.code, 'worker_lost');

  const record = await waitFor(async () => {
    const state = await turnOf(b, id, turn);
    return state?.state === 'failed' && state;
  }, 'the turn to have failed');
  assert.equal(record.error.code, 'worker_lost');
  const again = await collect(await b.stream(`/v1/sessions/${id}/turns/${turn}/events`, { key }), is_last_event);
  assert.deepEqual(again.map((e) => e.event), ['turn.snapshot', 'turn.failed']);
  assert.ok(again[0].data.text.length > 20);
  assert.ok(textOf(there.seen).startsWith(again[0].data.text), 'what is kept is the beginning of what was said');

  const next = await streamTurn(b, id, { input: 'Hello again' });
  assert.equal(next.at(-1).event, 'turn.completed');
  const anew = await streamTurn(b, id, ask);
  assert.equal(anew.at(-1).event, 'turn.completed', 'the same request runs anew');
});

test('a host dies as a whole: who asks for its tool call, cancels or queues hears what the record says', async (t) => {
  const [a, b] = await startHosts(t, 2, await postgres.newDatabase(), 'tools:');
  const { id } = await newSession(b);
  const { turn, events } = await beginTurn(a, id, { input: '[[mock tool=weather args={}]]', tools });
  const here = reading(events);
  const call = await waitFor(() => here.seen.find(({ event }) => event === 'tool.call'), 'a call');
  const queued = b.request(`/v1/sessions/${id}/turns`, { key, body: { input: 'next', queue: true, stream: false }, limit_ms: 60000 });
  await killHost(a);
  const give = () => b.request(`/v1/sessions/${id}/tool-results`, { key, body: { tool_call_id: call.data.tool_call_id, output: 1 } });
  // Until the lease is over nobody knows: 503, and after it the call is nobody's.
  const answers = [];
  await waitFor(async () => answers.push((await give()).status) && answers.at(-1) === 404, 'an unknown tool call');
  assert.deepEqual([...new Set(answers)].filter((status) => status !== 503), [404], answers.join());
  const { status, text } = await queued;
  assert.equal(status, 200, text);
  assert.equal((await turnOf(b, id, turn)).error.code, 'worker_lost');
  assert.ok((await b.request(`/v1/sessions/${id}/turns/${turn}/cancel`, { key, method: 'POST' })).status < 300);
});

test('without Redis: a living host keeps its turns when another starts, a dead one loses them after its lease', async (t) => {
  const url = await postgres.newDatabase();
  const [a] = await startHosts(t, 1, url);
  const { id } = await newSession(a);
  const long = await newSession(a);
  // It waits for its tool call, however long the other host takes to start.
  const { turn, events } = await beginTurn(a, id, { input: '[[mock tool=weather args={}]]', tools });
  const here = reading(events);
  const call = await waitFor(() => here.seen.find(({ event }) => event === 'tool.call'), 'a call');
  const [b] = await startHosts(t, 1, url);
  const refused = await b.request(`/v1/sessions/${id}/turns`, { key, body: { input: 'me too' } });
  assert.equal(refused.status, 409, refused.text);
  assert.equal((await b.request(`/v1/sessions/${id}/turns/${turn}/events`, { key })).status, 503, 'nobody can be reached there');
  assert.equal((await a.request(`/v1/sessions/${id}/tool-results`, { key, body: { tool_call_id: call.data.tool_call_id, output: 1 } })).status, 202);
  await here.done;
  assert.equal(here.seen.at(-1).event, 'turn.completed');
  assert.equal((await turnOf(b, id, turn)).state, 'completed');

  const lost = await beginTurn(a, long.id, { input: 'go [[mock tokens=3000 interval=10]]' });
  const cut = reading(lost.events);
  await killHost(a);
  await cut.done;
  await waitFor(async () => (await turnOf(b, long.id, lost.turn))?.error?.code === 'worker_lost', 'the turn to be lost');
  assert.equal((await streamTurn(b, long.id, { input: 'Hello' })).at(-1).event, 'turn.completed');
});

test('the record is away for longer than a lease: nobody is taken for dead when it comes back', async (t) => {
  const mine = await startPostgres(t);
  const hosts = await startHosts(t, 2, mine.url);
  for (const host of hosts) for (const line of [/store /, /session sweep failed/, /turns of dead hosts not recorded/, /budget/]) host.expectLog(line);
  const turns = [];
  for (const host of hosts) {
    const { id } = await newSession(host);
    turns.push({ id, host, ...reading((await beginTurn(host, id, { input: 'go [[mock tokens=350 interval=10]]' })).events) });
  }
  await waitFor(async () => Number(await mine.sql('SELECT count(*) FROM hosts WHERE expires_at > now()')) === 2, 'two leases');
  await mine.kill();
  const from = Date.now();
  await waitFor(() => Date.now() - from > 1800, 'more than a lease');
  await mine.again();
  for (const { done, seen } of turns) {
    await done;
    assert.equal(seen.at(-1).event, 'turn.completed', JSON.stringify(seen.at(-1)));
  }
  assert.equal(await mine.sql(`SELECT count(*) FROM turns WHERE error_code = 'worker_lost'`), '0');
});

test('who waits for a turn of a host that cannot be reached hears its end from the record', async (t) => {
  const own = await startRedis(t);
  const url = await postgres.newDatabase();
  const hosts = await Promise.all([1, 2].map(() => startServer(t, { mock, config: { workers: 2, store: { url, pool_size: 2 }, backplane: { url: own.url } } })));
  for (const host of hosts) host.expectLog(/backplane degraded/);
  const [a, b] = hosts;
  await Promise.all(hosts.map(isUp));
  const begin = async () => {
    const { id } = await newSession(a);
    const { turn, events } = await beginTurn(a, id, { input: '[[mock tool=weather args={}]]', tools });
    const here = reading(events);
    const call = await waitFor(() => here.seen.find(({ event }) => event === 'tool.call'), 'a call');
    return { id, turn, here, call };
  };
  const wait = ({ id, turn }, seconds) => b.request(`/v1/sessions/${id}/turns/${turn}?wait=${seconds}`, { key, limit_ms: 60000 });
  const give = async ({ id, call, here }) => {
    const { status, text } = await a.request(`/v1/sessions/${id}/tool-results`, { key, body: { tool_call_id: call.data.tool_call_id, output: 1 } });
    assert.equal(status, 202, text);
    await here.done;
    assert.equal(here.seen.at(-1).event, 'turn.completed');
  };
  // Its answer is lost: Redis goes while it waits.
  const early = await begin();
  const waiting = wait(early, 3);
  await own.kill();
  await Promise.all(hosts.map((host) => isAlone(host)));
  const late = await begin();
  const waits = [waiting, wait(late, 30)];
  for (const turn of [early, late]) await give(turn);
  for (const { status, json, text } of await Promise.all(waits)) assert.deepEqual([status, json.state], [200, 'completed'], text);
  assert.equal((await wait(await begin(), 1)).status, 503, 'nobody knows what becomes of it');
});

test('one host sweeps for all; when it dies as a whole the other does', async (t) => {
  const url = await postgres.newDatabase();
  // One that is only slow keeps its duty: a lease of seconds.
  const sweep = { backplane: { lease: '4s' }, sessions: { sweep_interval: '1s', idle_expiry: '500ms' } };
  const [a] = await startHosts(t, 1, url, undefined, sweep);
  const [b] = await startHosts(t, 1, url, undefined, sweep);
  const sweeps = (host) => host.lines.filter((line) => /sessions expired count=/.test(line)).length;
  const database = new URL(url).pathname.slice(1);
  const expired = async (host) => {
    const { id } = await newSession(host);
    await waitFor(async () => (await postgres.sql(`SELECT status FROM chat_sessions WHERE id = '${id}'`, database)) === 'expired', 'its expiry', 20000);
  };
  for (let i = 0; i < 2; i++) await expired(b);
  await waitFor(() => sweeps(a) >= 2, 'two sweeps to be said');
  assert.equal(sweeps(b), 0);
  // Of a host it is the first worker; when that dies, another one.
  const before_death = sweeps(a), pid = a.killWorker(0);
  await waitFor(async () => {
    await expired(b);
    return sweeps(a) > before_death;
  }, 'a sweep of the same host', 30000);
  await a.replaced(0, pid);
  await killHost(a);
  await expired(b);
  await waitFor(() => sweeps(b) >= 1, 'a sweep of the other host');
});

test('a revoked key is refused, and its streams and sockets end, on the other host within a second; also while Redis is away', async (t) => {
  const own = await startRedis(t);
  const url = await postgres.newDatabase();
  const hosts = [];
  for (let i = 0; i < 2; i++) {
    hosts.push(await startServer(t, { mock, config: { workers: 2, store: { url, pool_size: 2 }, backplane: { url: own.url } } }));
    hosts[i].expectLog(/backplane degraded/);
  }
  const [a, b] = hosts;
  const mode = async (host) => (await host.request('/health')).json.checks.backplane.mode;
  for (const host of hosts) await waitFor(async () => (await mode(host)) === 'redis', 'Redis');
  const open = (host, secret) => host.request('/v1/sessions', { key: secret, body: {} });
  for (const is_away of [false, true]) {
    if (is_away) {
      await own.kill();
      for (const host of hosts) await waitFor(async () => (await mode(host)) === 'local', 'no Redis');
    }
    const made = (await a.request('/admin/v1/keys', { key: keys.admin, body: { kind: 'client', app_id: 'demo' } })).json;
    const { id } = (await open(b, made.key)).json;
    const events = await b.stream(`/v1/sessions/${id}/turns`, { key: made.key, body: { input: 'go [[mock tokens=1000 interval=20]]' } });
    assert.equal(events.status, 200, events.text);
    const seen = collect(events, ({ event }) => event === 'error');
    const chat = await openChat(t, b, { key: made.key });
    assert.equal((await a.request(`/admin/v1/keys/${made.id}`, { key: keys.admin, method: 'DELETE' })).status, 200);
    const from = Date.now();
    assert.equal((await chat.end()).code, 1008);
    assert.equal((await seen).at(-1).data.error.code, 'unauthorized');
    await waitFor(async () => (await Promise.all([1, 2, 3, 4, 5, 6].map(() => open(b, made.key)))).every(({ status }) => status === 401), 'its refusal');
    assert.ok(Date.now() - from < 5000, `${Date.now() - from} ms`);
  }
});
