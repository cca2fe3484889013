// HTTP/2 under pressure: floods of any frame end their connection and nobody else's, what hangs is ended, the rest goes on.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { keys, startMock } from './lib/server.mjs';
import { request } from './lib/http.mjs';
import { startTls } from './lib/tls.mjs';
import { parseMetrics, sumOf } from './lib/metrics.mjs';
import { waitFor } from './lib/wait.mjs';
import {
  ACK, block, CONTINUATION, DATA, END_HEADERS, END_STREAM, frame, get, HEADERS, openH2, PING, post, PRIORITY, RST_STREAM, SETTINGS, setting, u32,
  WINDOW_UPDATE,
} from './lib/h2.mjs';

let mock, secure, port, url, ca;
before(async () => {
  mock = await startMock(null);
  const http = { body_timeout: '600ms', send_timeout: '1s', header_timeout: '2s' };
  const http2 = { max_control_frames: 500, max_concurrent_streams: 4 };
  ({ secure, port, url, ca } = await startTls(null, { http2: true }, { mock, config: { workers: 4, http, http2 } }));
});
after(async () => {
  await secure?.stop();
  await mock?.stop();
});

const metrics = async () => parseMetrics((await secure.request('/metrics')).text);
const rejected = async (reason) => sumOf(await metrics(), 'parley_connections_rejected_total', { reason });
const places = async () => sumOf(await metrics(), 'parley_connections');
const fine = async () => assert.equal((await request(`${url}/health/live`, { ca: ca(), limit_ms: 2000 })).status, 200);

async function newSession() {
  const { json, text } = await request(`${url}/v1/sessions`, { ca: ca(), key: keys.client, body: {} });
  assert.ok(json.id, text);
  return json.id;
}

/** An opened stream of a live, quiet turn on stream 1 of this connection. */
async function quietTurn(h2) {
  const session = await newSession();
  h2.send(post(1, `/v1/sessions/${session}/turns`, keys.client, { input: '[[mock fault=silence]]', stream: true }));
  await h2.frame(HEADERS, 1);
  return session;
}

const many = (n, make) => Buffer.concat(Array.from({ length: n }, (_, i) => make(i)));
const floods = {
  PING: () => many(5000, () => frame(PING, 0, 0, Buffer.alloc(8))),
  'PING answers': () => many(5000, () => frame(PING, ACK, 0, Buffer.alloc(8))),
  SETTINGS: () => many(5000, () => frame(SETTINGS, 0, 0, setting(4, 65535))),
  'empty SETTINGS': () => many(5000, () => frame(SETTINGS, 0, 0)),
  PRIORITY: () => many(5000, () => frame(PRIORITY, 0, 3, Buffer.concat([u32(1), Buffer.from([5])]))),
  WINDOW_UPDATE: () => many(5000, () => frame(WINDOW_UPDATE, 0, 0, u32(1))),
  'RST_STREAM of what has ended': () => Buffer.concat([get(3, '/health/live'), many(5000, () => frame(RST_STREAM, 0, 3, u32(8)))]),
  'empty DATA': () => Buffer.concat([frame(HEADERS, END_HEADERS, 3, block('/v1/sessions', { method: 'POST' })), many(5000, () => frame(DATA, 0, 3))]),
  'DATA of padding': () => Buffer.concat([frame(HEADERS, END_HEADERS, 3, block('/v1/sessions', { method: 'POST' })),
    many(5000, () => frame(DATA, 8, 3, Buffer.from([3, 0, 0, 0])))]),
  'empty CONTINUATION': () => Buffer.concat([frame(HEADERS, END_STREAM, 3, block('/health')), many(5000, () => frame(CONTINUATION, 0, 3))]),
  'unknown frames': () => many(5000, () => frame(77, 0, 0, Buffer.from('x'))),
};

test('a flood of frames ends its connection, also while a stream of it is open; others go on', async (t) => {
  secure.expectLog(/connection cut reason=flood peer=127.0.0.1 .*frames=\d+/);
  for (const [name, bytes] of Object.entries(floods)) {
    await t.test(name, async (t2) => {
      const before_it = await rejected('flood');
      const h2 = await openH2(t2, port);
      await quietTurn(h2);
      const neighbour = await openH2(t2, port);
      h2.send(bytes());
      await h2.end();
      assert.equal(await rejected('flood'), before_it + 1);
      neighbour.send(get(1, '/health/live'));
      await neighbour.frame(DATA, 1);
      await fine();
      await waitFor(async () => (await places()) === 0, 'the place of the stream');
    });
  }
});

