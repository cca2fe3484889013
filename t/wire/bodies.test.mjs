// Request bodies: how many bytes of them a worker and a connection hold; and the last request of an HTTP/2 connection.
import assert from 'node:assert/strict';
import net from 'node:net';
import { test } from 'node:test';
import { block, DATA, END_HEADERS, END_STREAM, frame, get, GOAWAY, HEADERS, openH2, RST_STREAM } from './lib/h2.mjs';
import { request } from './lib/http.mjs';
import { parseMetrics, sumOf } from './lib/metrics.mjs';
import { keys, newSession, startServer } from './lib/server.mjs';
import { startTls } from './lib/tls.mjs';
import { waitFor, within } from './lib/wait.mjs';

const KiB = 1024;
const limits = { max_bodies: '300KiB', max_body: '300KiB', max_body_gateway: '300KiB', body_timeout: '1m' };
const refusedBodies = async (server) => sumOf(parseMetrics((await server.request('/metrics')).text), 'parley_connections_rejected_total', { reason: 'bodies' });

/** A POST whose body is as long as `length` says; of it only so many bytes are sent: {socket, text(), ended}. */
function upload(t, port, path, length, sent) {
  const socket = net.connect(port, '127.0.0.1');
  let text = '';
  t.after(() => socket.destroy());
  socket.on('error', () => {});
  socket.on('data', (part) => { text += part; });
  const ended = new Promise((resolve) => { socket.on('close', resolve); });
  socket.write(`POST ${path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer ${keys.client}\r\ncontent-type: application/json\r\ncontent-length: ${length}\r\n\r\n`);
  socket.write(' '.repeat(sent));
  return { socket, text: () => text, ended: () => within(ended, 'the end of the upload') };
}

test('what comes in beyond http.max_bodies is refused, the newest first; what was there before goes on', async (t) => {
  const server = await startServer(t, { config: { workers: 1, http: limits } });
  const first = upload(t, server.port, '/v1/sessions', 250 * KiB, 200 * KiB);
  // Its bytes are there before the second one's.
  await waitFor(() => first.socket.bytesWritten > 200 * KiB && first.socket.writableLength === 0, 'the first to be sent');
  assert.equal((await server.request('/v1/sessions', { key: keys.client, body: {} })).status, 201);
  const second = upload(t, server.port, '/v1/sessions', 250 * KiB, 200 * KiB);
  await second.ended();
  assert.match(second.text(), /^HTTP\/1\.1 503 [^]*\r\nRetry-After: \d+\r\n[^]*"code":"server_at_capacity"/i);
  assert.equal(await refusedBodies(server), 1);
  assert.equal((await server.request('/v1/sessions', { key: keys.client, body: {} })).status, 201);
  first.socket.write(`${' '.repeat(50 * KiB - 2)}{}`);
  await waitFor(() => /^HTTP\/1\.1 201 /.test(first.text()), 'the answer of the first');
});

test('requests in progress hold their bodies: beyond them only small ones begin', async (t) => {
  const server = await startServer(t, { config: { workers: 1, http: limits } });
  const held = [];
  for (let i = 0; i < 2; i++) {
    const { id } = await newSession(server);
    const body = JSON.stringify({ input: `[[mock fault=silence]] ${'x'.repeat(160 * KiB)}`, stream: false });
    const one = upload(t, server.port, `/v1/sessions/${id}/turns`, body.length, 0);
    one.socket.write(body);
    held.push(one);
  }
  const large = () => server.request('/v1/sessions', { key: keys.client, body: { metadata: { a: 'x'.repeat(100 * KiB) } } });
  const { json } = await waitFor(async () => {
    const answer = await large();
    return answer.status === 503 && answer;
  }, 'a large body to be refused');
  assert.equal(json.error.code, 'server_at_capacity');
  assert.equal((await server.request('/v1/sessions', { key: keys.client, body: {} })).status, 201);
  for (const one of held) one.socket.destroy();
  await waitFor(async () => (await large()).status !== 503, 'room');
});

