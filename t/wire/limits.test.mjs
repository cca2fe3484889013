// Limits and pressure: what a client may take of the server, alone and together with others, and what it is told.
import assert from 'node:assert/strict';
import net from 'node:net';
import tls from 'node:tls';
import { after, before, test } from 'node:test';
import { keys, newSession, startMock, startServer } from './lib/server.mjs';
import { parseMetrics, sumOf } from './lib/metrics.mjs';
import { startTls } from './lib/tls.mjs';
import { waitFor, within } from './lib/wait.mjs';
import { openChat, refused } from './lib/ws.mjs';

let server, mock;
before(async () => {
  mock = await startMock(null);
  server = await startServer(null, { mock, config: { http: { max_keepalive_requests: 5 } } });
});
after(async () => {
  await server?.stop();
  await mock?.stop();
});

const metrics = async (from = server) => parseMetrics((await from.request('/metrics')).text);
const rejected = async (reason, from = server) => sumOf(await metrics(from), 'parley_connections_rejected_total', { reason });

/** Resolves when the server has closed or reset this socket: what came before as text, and how it ended. */
function ended(socket) {
  let text = '';
  socket.on('data', (part) => { text += part.toString('latin1'); });
  return new Promise((resolve) => {
    let error = null;
    socket.on('error', (e) => { error = e; });
    socket.on('close', () => resolve({ text, error }));
  });
}

function connect(port = server.port, options = {}) {
  const socket = net.connect({ port, host: '127.0.0.1', noDelay: true, ...options });
  socket.ended = ended(socket);
  return socket;
}

const count = (text, what) => text.split(what).length - 1;

test('pipelined requests beyond max_keepalive_requests: those before are answered whole, and nothing is reset', async () => {
  const flood = Buffer.from('GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n'.repeat(5000));
  for (let i = 0; i < 8; i++) {
    const socket = connect();
    socket.write(flood);
    const { text, error } = await within(socket.ended, 'end');
    assert.equal(error, null, `${error} after ${text.length} bytes`);
    assert.equal(count(text, 'HTTP/1.1 200 OK'), 5);
    assert.ok(text.endsWith('}') && /Connection: close/i.test(text), text.slice(-300));
  }
});

test('garbage behind a request that ends the connection does not take its answer away', async () => {
  const request = 'GET /nothing HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n';
  for (let i = 0; i < 8; i++) {
    const socket = connect();
    socket.write(Buffer.concat([Buffer.from(request), Buffer.alloc(200000, 'x')]));
    const { text, error } = await within(socket.ended, 'end');
    assert.equal(error, null, `${error} after ${JSON.stringify(text.slice(0, 100))}`);
    assert.match(text, /^HTTP\/1.1 404 /);
  }
});

/** A turn that stays live, and its id. */
async function quietTurn(on_disconnect) {
  const { id } = await newSession(server);
  const stream = await server.stream(`/v1/sessions/${id}/turns`, { key: keys.client, body: { input: '[[mock fault=silence]]', stream: true, on_disconnect } });
  assert.equal(stream.status, 200, stream.text);
  return { id, turn: stream.headers['x-parley-turn'], stream };
}

const holding = async () => sumOf(await metrics(), 'parley_connections');

test('a long poll whose client leaves gives its place back at once, whoever owns the turn', async () => {
  const { id, turn, stream } = await quietTurn();
  await waitFor(async () => (await holding()) === 1, 'the stream to be counted');
  const head = (route) => `GET ${route} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${keys.client}\r\n\r\n`;
  const polls = Array.from({ length: 12 }, () => connect());
  for (const socket of polls) socket.write(head(`/v1/sessions/${id}/turns/${turn}?wait=30`));
  await waitFor(async () => (await holding()) === 13, 'the polls to be counted');
  for (const socket of polls) socket.destroy();
  await waitFor(async () => (await holding()) === 1, 'the places to be given back', 3000);
  stream.close();
  assert.equal((await server.request(`/v1/sessions/${id}/turns/${turn}/cancel`, { key: keys.client, method: 'POST' })).status, 200);
});