test('a flood in many small pieces is one, too', async (t) => {
  const before_it = await rejected('flood');
  const h2 = await openH2(t, port);
  for (let i = 0; i < 2000 && !h2.is_closed; i++) {
    h2.send(frame(PING, 0, 0, Buffer.alloc(8)));
    if (i % 10 === 0) await new Promise(setImmediate);
  }
  await h2.end();
  assert.equal(await rejected('flood'), before_it + 1);
});

test('a flood whose sender reads nothing ends as well', async (t) => {
  const h2 = await openH2(t, port);
  h2.socket.pause();
  const bytes = many(500, () => frame(PING, 0, 0, Buffer.alloc(8)));
  const before_it = await rejected('flood');
  await waitFor(async () => {
    h2.send(bytes);
    return (await rejected('flood')) === before_it + 1;
  }, 'end of the flood');
  await fine();
});

test('requests that the server is made to reset count as those that the client takes back', async (t) => {
  const before_it = await rejected('flood');
  const session = await newSession();
  const h2 = await openH2(t, port);
  // Half-closed, so its DATA is a fault of the stream: the server resets it, and a request was begun for nothing.
  for (let i = 0; i < 1000 && !h2.is_closed; i++) {
    const stream = 2 * i + 1;
    h2.send(get(stream, `/v1/sessions/${session}`, keys.client), frame(DATA, 0, stream, Buffer.from('x')));
    if (i % 50 === 49) await new Promise(setImmediate);
  }
  await h2.end();
  assert.equal(await rejected('flood'), before_it + 1);
});

test('unknown frames are ignored', async (t) => {
  const h2 = await openH2(t, port);
  for (let i = 0; i < 20; i++) h2.send(frame(10 + i, 0, i % 2, Buffer.from('whatever')));
  h2.send(get(3, '/health/live'));
  await h2.frame(DATA, 3, 5000, END_STREAM);
  assert.deepEqual(JSON.parse(h2.text(3)).status, 'ok');
});

test('who is sent much may send many window updates', async (t) => {
  const update = (one, h2) => {
    if (one.type === DATA && one.payload.length > 0) h2.send(frame(WINDOW_UPDATE, 0, 0, u32(one.payload.length)), frame(WINDOW_UPDATE, 0, one.stream, u32(one.payload.length)));
  };
  const h2 = await openH2(t, port, { on_frame: update });
  const session = await newSession();
  h2.send(post(1, `/v1/sessions/${session}/turns`, keys.client, { input: '[[mock tokens=3000 interval=1]]', stream: true }));
  await h2.frame(DATA, 1, 20000, END_STREAM);
  assert.match(h2.text(1), /event: turn.completed/);
  const updates = 2 * h2.frames.filter((one) => one.type === DATA).length;
  assert.ok(updates > 500, `only ${updates}`);
});

test('a body that does not come ends its stream, not the connection; a trickle of it changes nothing', async (t) => {
  const h2 = await openH2(t, port);
  await quietTurn(h2);
  const before_it = await rejected('timeout');
  h2.send(frame(HEADERS, END_HEADERS, 3, block('/v1/sessions', { method: 'POST', key: keys.client, headers: { 'content-type': 'application/json' } })));
  const trickle = setInterval(() => h2.send(frame(DATA, 0, 3, Buffer.from(' '))), 100);
  t.after(() => clearInterval(trickle));
  await h2.frame(RST_STREAM, 3, 5000);
  clearInterval(trickle);
  assert.equal(await rejected('timeout'), before_it + 1);
  h2.send(get(5, '/health/live'));
  await h2.frame(DATA, 5);
  assert.equal(h2.is_closed, false);
});

test('a head that does not end ends its stream', async (t) => {
  const h2 = await openH2(t, port);
  await quietTurn(h2);
  h2.send(frame(HEADERS, END_STREAM, 3, block('/health')));
  await h2.frame(RST_STREAM, 3, 5000);
});

