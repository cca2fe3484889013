// /ws/chat under a client that means no good, or does not know better: the socket stays, the worker too, and no secret is logged.
import assert from 'node:assert/strict';
import http2 from 'node:http2';
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import tls from 'node:tls';
import { test } from 'node:test';
import { keys, newSession, startServer } from './lib/server.mjs';
import { holders } from './lib/sockets.mjs';
import { waitFor, within } from './lib/wait.mjs';
import { openChat, refused } from './lib/ws.mjs';

let seed = Number(process.env.HOSTILE_SEED ?? Date.now() % 1e9);
/** An integer from 0 to n-1. */
function random(n) {
  seed = (Math.imul(seed, 1103515245) + 12345) >>> 0;
  return Math.floor((seed / 2 ** 32) * n);
}
const one_of = (...values) => values[random(values.length)];

/** Any value at all, some of which mean something. */
function anything(own, depth = 0) {
  return one_of(() => null, () => random(2) === 1, () => random(1e9) - 5e8, () => -1, () => 1e308, () => '', () => 'x'.repeat(random(300)), () => '\u0000\ud83d\ude00',
    () => own.session, () => own.turn, () => 'call_01234567890123456789abcdef', () => [], () => ({}),
    () => (depth > 3 ? 0 : Array.from({ length: random(4) }, () => anything(own, depth + 1))),
    () => (depth > 3 ? 0 : { [one_of('text', 'session_id', 'a')]: anything(own, depth + 1) }))();
}

function message(own) {
  const payload = {};
  const names = ['text', 'streaming', 'session_id', 'model', 'idempotency_key', 'metadata', 'tools', 'queue', 'on_disconnect', 'turn_id', 'after', 'tool_call_id', 'output', 'error'];
  for (let i = random(6); i > 0; i--) payload[one_of(...names)] = anything(own);
  const whole = { action: one_of('chat', 'tool_result', 'cancel', 'join', 'resume', 'ping', anything(own)), request_id: one_of('r', anything(own)), payload: one_of(payload, payload, payload, anything(own)) };
  const text = JSON.stringify(whole);
  return one_of(text, text, text, text.slice(0, random(text.length)), `${text}${text}`, '['.repeat(3000), `{"action":"ping","action":"chat"}`);
}

test('two thousand messages of any shape: each frame is one of ours, the sockets stay, the workers live', async (t) => {
  t.diagnostic(`HOSTILE_SEED=${seed}`);
  const server = await startServer(t);
  const pids = server.workers();
  const own = { session: (await newSession(server)).id, turn: 'turn_01234567890123456789abcdef' };
  const chats = [];
  for (let i = 0; i < 4; i++) chats.push(await openChat(t, server, { key: i % 2 ? keys.server : keys.client }));
  for (let round = 0; round < 20; round++) {
    for (const chat of chats) {
      for (let i = 0; i < 25; i++) chat.send(message(own));
      chat.send({ action: 'ping', request_id: `alive-${round}` });
    }
    for (const chat of chats) {
      // With too many in progress a ping, too, may be refused: it is asked again.
      await waitFor(() => {
        const { chunk } = chat.frames.findLast(({ request_id }) => request_id === `alive-${round}`) ?? {};
        if (chunk?.code === 'busy') chat.send({ action: 'ping', request_id: `alive-${round}` });
        return chat.frames.some(({ request_id, status }) => request_id === `alive-${round}` && status === 'pong');
      }, 'pong', 20000);
      assert.equal(chat.closed, null);
      own.turn = chat.frames.findLast(({ turn_id }) => turn_id)?.turn_id ?? own.turn;
    }
  }
  for (const frame of chats.flatMap(({ frames }) => frames)) {
    assert.ok(['processing', 'chunk', 'tool_call', 'restarted', 'complete', 'error', 'pong', 'joined'].includes(frame.status), JSON.stringify(frame));
    // Of a message, or of a turn that the socket follows.
    if (frame.status === 'error') assert.ok(typeof frame.chunk.code === 'string' && typeof frame.chunk.error === 'string' && typeof (frame.request_id ?? frame.turn_id) === 'string', JSON.stringify(frame));
    assert.notEqual(frame.chunk?.code, 'internal_error', JSON.stringify(frame));
  }
  assert.deepEqual(server.workers(), pids);
});

test('a turn that could not be followed, because its owner hung, is told to who joins again', async (t) => {
  const server = await startServer(t, { config: { watchdog: { silence: '60s' }, workers: 2 } });
  // The kernel's list of sockets is not one moment: while many come and go one may be missing in it.
  const where = (chat) => waitFor(() => holders(server.port, server.workers()).get(chat.local_port), 'the holder of a socket');
  const owner = await openChat(t, server);
  const request = owner.chat('[[mock tokens=2000 interval=20]]');
  await owner.frame({ request_id: request, status: 'chunk' });
  const { turn_id, chunk: { metadata: { session_id } } } = owner.frames[0];
  let other = await openChat(t, server);
  const pid = await where(owner);
  while (await where(other) === pid) other = await openChat(t, server);
  process.kill(pid, 'SIGSTOP');
  try {
    other.send({ action: 'join', request_id: 'j1', payload: { session_id } });
    const failed = await other.frame((frame) => frame.status === 'error' && frame.seq === undefined, 'refusal', 20000);
    assert.equal(failed.chunk.code, 'owner_unavailable');
    assert.equal(failed.turn_id, turn_id);
  } finally {
    process.kill(pid, 'SIGCONT');
  }
  other.send({ action: 'join', request_id: 'j2', payload: { session_id } });
  const first = await other.frame((frame) => frame.turn_id === turn_id && frame.seq !== undefined, 'the turn', 20000);
  assert.equal(first.seq, 1);
  other.send({ action: 'cancel', payload: { turn_id } });
  await other.turn(turn_id);
});

