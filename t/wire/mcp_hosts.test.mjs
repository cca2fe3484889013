// Two hosts with one session_secret: a client of an older revision speaks to either, request by request, its streams are on one
// and its posts land on the other; what ends at one has ended at both; each goes on alone when Redis is away.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { startCutter } from './lib/cutter.mjs';
import { isAlone, isUp, startHosts } from './lib/hosts.mjs';
import { startSessions, startModern } from './lib/mcp.mjs';
import { sharedPostgres } from './lib/postgres.mjs';
import { ready } from './lib/programs.mjs';
import { startRedis } from './lib/redis.mjs';
import { keys, startMock } from './lib/server.mjs';
import { waitFor } from './lib/wait.mjs';

const request = (method, params, id = 1) => ({ jsonrpc: '2.0', id, method, ...(params ? { params } : {}) });
const call = (name, args = {}, id = 1) => request('tools/call', { name, arguments: args }, id);
const headersOf = (session) => ({ accept: 'application/json, text/event-stream', ...(session ? { 'mcp-session-id': session } : {}) });
const post = (host, body, session) => host.request('/mcp', { key: keys.server, body, headers: headersOf(session), limit_ms: 30000 });
const end = (host, session) => host.request('/mcp', { key: keys.server, method: 'DELETE', headers: { 'mcp-session-id': session } });
const feed = (host, session) => host.stream('/mcp', { key: keys.server, headers: { 'mcp-session-id': session } });
const say = (host, method, params, session) => post(host, { jsonrpc: '2.0', method, params }, session);

async function open(host, capabilities = {}) {
  const { status, headers } = await post(host, request('initialize', { protocolVersion: '2025-11-25', capabilities, clientInfo: { name: 'test', version: '1' } }));
  assert.equal(status, 200);
  assert.equal((await say(host, 'notifications/initialized', undefined, headers['mcp-session-id'])).status, 202);
  return headers['mcp-session-id'];
}

/** On so many fresh connections, so by any of its workers: the statuses that there were. */
async function statuses(host, session, count = 12) {
  const seen = await Promise.all(Array.from({ length: count }, () => post(host, request('ping'), session)));
  return [...new Set(seen.map(({ status }) => status))];
}

const is = (host, session, status) => waitFor(async () => {
  const seen = await statuses(host, session);
  return seen.length === 1 && seen[0] === status;
}, `${status} from all workers`, 30000);

/** Resolves with the next message of the stream. */
async function next(stream) {
  for await (const { data } of stream) return data;
  return null;
}

let redis, mock, postgres;
before(async () => { [redis, mock, postgres] = await Promise.all([startRedis(null), startMock(null), sharedPostgres()]); });
after(async () => { await redis?.stop(); await mock?.stop(); });

async function start(t, web, more = {}) {
  const config = { mcp: { session_secret: 'the same on both hosts', backoff: '50ms', backoff_max: '200ms', servers: [{ name: 'web', url: web.url }], ...more.mcp } };
  const hosts = await startHosts(t, { redis, mock, store_url: await postgres.newDatabase(), key_prefix: `mcp${Math.random()}:`, ...more, config });
  for (const host of hosts) await ready(host, 'web');
  return hosts;
}