test('who waits for a task and leaves gives the place back', async () => {
  const { status, json } = await server.request('/v1/tasks', { key: keys.server, body: { type: 'chat.completion', input: { messages: [{ role: 'user', content: '[[mock fault=silence]]' }] } } });
  assert.equal(status, 202);
  await waitFor(async () => (await holding()) === 0, 'no place to be held');
  const routes = [`/v1/tasks/${json.id}?wait=60`, `/v1/tasks/${json.id}/poll?timeout=600`];
  const polls = Array.from({ length: 12 }, () => connect());
  for (const [i, socket] of polls.entries()) socket.write(`GET ${routes[i % 2]} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${keys.server}\r\n\r\n`);
  await waitFor(async () => (await holding()) === 12, 'the polls to be counted', 30000);
  for (const socket of polls) socket.destroy();
  await waitFor(async () => (await holding()) === 0, 'the places to be given back', 30000);
  assert.equal((await server.request(`/v1/tasks/${json.id}/cancel`, { key: keys.server, method: 'POST' })).status, 200);
});

test('a turn that is not streamed, or waits for its turn, gives its place back when its client leaves', async () => {
  const { id, turn, stream } = await quietTurn('continue');
  await waitFor(async () => (await holding()) === 1, 'the stream to be counted');
  const post = (session, body) => {
    const text = JSON.stringify(body);
    const socket = connect();
    socket.write(`POST /v1/sessions/${session}/turns HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${keys.client}\r\nContent-Type: application/json\r\nContent-Length: ${text.length}\r\n\r\n${text}`);
    return socket;
  };
  const other = await newSession(server);
  const posts = [post(id, { input: 'hello', stream: false, queue: true }), post(id, { input: 'hello', stream: true, queue: true }),
    post(other.id, { input: '[[mock fault=silence]]', stream: false })];
  await waitFor(async () => (await holding()) === 4, 'the turns to be counted');
  for (const socket of posts) socket.destroy();
  await waitFor(async () => (await holding()) === 1, 'the places to be given back', 3000);
  stream.close();
  for (const session of [id, other.id]) await server.request(`/v1/sessions/${session}`, { method: 'DELETE', key: keys.server });
  assert.ok(turn);
});

/** A connection from this loopback address whose first answer is awaited: {socket, status}; status null: closed without one. */
async function asked(port, { from = '127.0.0.1', prefix = '', route = '/v1/sessions', keep = true } = {}) {
  const socket = connect(port, { localAddress: from });
  let text = '';
  socket.on('data', (part) => { text += part.toString('latin1'); });
  socket.write(`${prefix}GET ${route} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${keys.server}\r\n\r\n`);
  await Promise.race([socket.ended, waitFor(() => /\r\n\r\n/.test(text), 'answer')]);
  if (!keep) socket.destroy();
  return { socket, text, status: text === '' ? null : Number(text.split(' ')[1]) };
}

async function closeAll(list) {
  for (const { socket } of list) socket.destroy();
  await Promise.all(list.map(({ socket }) => socket.ended));
}

test('open connections per address: exact over all workers, told by 429, and others are let in', async (t) => {
  const own = await startServer(t, { mock, config: { http: { keepalive_timeout: '5m' }, limits: { address_connections: 20 } } });
  own.expectLog(/connection refused reason=address client=127.0.0.2/);
  const open = await Promise.all(Array.from({ length: 60 }, () => asked(own.port, { from: '127.0.0.2' })));
  const let_in = open.filter(({ status }) => status === 200);
  const told = open.filter(({ status }) => status === 429);
  assert.equal(let_in.length + told.length, 60, open.map(({ status }) => status).join(' '));
  // Of several at the same instant at the edge more may be refused.
  assert.ok(let_in.length <= 20 && let_in.length >= 16, `${let_in.length}`);
  assert.match(told[0].text, /\r\nretry-after: \d+\r\n/i);
  assert.match(told[0].text, /"code":"rate_limited"/);
  await Promise.all(told.map(({ socket }) => within(socket.ended, 'end')));
  for (let i = let_in.length; i < 20; i++) let_in.push(await asked(own.port, { from: '127.0.0.2' }));
  for (let i = 0; i < 8; i++) {
    assert.equal((await asked(own.port, { from: '127.0.0.2', keep: false })).status, 429);
    assert.equal((await asked(own.port, { from: '127.0.0.2', route: '/health', keep: false })).status, 200);
    assert.equal((await asked(own.port, { from: '127.0.0.3', keep: false })).status, 200);
  }
  assert.ok(await rejected('address', own) >= 48);
  await closeAll(let_in.splice(0, 10));
  await waitFor(async () => (await asked(own.port, { from: '127.0.0.2', keep: false })).status === 200, 'room');
  // A worker's death gives back what it had.
  own.killWorker(1);
  await waitFor(async () => {
    const again = await asked(own.port, { from: '127.0.0.2' }).catch(() => ({ status: 0 }));
    if (again.status === 200) let_in.push(again);
    return let_in.filter(({ socket }) => !socket.destroyed).length >= 18;
  }, 'the room of the dead');
  await closeAll(let_in);
});