test('no key is logged, however it comes and whatever becomes of it', async (t) => {
  const server = await startServer(t, { mock: false, config: { workers: 1, max_connections: 1, log: { level: 'debug', access: true }, cors: { allow_origins: ['https://app.example'] } } });
  server.expectLog(/connection refused reason=capacity/);
  const wrong = 'pc_nobody_has_this_key_0123456789', bad = { headers: { origin: 'https://evil.example' } };
  const ways = (key) => [{ key }, { key: null, headers: { 'x-api-key': key } }, { key: null, query: `?access_token=${key}` }, { key: null, query: `?a=1&access_token=${key}&b=2` },
    { key: null, query: `?access%5ftoken=${key}` }, { key: null, query: `?Access_Token=${key}` }, { key: null, protocols: ['parley', `bearer.${key}`] }];
  const with_headers = (way) => ({ ...way, ...bad, headers: { ...way.headers, ...bad.headers } });
  for (const way of ways(wrong)) await refused(server, way);
  for (const way of ways(keys.client)) await refused(server, with_headers(way)).catch(() => {});
  for (const way of [0, 2, 6].map((i) => ways(keys.client)[i])) {
    const chat = await openChat(t, server, way);
    assert.ok([undefined, '', 'parley'].includes(chat.ws.protocol));
    assert.deepEqual(await (await openChat(t, server, way)).end(), { code: 1013, reason: 'Server at maximum capacity' });
    await chat.close();
    await waitFor(async () => (await server.request('/health')).json.connections.active === 0, 'a free place');
  }
  for (const query of [`?access_token=${keys.client}`, `?access_token=${wrong}`]) await server.request(`/ws/chat${query}`);
  await server.line(/ACCESS .* path=\/ws\/chat status=426 /);
  for (const secret of [keys.client, wrong, keys.client.slice(3, 20), wrong.slice(3, 20)]) assert.ok(!server.output().includes(secret), server.lines.find((line) => line.includes(secret)));
});

test('over HTTP/2 it is no opening: 426, and the connection goes on', async (t) => {
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'parley-h2-'));
  t.after(() => fs.rmSync(dir, { recursive: true, force: true }));
  const [certificate, key] = ['s.crt', 's.key'].map((name) => path.join(dir, name));
  execFileSync('openssl', ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '2', '-subj', '/CN=localhost', '-keyout', key, '-out', certificate], { stdio: 'pipe' });
  const server = await startServer(t, { mock: false, config: { workers: 1, tls: { certificate, key, listen: ['127.0.0.1:0'], http2: true } } });
  const url = `https://${(await server.line(/listening address=(\S+) kind=(?:https|tls)/))[1]}`;
  const client = http2.connect(url, { rejectUnauthorized: false });
  t.after(() => client.destroy());
  const ask = (headers) => within(new Promise((resolve, reject) => {
    const stream = client.request({ ':path': '/ws/chat', authorization: `Bearer ${keys.client}`, ...headers });
    stream.on('response', (answer) => { stream.resume(); resolve(answer[':status']); }).on('error', reject);
  }), 'answer');
  assert.equal(await ask({ 'sec-websocket-version': '13', 'sec-websocket-key': 'dGhlIHNhbXBsZSBub25jZQ==' }), 426);
  assert.equal(await ask({ ':path': '/health/live' }), 200);

  // With the headers that HTTP/2 forbids: refused in whatever way, and the worker lives.
  const literal = (name, value) => Buffer.concat([Buffer.from([0, name.length]), Buffer.from(name), Buffer.from([value.length]), Buffer.from(value)]);
  const frame = (type, flags, stream, bytes) => Buffer.concat([Buffer.from([0, bytes.length >> 8, bytes.length & 255, type, flags, 0, 0, 0, stream]), bytes]);
  for (const forbidden of [[['upgrade', 'websocket'], ['connection', 'Upgrade']], [['upgrade', 'websocket']], [['connection', 'Upgrade']]]) {
    const block = Buffer.concat([Buffer.from([0x82, 0x87, 0x04, 8]), Buffer.from('/ws/chat'), literal(':authority', 'x'), literal('x-api-key', keys.client),
      literal('sec-websocket-version', '13'), literal('sec-websocket-key', 'dGhlIHNhbXBsZSBub25jZQ=='), ...forbidden.map(([name, value]) => literal(name, value))]);
    const socket = tls.connect({ host: '127.0.0.1', port: Number(new URL(url).port), ALPNProtocols: ['h2'], rejectUnauthorized: false });
    t.after(() => socket.destroy());
    let got = 0;
    socket.on('data', (part) => { got += part.length; }).on('error', () => {});
    await within(new Promise((resolve) => { socket.on('secureConnect', resolve); }), 'TLS');
    socket.write(Buffer.concat([Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'), frame(4, 0, 0, Buffer.alloc(0)), frame(1, 5, 1, block), frame(6, 0, 0, Buffer.alloc(8))]));
    await waitFor(() => got > 60 || socket.closed, 'an answer');
    assert.equal(await ask({ ':path': '/health/live' }), 200);
  }
});
