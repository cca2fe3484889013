// Stopping: not ready first, then nobody new, and everybody who was let in gets an answer or is told to go.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import http from 'node:http';
import http2 from 'node:http2';
import net from 'node:net';
import path from 'node:path';
import { test } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import { collect, request } from './lib/http.mjs';
import { parseMetrics, sumOf } from './lib/metrics.mjs';
import { build } from './lib/process.mjs';
import { is_last_event, keys, newSession, startServer } from './lib/server.mjs';
import { holders, unaccepted } from './lib/sockets.mjs';
import { startTls } from './lib/tls.mjs';
import { waitFor, within } from './lib/wait.mjs';
import { openChat } from './lib/ws.mjs';

const key = keys.client;

/** One connection that is kept: get(route) -> {status, headers}; `closed` resolves at its end. */
function keptConnection(port) {
  const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
  const self = { agent, local_port: 0 };
  self.get = (route, options = {}) => new Promise((resolve, reject) => {
    http.get({ port, host: '127.0.0.1', path: route, agent, ...options }, (res) => {
      self.local_port = res.socket.localPort;
      self.closed ??= new Promise((done) => { res.socket.on('close', done); });
      res.resume().on('end', () => resolve({ status: res.statusCode, headers: res.headers }));
    }).on('error', reject);
  });
  return self;
}

// Root may do what an account of a service may not.
const nobody = 65534;
const may_change = process.getuid() === 0 &&
  spawnSync('setpriv', [`--reuid=${nobody}`, `--regid=${nobody}`, '--clear-groups', 'test', '-x', path.join(build, 'parleyd')]).status === 0;

for (const [who, options] of [['as who runs the test', {}], ['as an account without capabilities', { uid: nobody }]]) {
  test(`no connection that was let in is without an answer, one per request and kept ones, ${who}`,
    { skip: options.uid && !may_change && 'not root, or the binary is out of reach' }, (t) => drainUnderLoad(t, options));
}

async function drainUnderLoad(t, options) {
  const server = await startServer(t, { ...options, config: { drain: { pause: '2s', timeout: '8s' } } });
  let is_over = false, answered = 0, refused = 0, kept_answered = 0;
  const one = async () => {
    while (!is_over) {
      try {
        const { status } = await server.request('/health/live');
        assert.equal(status, 200);
        answered++;
      } catch (e) {
        assert.match(`${e.code ?? e}`, /ECONNREFUSED/);
        refused++;
        return;
      }
    }
  };
  const kept = async () => {
    const connection = keptConnection(server.port);
    for (let asked_at = Date.now(), before; ;) {
      before = asked_at;
      asked_at = Date.now();
      try {
        const { status, headers } = await connection.get('/health/live');
        assert.equal(status, 200);
        kept_answered++;
        if (headers.connection === 'close') return;
      } catch (e) {
        // Who has said nothing for a second, as when the machine does something else, finds it closed.
        if (asked_at - before < 1000) assert.match(`${e.code ?? e}`, /ECONNREFUSED/);
        return;
      }
    }
  };
  const clients = Array.from({ length: 24 }, (_, i) => (i % 4 ? one : kept)());
  await waitFor(() => answered > 100 && kept_answered > 20, 'traffic');
  server.kill('SIGTERM');
  await server.line(/stopping pause_ms=2000/);
  assert.equal((await server.request('/health/ready')).status, 503);
  await Promise.all(clients);
  is_over = true;
  assert.equal(refused, 18, 'each found the door shut at last');
  assert.equal((await server.ended).code, 0);
}

test('what waits in the queue of a busy worker when the end begins is served', async (t) => {
  const server = await startServer(t, { config: { watchdog: { silence: '1m' }, drain: { timeout: '10s' } } });
  const pid = server.workers()[1];
  process.kill(pid, 'SIGSTOP');
  let answered = 0;
  const requests = Array.from({ length: 80 }, () => server.request('/health/live').then((answer) => { answered++; return answer; }));
  await waitFor(() => answered > 0 && answered + unaccepted(server.port) === 80, 'request on every connection');
  assert.ok(answered < 80, 'some wait for the one that is stopped');
  server.kill('SIGTERM');
  await server.line(/draining timeout_ms=/);
  process.kill(pid, 'SIGCONT');
  for (const { status } of await Promise.all(requests)) assert.equal(status, 200);
  await server.line(/listeners closed/);
  assert.equal((await server.ended).code, 0);
});