test('a window that is never opened ends the stream and gives its place back, whatever else is acknowledged', async (t) => {
  const session = await newSession(); // the connection does not wait for it: it must not idle for body_timeout
  const h2 = await openH2(t, port, { settings: setting(4, 0) });
  h2.send(get(1, '/health'), get(3, '/health'));
  await h2.frame(HEADERS, 1);
  const pings = setInterval(() => h2.send(frame(PING, 0, 0, Buffer.alloc(8))), 50);
  t.after(() => clearInterval(pings));
  await h2.frame(RST_STREAM, 1, 8000);
  await h2.frame(RST_STREAM, 3, 8000);
  h2.send(post(5, `/v1/sessions/${session}/turns`, keys.client, { input: 'hello', stream: true }));
  await h2.frame(HEADERS, 5);
  await h2.frame(RST_STREAM, 5, 8000);
  // The next one reads.
  h2.send(get(7, '/health/live'), frame(WINDOW_UPDATE, 0, 7, u32(65535)));
  await h2.frame(DATA, 7, 5000, END_STREAM);
  await waitFor(async () => (await places()) === 0, 'the place');
});

test('requests beyond max_concurrent_streams wait; beyond the 100 that were promised they are refused', async (t) => {
  const session = await newSession();
  const other = await openH2(t, port);
  other.send(post(1, `/v1/sessions/${session}/turns`, keys.client, { input: '[[mock fault=silence]]', stream: true }));
  const [turn] = await waitFor(() => /turn_[0-9a-z]{26}/.exec(other.text(1)), 'the turn');
  const h2 = await openH2(t, port);
  h2.send(many(99, (i) => get(2 * i + 1, `/v1/sessions/${session}/turns/${turn}?wait=30`, keys.client)));
  await waitFor(async () => (await places()) === 5, 'the first four');
  h2.send(many(10, (i) => get(2 * (99 + i) + 1, '/health/live')));
  const refused = await h2.frame(RST_STREAM, 2 * 101 + 1);
  assert.equal(refused.payload.readUInt32BE(0), 7);
  assert.equal(await places(), 5);
  h2.close();
  other.close();
  await waitFor(async () => (await places()) === 0, 'the places');
});

test('a first request that is longer in coming than a head may be is taken; but not for ever', async (t) => {
  const http = { header_timeout: '1s', body_timeout: '3s' };
  const slow = await startTls(t, { http2: true }, { mock, config: { workers: 4, http } });
  const head = block('/v1/sessions', { method: 'POST', key: keys.client, headers: { 'content-type': 'application/json' } });
  const [h2, silent, endless] = [await openH2(t, slow.port), await openH2(t, slow.port), await openH2(t, slow.port)];
  h2.send(frame(HEADERS, END_HEADERS, 1, head), frame(DATA, 0, 1, Buffer.from('{')));
  endless.send(frame(HEADERS, END_HEADERS, 1, head));
  await silent.end();
  h2.send(frame(DATA, END_STREAM, 1, Buffer.from('}')));
  await h2.frame(DATA, 1, 5000, END_STREAM);
  assert.match(h2.text(1), /"id":"sess_/);
  const again = setInterval(() => endless.send(frame(HEADERS, END_HEADERS, 3, head)), 100);
  t.after(() => clearInterval(again));
  await endless.end();
});

test('an upload that begins shortly before the end of an idle time is taken whole', async (t) => {
  const http = { body_timeout: '4s' };
  const slow = await startTls(t, { http2: true }, { mock, config: { workers: 4, http } });
  const head = block('/v1/sessions', { method: 'POST', key: keys.client, headers: { 'content-type': 'application/json' } });
  const [h2, idle] = [await openH2(t, slow.port), await openH2(t, slow.port)];
  const begun = Date.now();
  for (const one of [h2, idle]) {
    one.send(get(1, '/health/live'));
    await one.frame(DATA, 1, 5000, END_STREAM);
  }
  await waitFor(() => Date.now() - begun > 2000, 'much of the idle time');
  h2.send(frame(HEADERS, END_HEADERS, 3, head), frame(DATA, 0, 3, Buffer.from('{')));
  await idle.end();
  h2.send(frame(DATA, END_STREAM, 3, Buffer.from('}')));
  await h2.frame(DATA, 3, 5000, END_STREAM);
  assert.match(h2.text(3), /"id":"sess_/);
});