describe('over both hosts', () => {
  let hosts, web;
  before(async () => {
    web = await startModern(null);
    hosts = await start(null, web);
  });
  after(async () => { for (const host of hosts ?? []) await host.stop(); await web?.stop(); });
  const each = async (verb) => { for (const [from, to] of [hosts, [...hosts].reverse()]) await verb(from, to); };

  test('any worker of any host takes any request of a session, and of several in between', async () => {
    const sessions = [await open(hosts[0]), await open(hosts[1])];
    for (let i = 0; i < 32; i++) {
      const { json } = await post(hosts[i % 2], call('web__add', { a: i, b: 1 }), sessions[(i >> 1) % 2]);
      assert.equal(json.result.content[0].text, `sum ${i + 1}`);
    }
  });

  test('DELETE at one: unknown at both, streams end at both', () => each(async (from, to) => {
    const [session, other] = [await open(from), await open(from)];
    const streams = await Promise.all([from, to, from, to].map((host) => feed(host, session)));
    assert.ok(streams.every(({ status }) => status === 200));
    const ends = streams.map(next);
    assert.equal((await end(to, session)).status, 204);
    assert.deepEqual(await Promise.all(ends), [null, null, null, null]);
    await is(from, session, 404);
    await is(to, session, 404);
    await is(from, other, 200);
  }));

  test('notifications/cancelled posted to the other host stops the call', () => each(async (from, to) => {
    const session = await open(from);
    for (let i = 0; i < 4; i++) {
      const { aborted } = web;
      const answer = post(from, call('web__slow', {}, `slow-${i}`), session);
      await waitFor(() => web.waiting.length > 0, 'the call to arrive');
      assert.equal((await say(to, 'notifications/cancelled', { requestId: `slow-${i}` }, session)).status, 202);
      assert.equal((await answer).json.error.code, -32800);
      await waitFor(() => web.aborted > aborted, 'the call to be given up');
      web.release();
    }
  }));

  test("another session's request of the same id is not stopped", async () => {
    const [one, other] = [await open(hosts[0]), await open(hosts[0])];
    const answer = post(hosts[0], call('web__slow', {}, 7), one);
    await waitFor(() => web.waiting.length > 0, 'the call to arrive');
    await say(hosts[1], 'notifications/cancelled', { requestId: 7 }, other);
    await say(hosts[0], 'notifications/cancelled', { requestId: 7 }, other);
    web.release();
    assert.match((await answer).json.result.content[0].text, /at last/);
  });

  test('streams on one host, posts on the other: changed lists are told to all of both', async () => {
    const session = await open(hosts[0]);
    await waitFor(() => web.requests.filter(({ headers }) => headers['mcp-method'] === 'subscriptions/listen').length >= 8, 'listen streams');
    // Each of a session of its own: of several of one session one is told.
    const streams = await Promise.all(Array.from({ length: 12 }, async (_, i) => feed(hosts[i % 2], await open(hosts[0]))));
    const told = streams.map(next);
    assert.equal((await post(hosts[1], call('web__add', { a: 1, b: 1 }), session)).status, 200);
    web.addTool('later');
    for (const message of await Promise.all(told)) assert.equal(message.method, 'notifications/tools/list_changed');
    for (const host of hosts) {
      const { json } = await post(host, request('tools/list'), session);
      assert.ok(json.result.tools.some(({ name }) => name === 'web__later'));
    }
    for (const stream of streams) stream.close();
  });

  test('a host is gone: the other goes on with its sessions', async (t) => {
    const [a] = await start(t, web, { count: 1 });
    const session = await open(a);
    await a.stop();
    for (let i = 0; i < 8; i++) assert.equal((await post(hosts[1], call('web__add', { a: 1, b: i }), session)).json.result.content[0].text, `sum ${i + 1}`);
  });
});

test('what a server asks of a client is answered at either host, and only by its own session', async (t) => {
  const old = await startSessions(null, { asks: true });
  const hosts = await start(t, old);
  t.after(() => old.stop());
  const session = await open(hosts[0], { elicitation: {}, sampling: {} }), other = await open(hosts[0], { elicitation: {} });
  for (const [from, to] of [hosts, [...hosts].reverse()]) {
    for (let i = 0; i < 4; i++) {
      const stream = await from.stream('/mcp', { key: keys.server, body: call('web__ask_user', {}, i), headers: headersOf(session) });
      const messages = stream[Symbol.asyncIterator]();
      const { value: { data: question } } = await messages.next();
      assert.equal(question.method, 'elicitation/create');
      const answer = (name) => ({ jsonrpc: '2.0', id: question.id, result: { action: 'accept', content: { name } } });
      for (const host of hosts) assert.equal((await post(host, answer('mallory'), other)).status, 202);
      assert.equal((await post(to, answer(`n${i}`), session)).status, 202);
      const { value: { data } } = await messages.next();
      assert.deepEqual(JSON.parse(data.result.content[0].text), { action: 'accept', content: { name: `n${i}` } });
    }
  }
});

test('Redis is away: it is said, each host goes on, and what has ended meanwhile has when it is back', async (t) => {
  const web = await startSessions(null);
  const cutters = [await startCutter(t, { port: redis.port }), await startCutter(t, { port: redis.port })];
  const hosts = await start(t, web, { cutters });
  t.after(() => web.stop());
  const session = await open(hosts[0]);
  for (const host of hosts) host.expectLog(/backplane degraded|stats /);
  // Who is back first asks those that are not, or is told by them.
  for (const order of [[0, 1], [1, 0]]) {
    const ended = await open(hosts[0]);
    for (const cutter of cutters) { cutter.refuse(); cutter.cut(); }
    await Promise.all(hosts.map((host) => isAlone(host, 30000)));
    for (const host of hosts) {
      for (let i = 0; i < 8; i++) assert.equal((await post(host, call('web__add', { a: 1, b: i }), session)).json.result.content[0].text, `sum ${i + 1}`);
      assert.equal((await open(host)).length, session.length);
    }
    assert.equal((await end(hosts[0], ended)).status, 204);
    await is(hosts[0], ended, 404);
    await is(hosts[1], ended, 200);
    for (const at of order) {
      cutters[at].open();
      await isUp(hosts[at]);
    }
    await is(hosts[1], ended, 404);
    await is(hosts[1], session, 200);
  }
});

test('without a session_secret a session is known on its own host alone', async (t) => {
  const web = await startModern(null);
  const hosts = await start(t, web, { mcp: { session_secret: undefined, servers: [{ name: 'web', url: web.url }] } });
  t.after(() => web.stop());
  const session = await open(hosts[0]);
  assert.deepEqual(await statuses(hosts[0], session), [200]);
  assert.deepEqual(await statuses(hosts[1], session), [404]);
  assert.match(hosts[1].output(), /INFO +mcp sessions are of this host alone option=mcp\.session_secret/);
});
