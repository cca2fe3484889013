// Limits and pressure: what a client may take of the server, alone and together with others, and what it is told.
import assert from 'node:assert/strict';
import net from 'node:net';
import { after, before, test } from 'node:test';
import { keys, newSession, startMock, startServer } from './lib/server.mjs';
import { parseMetrics, sumOf } from './lib/metrics.mjs';
import { waitFor, within } from './lib/wait.mjs';

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
