// Two hosts in network namespaces of their own; the link of one to Redis and PostgreSQL is cut without a word to anybody, for
// less than a lease and for more: the cut-off host says so and refuses in time, the other goes on, and once the link is
// there again both agree with the record.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { startCutter } from './lib/cutter.mjs';
import { isAlone, isUp, warnings } from './lib/hosts.mjs';
import { collect } from './lib/http.mjs';
import { startNetwork } from './lib/netns.mjs';
import { sharedPostgres } from './lib/postgres.mjs';
import { startRedis } from './lib/redis.mjs';
import { is_last_event, keys, newSession, plainProvider, startMock, startServer } from './lib/server.mjs';
import { waitFor } from './lib/wait.mjs';

const key = keys.client;
const tools = [{ type: 'function', function: { name: 'weather', parameters: { type: 'object' } } }];
const away = [/backplane degraded /, /store /, /session sweep failed/, /usage not written/, /turns? .*(not recorded|not saved|not stored)/,
  /keys .*(fail|cannot)/, /stats /, /lease/, /turn /];

async function startIn(t, place, postgres, redis, mock, url) {
  const relay = (target, host) => startCutter(t, target, { host });
  const [to_postgres, to_redis, to_mock] = [await relay(postgres, place.back), await relay(redis, place.back),
    await relay({ port: Number(mock.address.split(':').pop()) }, place.front)];
  const store_url = new URL(url);
  store_url.host = `${place.back}:${to_postgres.port}`;
  const host = await startServer(t, { wrap: place.wrap, mock, config: {
    listen: [`${place.address}:0`], workers: 2, turns: { progress_interval: '200ms' },
    providers: [plainProvider('mock', `http://${place.front}:${to_mock.port}/v1`)],
    backplane: { url: `redis://${place.back}:${to_redis.port}`, lease: '5s' },
    store: { url: store_url.href, pool_size: 2, acquire_timeout: '1s', connect_timeout: '1s', grace: '500ms' },
  } });
  await isUp(host);
  return host;
}

async function beginTurn(host, id, body) {
  const events = await host.stream(`/v1/sessions/${id}/turns`, { key, body: { stream: true, ...body } });
  assert.equal(events.status, 200, events.text);
  return { turn: events.headers['x-parley-turn'], events };
}

const follow = async (host, id, turn) => host.stream(`/v1/sessions/${id}/turns/${turn}/events`, { key });
const all = (events) => collect(events, is_last_event, 40000);
async function* noted(events, note) {
  for await (const event of events) {
    note(event);
    yield event;
  }
}
const textOf = (seen) => seen.filter(({ event }) => event === 'text.delta').map(({ data }) => data.text).join('');
const inOrder = (seen) => assert.deepEqual(seen.map(({ id }) => Number(id.split('.')[1])), seen.map((_, i) => i + 1));

async function isRefusing(host) {
  const began = Date.now();
  const { status, json, headers } = await host.request('/v1/sessions', { key, body: {}, limit_ms: 10000 });
  if (status === 201) return false; // what was under way may have arrived
  assert.deepEqual([status, json.error.code], [503, 'store_unavailable']);
  assert.ok(Number(headers['retry-after']) > 0);
  assert.ok(Date.now() - began < 4000, `refused after ${Date.now() - began} ms`);
  return true;
}