test('open connections per address: what a trusted proxy names is limited, the proxy never is', async (t) => {
  const own = await startServer(t, { mock, config: { http: { keepalive_timeout: '5m' }, trusted_proxies: ['127.0.0.1'], limits: { address_connections: 3, connection_rate: 1000 } } });
  own.expectLog(/connection refused reason=address client=(192.0.2.1|2001:db8::)/);
  const plain = [];
  for (let i = 0; i < 12; i++) plain.push(await asked(own.port));
  assert.deepEqual(plain.map(({ status }) => status), Array(12).fill(200));
  for (const client of [(i) => `TCP4 192.0.2.1 127.0.0.1 ${5000 + i} 80`, (i) => `TCP6 2001:db8::${i + 1} ::1 ${5000 + i} 80`]) {
    const named = [];
    for (let i = 0; i < 5; i++) named.push(await asked(own.port, { prefix: `PROXY ${client(i)}\r\n` }));
    assert.deepEqual(named.map(({ status }) => status), [200, 200, 200, 429, 429]);
  }
  assert.equal((await asked(own.port, { prefix: 'PROXY TCP6 2001:db8:0:1::1 ::1 5 80\r\n' })).status, 200);
});

test('new connections per address', async (t) => {
  const own = await startServer(t, { mock, config: { limits: { connection_rate: 10, connection_window: '5s' } } });
  own.expectLog(/connection refused reason=rate client=127.0.0.2/);
  const statuses = [];
  for (let i = 0; i < 15; i++) statuses.push((await asked(own.port, { from: '127.0.0.2', keep: false })).status);
  assert.deepEqual(statuses, [...Array(10).fill(200), ...Array(5).fill(429)]);
  assert.equal((await asked(own.port, { from: '127.0.0.3', keep: false })).status, 200);
  await waitFor(async () => (await asked(own.port, { from: '127.0.0.2', keep: false })).status === 200, 'the window to pass');
  assert.ok(await rejected('rate', own) >= 5);
});

test('handshakes per address: TLS is closed before it, a WebSocket is told 429 before the upgrade', async (t) => {
  const { secure, port } = await startTls(t, {}, { mock, config: { workers: 4, limits: { handshake_rate: 6, connection_window: '60s' } } });
  secure.expectLog(/connection refused reason=handshake client=127.0.0.2/);
  const shake = () => within(new Promise((resolve) => {
    const socket = tls.connect({ port, host: '127.0.0.1', localAddress: '127.0.0.2', rejectUnauthorized: false }, () => {
      resolve('open');
      socket.destroy();
    });
    socket.on('error', ({ code }) => resolve(code));
  }), 'handshake');
  const seen = [];
  for (let i = 0; i < 9; i++) seen.push(await shake());
  assert.deepEqual(seen.slice(0, 6), Array(6).fill('open'));
  for (const code of seen.slice(6)) assert.match(code, /ECONNRESET|EPIPE|EPROTO/);
  const sockets = [];
  for (let i = 0; i < 6; i++) sockets.push(await openChat(t, secure, { localAddress: '127.0.0.2' }));
  const { status, headers } = await refused(secure, { localAddress: '127.0.0.2' });
  assert.equal(status, 429);
  assert.ok(Number(headers['retry-after']) >= 1);
  await openChat(t, secure, { localAddress: '127.0.0.3' });
  assert.equal(await rejected('handshake', secure), 4);
  for (const chat of sockets) await chat.close();
});

test('a WebSocket counts as an open connection of its address until it is closed', async (t) => {
  const own = await startServer(t, { mock, config: { limits: { address_connections: 2 } } });
  own.expectLog(/connection refused reason=address client=127.0.0.2/);
  const chats = [await openChat(t, own, { localAddress: '127.0.0.2' }), await openChat(t, own, { localAddress: '127.0.0.2' })];
  assert.equal((await refused(own, { localAddress: '127.0.0.2' })).status, 429);
  await chats[0].close();
  await waitFor(async () => (await asked(own.port, { from: '127.0.0.2', keep: false })).status === 200, 'room');
  chats[1].cut();
  await waitFor(async () => {
    const two = [await asked(own.port, { from: '127.0.0.2' }), await asked(own.port, { from: '127.0.0.2' })];
    await closeAll(two);
    return two.every(({ status }) => status === 200);
  }, 'room for two');
});