test('a Unix socket: its path goes first, and who has connected is answered', async (t) => {
  const dir = fs.mkdtempSync('/tmp/parley-drain-');
  t.after(() => fs.rmSync(dir, { recursive: true }));
  const file = path.join(dir, 's');
  const server = await startServer(t, { config: { listen: ['127.0.0.1:0', `unix:${file}`], drain: { pause: '100ms' } } });
  let answered = 0;
  const client = async () => {
    for (;;) {
      try {
        assert.equal((await server.request('/health/live', { socketPath: file })).status, 200);
        answered++;
      } catch (e) {
        assert.match(`${e.code ?? e}`, /ENOENT/);
        return;
      }
    }
  };
  const clients = Array.from({ length: 8 }, client);
  await waitFor(() => answered > 50, 'traffic');
  server.kill('SIGTERM');
  await Promise.all(clients);
  assert.equal((await server.ended).code, 0);
});

test('HTTP/2 is told by GOAWAY, and its running request ends whole', async (t) => {
  const { secure, url, ca } = await startTls(t, { http2: true }, { mock: undefined, config: { drain: { timeout: '8s' } } });
  const session = await newSession(secure);
  const client = http2.connect(url, { ca: ca() });
  t.after(() => client.destroy());
  const is_away = new Promise((resolve) => { client.on('goaway', resolve); });
  const turn = client.request({ ':method': 'POST', ':path': `/v1/sessions/${session.id}/turns`, authorization: `Bearer ${key}`, 'content-type': 'application/json' });
  let text = '';
  turn.on('data', (part) => { text += part; });
  turn.end(JSON.stringify({ input: '[[mock tokens=60 interval=20]]', stream: true }));
  const is_over = new Promise((resolve, reject) => { turn.on('end', resolve).on('error', reject); });
  await waitFor(() => text.includes('text.delta'), 'an answer that is under way');
  secure.kill('SIGTERM');
  await within(is_away, 'GOAWAY');
  await within(is_over, 'end of the stream');
  assert.match(text, /event: turn\.completed/);
  assert.equal((await secure.ended).code, 0);
});

test('idle WebSockets are closed one after the other, with a hint when to come back', async (t) => {
  const server = await startServer(t, { config: { drain: { timeout: '8s', spread: '2s', come_back: '3s' } } });
  const chats = await Promise.all(Array.from({ length: 400 }, () => openChat(t, server)));
  const closed_at = [];
  for (const chat of chats) chat.ws.on('close', () => closed_at.push(Date.now()));
  server.kill('SIGTERM');
  const hints = [];
  for (const chat of chats) {
    const { code, reason } = await chat.end();
    assert.equal(code, 1001);
    hints.push(Number(/^draining; retry_after_ms=(\d+)$/.exec(reason)[1]));
  }
  assert.ok(closed_at.at(-1) - closed_at[0] > 500, 'spread over time');
  assert.ok(Math.max(...hints) <= 3000 && new Set(hints).size > 100, 'each has its own hint');
  assert.equal((await server.ended).code, 0);
});

test('a stream that its turn outlives ends with retry:, and is followed on elsewhere', async (t) => {
  // The old worker has time for all that happens until it is asked, and the turn outlives it.
  const server = await startServer(t, { config: { workers: 2, http: { header_timeout: '1m' }, drain: { timeout: '5s', come_back: '900ms' } } });
  // The head of a request has begun: the worker waits for the rest of it, also while it drains.
  const socket = net.connect(server.port, '127.0.0.1');
  t.after(() => socket.destroy());
  socket.write('GET ');
  await waitFor(() => holders(server.port, server.workers()).has(socket.localPort), 'a worker that has it');
  server.kill('SIGHUP');
  await server.line(/reload done/);
  // A turn of a new worker, followed through an old one.
  const session = await newSession(server);
  const events = await server.stream(`/v1/sessions/${session.id}/turns`, { key, body: { input: '[[mock tokens=400 interval=20]]', stream: true } });
  const turn = (await events[Symbol.asyncIterator]().next()).value.id.split('.')[0];
  const route = `/v1/sessions/${session.id}/turns/${turn}/events`;
  socket.write(`${route} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${key}\r\n\r\n`);
  let text = '';
  socket.on('data', (part) => { text += part; });
  await within(new Promise((resolve, reject) => socket.on('end', resolve).on('error', reject)), 'end of the old stream');
  assert.match(text, /^HTTP\/1\.1 200 [^]*event: text\.delta/);
  assert.doesNotMatch(text, /turn\.completed|turn\.failed/);
  assert.ok(Number([...text.matchAll(/^retry: (\d+)$/gm)].at(-1)[1]) <= 900);
  const last_id = text.match(/^id: \S+$/gm).at(-1).slice(4);
  const rest = await collect(await server.stream(route, { key, headers: { 'last-event-id': last_id } }), is_last_event);
  assert.equal(Number(rest[0].id.split('.')[1]), Number(last_id.split('.')[1]) + 1);
  assert.equal(rest.at(-1).event, 'turn.completed');
});