test('HTTP/2: one connection holds http2.max_bodies; what is beyond is reset and may come again, the rest goes on', async (t) => {
  const { secure, port, url, ca } = await startTls(t, { http2: true }, { config: { workers: 1, http: { max_body: '100KiB', max_body_gateway: '100KiB', body_timeout: '1m' }, http2: { max_bodies: '100KiB' } } });
  const h2 = await openH2(t, port);
  const head = (stream) => frame(HEADERS, END_HEADERS, stream, block('/v1/sessions', { method: 'POST', key: keys.client, headers: { 'content-type': 'application/json' } }));
  const part = Buffer.alloc(15 * KiB, ' ');
  // Each within the window that a connection begins with.
  h2.send(head(1), frame(DATA, 0, 1, part), frame(DATA, 0, 1, part), head(3), frame(DATA, 0, 3, part), frame(DATA, 0, 3, part));
  h2.send(head(5), frame(DATA, 0, 5, part), frame(DATA, 0, 5, part), head(7), frame(DATA, 0, 7, part));
  assert.equal((await h2.frame(RST_STREAM, 7)).payload.readUInt32BE(0), 7); // REFUSED_STREAM
  assert.equal(await refusedBodies({ request: (path) => request(url + path, { ca: ca() }) }), 1);
  h2.send(frame(DATA, END_STREAM, 3, Buffer.from('{}')));
  assert.ok((await h2.frame(HEADERS, 3)).payload.length > 0);
  await h2.frame(DATA, 3, 10000, END_STREAM);
  assert.match(h2.text(3), /"id":"sess_/);
  // There is room for as much again.
  h2.send(head(9), frame(DATA, 0, 9, part), frame(DATA, END_STREAM, 9, Buffer.from('{}')));
  await h2.frame(DATA, 9, 10000, END_STREAM);
  assert.match(h2.text(9), /"id":"sess_/);
  assert.ok(!h2.frames.some(({ type, stream }) => type === RST_STREAM && stream !== 7));
  assert.equal(secure.complaints().length, 0);
});

test('HTTP/2: after http.max_keepalive_requests a GOAWAY, and the end when nothing is in progress', async (t) => {
  const { secure, port } = await startTls(t, { http2: true }, { mock: undefined, config: { workers: 1, http: { max_keepalive_requests: 3 } } });
  const h2 = await openH2(t, port);
  const { id } = await newSession(secure);
  h2.send(get(1, '/health/live'), get(3, `/v1/sessions/${id}/turns/turn_01234567890123456789abcdef`, keys.client));
  await h2.frame(HEADERS, 3);
  assert.ok(!h2.frames.some(({ type }) => type === GOAWAY));
  h2.send(get(5, '/health/live'));
  await h2.frame(DATA, 5, 10000, END_STREAM);
  await h2.end();
  const last_ids = h2.frames.filter(({ type }) => type === GOAWAY).map(({ payload }) => [payload.readUInt32BE(0), payload.readUInt32BE(4)]);
  assert.deepEqual(last_ids, [[0x7fffffff, 0], [5, 0]]);
});

test('HTTP/2: who was told of the end has what is in progress answered, and what it had sent before it heard', async (t) => {
  const { port } = await startTls(t, { http2: true }, { config: { workers: 1, http: { max_keepalive_requests: 1, body_timeout: '1m' } } });
  const h2 = await openH2(t, port);
  const head = frame(HEADERS, END_HEADERS, 1, block('/v1/sessions', { method: 'POST', key: keys.client, headers: { 'content-type': 'application/json' } }));
  h2.send(head, get(3, '/health/live'));
  await h2.frame(GOAWAY, 0);
  h2.send(get(5, '/health/live'));
  await h2.frame(DATA, 5, 10000, END_STREAM);
  assert.equal(h2.is_closed, false);
  h2.send(frame(DATA, END_STREAM, 1, Buffer.from('{}')));
  await h2.frame(DATA, 1, 10000, END_STREAM);
  await h2.end();
  assert.match(h2.text(1), /"id":"sess_/);
});