test('the link of a host to Redis and PostgreSQL is cut and healed', { timeout: 120000 }, async (t) => {
  const network = await startNetwork(t, 2);
  if (network === null) {
    t.skip('network namespaces need root');
    return;
  }
  const [postgres, redis, mock] = await Promise.all([sharedPostgres(), startRedis(t), startMock(t)]);
  const url = await postgres.newDatabase(), database = new URL(url).pathname.slice(1);
  const a = await startIn(t, network.hosts[0], postgres, redis, mock, url), b = await startIn(t, network.hosts[1], postgres, redis, mock, url);
  for (const host of [a, b]) for (const line of away) host.expectLog(line);

  // ---- for less than a lease ----
  const ids = [];
  for (let i = 0; i < 3; i++) ids.push((await newSession(a)).id);
  const on_b = await beginTurn(b, ids[0], { input: 'go [[mock tokens=500 interval=12]]' });
  const on_a = await beginTurn(a, ids[1], { input: 'go [[mock tokens=500 interval=12]]' });
  const with_tool = await beginTurn(b, ids[2], { input: '[[mock tool=weather args={}]]', tools });
  const speaking = new Set();
  const hear = (who, events) => all(noted(events, ({ event }) => event === 'text.delta' && speaking.add(who)));
  const followers = [hear('near b', on_b.events), hear('far b', await follow(a, ids[0], on_b.turn)),
    hear('near a', on_a.events), hear('far a', await follow(b, ids[1], on_a.turn))];
  const tool_turn = all(with_tool.events);
  const { json: waiting } = await a.request(`/v1/sessions/${ids[2]}/turns/${with_tool.turn}?wait=10`, { key });
  assert.equal(waiting.pending_tool_calls.length, 1, JSON.stringify(waiting));
  await waitFor(() => speaking.size === followers.length, 'both answers, on both hosts'); // a turn that still asks the record would fail over the cut
  let began = Date.now();
  network.hosts[1].cut();
  await isAlone(b);
  await waitFor(() => warnings(b).length > 0, 'warning');
  t.diagnostic(`Redis missed after ${warnings(b)[0].at - began} ms`);
  assert.ok(warnings(b)[0].at - began < 4500, `missed after ${warnings(b)[0].at - began} ms`); // one second, and what the machine adds; a lease is five
  await waitFor(() => isRefusing(b), 'a refusal');
  await waitFor(async () => (await b.request('/health/ready')).status === 503, 'not ready');
  assert.equal((await b.request('/health/live')).status, 200);
  assert.equal((await a.request('/v1/sessions', { key, body: {} })).status, 201);
  assert.equal((await a.request('/health/ready')).status, 200);
  network.hosts[1].heal();
  await isUp(b);
  await waitFor(async () => (await b.request('/health/ready')).status === 200, 'ready again');
  await newSession(b);
  const { status, text } = await waitFor(async () => {
    const answer = await a.request(`/v1/sessions/${ids[2]}/tool-results`, { key, body: { tool_call_id: waiting.pending_tool_calls[0].tool_call_id, output: 'fine' } });
    return answer.status !== 503 && answer;
  }, 'an answer of the owner');
  assert.equal(status, 202, text);
  assert.equal((await tool_turn).at(-1).data.message?.content, 'tool results: fine');
  const [near_b, far_b, near_a, far_a] = await Promise.all(followers);
  for (const [near, far] of [[near_b, far_b], [near_a, far_a]]) {
    assert.equal(near.at(-1).event, 'turn.completed', JSON.stringify(near.at(-1)));
    inOrder(near);
    assert.deepEqual(far, near);
  }

  // ---- for more than a lease ----
  const { id } = await newSession(b);
  const lost = await beginTurn(b, id, { input: 'go [[mock tokens=3000 interval=15]]' });
  let heard = 0;
  const near = all(lost.events), far = all(noted(await follow(a, id, lost.turn), () => heard++));
  await waitFor(() => heard > 20, 'events on the other host');
  began = Date.now();
  network.hosts[1].cut();
  const told = await far;
  t.diagnostic(`the other host says worker_lost ${Date.now() - began} ms after the cut`);
  assert.deepEqual([told.at(-1).event, told.at(-1).data.error?.code], ['turn.failed', 'worker_lost'], JSON.stringify(told.at(-1)));
  inOrder(told);
  const next = await a.request(`/v1/sessions/${id}/turns`, { key, body: { input: 'again' } });
  assert.deepEqual([next.status, next.json.message?.content], [200, 'echo: again'], next.text);
  network.hosts[1].heal();
  await isUp(b);
  // Who followed on the side that was cut off hears an explicit end, too, and it is not another one than the record's.
  const ended = (await near).at(-1);
  t.diagnostic(`there it ends as ${ended.event} ${ended.data.error?.code}`);
  assert.equal(ended.event, 'turn.failed', JSON.stringify(ended));
  const [row] = (await postgres.sql(`SELECT state, error_code, text FROM turns WHERE id = '${lost.turn}'`, database)).split('\n');
  const [state, code, recorded] = row.split('|');
  assert.deepEqual([state, code], ['failed', 'worker_lost']);
  assert.ok(textOf(told).startsWith(recorded), `recorded ${recorded}`);
  await waitFor(async () => (await b.request('/health/ready')).status === 200, 'ready again');
  const last = await waitFor(async () => {
    const answer = await b.request(`/v1/sessions/${id}/turns`, { key, body: { input: 'and again' } });
    return answer.status === 200 && answer;
  }, 'the next turn on the host that was cut off');
  assert.equal(last.json.message.content, 'echo: and again');
  assert.equal(await postgres.sql("SELECT count(*) FROM turns WHERE state = 'live'", database), '0');
  for (const host of [a, b]) assert.doesNotMatch(host.output(), /worker (died|crashed)/);
});