/** Turns that run until they are stopped, and a long poll for each at any worker. */
async function pollLong(server, count) {
  const polls = [];
  for (let i = 0; i < count; i++) {
    const session = await newSession(server);
    const events = await server.stream(`/v1/sessions/${session.id}/turns`, { key, body: { input: '[[mock tokens=3000 interval=20]]', stream: true } });
    const turn = (await events[Symbol.asyncIterator]().next()).value.id.split('.')[0];
    polls.push(server.request(`/v1/sessions/${session.id}/turns/${turn}?wait=60`, { key, limit_ms: 40000 }));
  }
  const live = () => server.request('/metrics').then(({ text }) => sumOf(parseMetrics(text), 'parley_connections', { kind: 'http' }));
  await waitFor(async () => await live() >= count, 'polls that wait');
  return polls;
}

test('long polls are answered early: what they ask for is elsewhere soon', async (t) => {
  const server = await startServer(t, { config: { drain: { timeout: '20s', spread: '1s' } } });
  const polls = await pollLong(server, 12), began_at = Date.now();
  server.kill('SIGTERM');
  for (const { status, json, headers } of await Promise.all(polls)) {
    assert.deepEqual([status, json.state, headers.connection], [200, 'live', 'close']);
  }
  assert.ok(Date.now() - began_at < 10000, 'not at the end of the drain');
  await server.stopAtOnce(); // the turns would run on
  await server.ended;
});

test('long polls at a reload: the next one waits at a new worker', async (t) => {
  const server = await startServer(t, { config: { drain: { timeout: '20s', spread: '1s' } } });
  const polls = await pollLong(server, 8);
  server.kill('SIGHUP');
  for (const { status, json } of await Promise.all(polls)) assert.deepEqual([status, json.state], [200, 'live']);
  await server.line(/reload done/);
  server.kill('SIGTERM');
  await server.stopAtOnce();
  await server.ended;
});

/** A turn that takes so long, and the same POST again, not streamed, on a connection of its own each: all workers wait for its one owner. */
async function postAgain(server, tokens, count = 16) {
  const session = await newSession(server), route = `/v1/sessions/${session.id}/turns`;
  const body = { input: `[[mock tokens=${tokens} interval=20]]`, request_id: 'again' };
  const events = await server.stream(route, { key, body: { ...body, stream: true } });
  const turn = (await events[Symbol.asyncIterator]().next()).value.id.split('.')[0];
  let answered = 0; // already, where the turn was over sooner than they could be counted
  const posts = Array.from({ length: count }, () => server.request(route, { key, body: { ...body, stream: false }, limit_ms: 60000 })
    .then((answer) => { answered++; return answer; }));
  const live = () => server.request('/metrics').then(({ text }) => sumOf(parseMetrics(text), 'parley_connections', { kind: 'http' }));
  await waitFor(async () => await live() + answered >= count, 'posts that wait');
  return { turn, posts, route };
}

for (const [what, signal] of [['a drain', 'SIGTERM'], ['a reload', 'SIGHUP']]) {
  test(`${what}: posts that wait for a turn of another worker get its answer, whichever of the two ends first`, async (t) => {
    const server = await startServer(t, { config: { drain: { timeout: '40s' } } });
    const { turn, posts } = await postAgain(server, 150);
    server.kill(signal);
    const answers = await Promise.all(posts);
    for (const { status, json } of answers) {
      assert.deepEqual([status, json.turn_id, json.message?.content], [200, turn, answers[0].json.message.content]);
    }
    assert.ok(answers[0].json.message.content.length > 0);
    if (signal === 'SIGTERM') assert.equal((await server.ended).code, 0);
  });
}

test('posts that wait for a turn of another worker longer than the drain lasts are told, not cut', async (t) => {
  const server = await startServer(t, { config: { drain: { timeout: '1500ms' } } });
  const { posts } = await postAgain(server, 3000);
  server.kill('SIGTERM');
  for (const { status, json, headers } of await Promise.all(posts)) {
    assert.deepEqual([status, json.error?.code], [503, 'draining'], JSON.stringify(json));
    assert.ok(Number(headers['retry-after']) >= 1);
  }
  assert.equal((await server.ended).code, 0);
});

test('passed-on requests that outlive the drain are told, not cut', async (t) => {
  const server = await startServer(t, { config: { drain: { timeout: '1500ms' } } });
  const ask = (stream) => ({ key: keys.server, limit_ms: 20000, body: { model: 'default', stream, messages: [{ role: 'user', content: '[[mock tokens=3000 interval=20]]' }] } });
  const events = await server.stream('/v1/chat/completions', { ...ask(true), raw: true });
  const whole = server.request('/v1/chat/completions', ask(false));
  await waitFor(async () => sumOf(parseMetrics((await server.request('/metrics')).text), 'parley_provider_pool_in_use') === 2, 'both at the provider');
  server.kill('SIGTERM');
  const seen = [];
  for await (const { data } of events) seen.push(data);
  assert.equal(JSON.parse(seen.at(-1)).error.code, 'draining');
  const { status, json, headers } = await whole;
  assert.deepEqual([status, json.error.code], [503, 'draining']);
  assert.ok(Number(headers['retry-after']) >= 1);
  assert.equal((await server.ended).code, 0);
});

test('an administrator drains a host, nobody else does', async (t) => {
  const server = await startServer(t);
  for (const [other, status] of [[keys.client, 403], [keys.server, 403], [undefined, 401]])
    assert.equal((await server.request('/admin/v1/drain', { method: 'POST', key: other })).status, status);
  const { status, json } = await server.request('/admin/v1/drain', { method: 'POST', key: keys.admin });
  assert.equal(status, 202);
  assert.match(json.message, /draining/);
  assert.equal((await server.ended).code, 0);
});

test('a signal after a command to drain cuts nothing short, a second one does', async (t) => {
  const server = await startServer(t, { config: { drain: { timeout: '20s' } } });
  const begin = async (tokens) => {
    const session = await newSession(server);
    const events = await server.stream(`/v1/sessions/${session.id}/turns`, { key, body: { input: `[[mock tokens=${tokens} interval=20]]`, stream: true } });
    return collect(events, is_last_event, 15000);
  };
  const [short, endless] = [begin(250), begin(5000).catch((e) => e)];
  await waitFor(async () => sumOf(parseMetrics((await server.request('/metrics')).text), 'parley_turns_live') === 2, 'turns');
  await server.request('/admin/v1/drain', { method: 'POST', key: keys.admin });
  await server.line(/draining timeout_ms=20000/);
  server.kill('SIGTERM');
  assert.equal((await short).at(-1).event, 'turn.completed');
  await server.stopAtOnce();
  assert.match(server.output(), /stopping at once/);
  await endless; // told that it failed, or cut
  assert.equal((await server.ended).code, 0);
});

test('a client that connects and says nothing does not hold the end up', async (t) => {
  const server = await startServer(t, { config: { drain: { timeout: '20s' } } });
  const silent = net.connect(server.port, '127.0.0.1');
  t.after(() => silent.destroy());
  await new Promise((resolve) => silent.once('connect', resolve));
  const began_at = Date.now();
  await pause(0);
  server.kill('SIGTERM');
  await within(new Promise((resolve) => silent.resume().on('close', resolve)), 'end of the silent connection');
  assert.equal((await server.ended).code, 0);
  assert.ok(Date.now() - began_at < 10000);
});
