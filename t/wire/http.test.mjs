// What the HTTP server promises before any route is asked: the parser's refusals, connections, CORS, ids, TLS, proxies.
import assert from 'node:assert/strict';
import fs from 'node:fs';
import http from 'node:http';
import http2 from 'node:http2';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import tls from 'node:tls';
import { after, before, test } from 'node:test';
import { keys, newSession, startServer } from './lib/server.mjs';
import { raw, request } from './lib/http.mjs';
import { frame, get, RST_STREAM, u32 } from './lib/h2.mjs';
import { certificate, startTls } from './lib/tls.mjs';
import { parseMetrics, sumOf } from './lib/metrics.mjs';
import { waitFor, within } from './lib/wait.mjs';

let server;
before(async () => {
  server = await startServer(null, {
    config: { http: { header_timeout: '1500ms', body_timeout: '1500ms', keepalive_timeout: '1s', max_keepalive_requests: 5 } },
  });
});
after(() => server?.stop());

/** The status, headers (lower case) and body of the one answer in this text. */
function parse(text) {
  const end = text.indexOf('\r\n\r\n');
  assert.notEqual(end, -1, `no answer in ${JSON.stringify(text)}`);
  const [first, ...lines] = text.slice(0, end).split('\r\n');
  const headers = Object.fromEntries(lines.map((line) => [line.slice(0, line.indexOf(':')).toLowerCase(), line.slice(line.indexOf(':') + 1).trim()]));
  return { status: Number(first.split(' ')[1]), headers, body: text.slice(end + 4) };
}

/** Refused with this status in the API's shape, and the connection closed. */
function isRefusal(text, status) {
  const answer = parse(text);
  assert.equal(answer.status, status, text.slice(0, 400));
  assert.match(answer.headers['content-type'], /^application\/json/);
  assert.equal(answer.headers.connection, 'close');
  const { error, request_id } = JSON.parse(answer.body);
  assert.equal(typeof error.message, 'string');
  assert.equal(typeof error.type, 'string');
  assert.equal(typeof error.code, 'string');
  assert.equal(error.param, null);
  assert.equal(request_id, answer.headers['x-request-id']);
}

const refused = {
  'duplicate Content-Length': ['POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab', 400],
  'Content-Length with Transfer-Encoding': ['POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n', 400],
  'bare LF': ['GET / HTTP/1.1\nHost: x\n\n', 400],
  'no Host': ['GET /health HTTP/1.1\r\n\r\n', 400],
  'two Hosts': ['GET /health HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n', 400],
  'a folded header': ['GET /health HTTP/1.1\r\nHost: x\r\nA: b\r\n c\r\n\r\n', 400],
  'whitespace before the colon': ['GET /health HTTP/1.1\r\nHost : x\r\n\r\n', 400],
  'a control byte in a value': ['GET /health HTTP/1.1\r\nHost: x\r\nA: \x01\r\n\r\n', 400],
  'a NUL in the path': ['GET /\0 HTTP/1.1\r\nHost: x\r\n\r\n', 400],
  'another version': ['GET / HTTP/3.0\r\nHost: x\r\n\r\n', 400],
  'the HTTP/2 preface without TLS': ['PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n', 400],
  'a TLS hello on a plain port': ['\x16\x03\x01\x02\0\x01', 400],
  'an unknown transfer coding': ['POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n', 400],
  'an unknown expectation': ['POST / HTTP/1.1\r\nHost: x\r\nExpect: tea\r\nContent-Length: 1\r\n\r\n', 400],
  'a malformed chunk': ['POST /v1/sessions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\nhello\r\n0\r\n\r\n', 400],
  'a request line of 9 KiB': [`GET /${'a'.repeat(9000)} HTTP/1.1\r\nHost: x\r\n\r\n`, 414],
  'a request line without an end': [`GET /${'a'.repeat(9000)}`, 414],
  'headers of 33 KiB': [`GET / HTTP/1.1\r\nHost: x\r\nA: ${'a'.repeat(33000)}\r\n\r\n`, 431],
  '101 headers': [`GET / HTTP/1.1\r\nHost: x\r\n${'A: b\r\n'.repeat(100)}\r\n`, 431],
  'an incomplete head of 17 KiB': [`GET / HTTP/1.1\r\nHost: x\r\n${'A: '.padEnd(1000, 'b').concat('\r\n').repeat(17)}`, 431],
  'a body that says to be too large': ['POST /v1/sessions HTTP/1.1\r\nHost: x\r\nContent-Length: 1048577\r\n\r\n', 413],
  'a length beyond all numbers': ['POST /v1/sessions HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n', 400],
};

test('what the parser refuses is told in the API\'s shape, and the connection closed', async (t) => {
  for (const [name, [bytes, status]] of Object.entries(refused)) {
    await t.test(name, async () => {
      isRefusal(await server.raw(Buffer.from(bytes, 'latin1')), status);
    });
  }
});

test('a refused request is told so however its bytes arrive', async () => {
  const bytes = Buffer.from('GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n');
  isRefusal(await server.raw([...bytes].map((byte) => Buffer.from([byte]))), 400);
});

test('a good request may arrive byte by byte, too', async () => {
  const bytes = Buffer.from('GET /health/live HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n');
  assert.equal(parse(await server.raw([...bytes].map((byte) => Buffer.from([byte])))).status, 200);
});

test('a body too large is 413 also when the client is still sending it', async () => {
  const { status, json } = await server.request('/v1/sessions', { key: keys.client, method: 'POST', body: Buffer.alloc(3 << 20, 'a'), headers: { 'content-type': 'application/json' } });
  assert.equal(status, 413);
  assert.equal(json.error.code, 'payload_too_large');
});

test('a chunked body too large is 413', async () => {
  const text = await server.raw([
    'POST /v1/sessions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n',
    ...Array.from({ length: 20 }, () => `10000\r\n${'a'.repeat(65536)}\r\n`), '0\r\n\r\n']);
  assert.equal(parse(text).status, 413);
});

test('a chunked body is put together', async () => {
  const text = await server.raw(['POST /v1/sessions HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n' +
    `Authorization: Bearer ${keys.client}\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{\r\n`, '1;x=y\r\n}\r\n', '0\r\nTrailer: z\r\n\r\n']);
  assert.equal(parse(text).status, 201, text);
});

test('Expect: 100-continue is answered before the body', async () => {
  const socket = net.connect(server.port, '127.0.0.1');
  let text = '';
  socket.on('data', (part) => { text += part; });
  socket.write(`POST /v1/sessions HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\nAuthorization: Bearer ${keys.client}\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n`);
  await waitFor(() => text.startsWith('HTTP/1.1 100 Continue\r\n\r\n'), '100 Continue');
  socket.write('{}');
  await waitFor(() => /HTTP\/1.1 201 /.test(text), 'the answer');
  socket.destroy();
});

test('slow heads and slow bodies are 408', async () => {
  const slow = ['GET / HTTP/1.1\r\nHost', 'POST /v1/sessions HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n{',
    'POST /v1/sessions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhe'];
  for (const text of await Promise.all(slow.map((bytes) => server.raw(bytes)))) isRefusal(text, 408);
});

test('a connection that says nothing is closed without a word', async () => {
  assert.equal(await server.raw([]), '');
});

test('keep-alive: many requests on a connection, pipelined too, until its limit', async () => {
  const one = 'GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n';
  const text = await server.raw(one.repeat(7));
  const answers = text.split(/(?=HTTP\/1\.1 )/);
  assert.equal(answers.length, 5);
  assert.deepEqual(answers.map((answer) => parse(answer).headers.connection), ['keep-alive', 'keep-alive', 'keep-alive', 'keep-alive', 'close']);
});

test('keep-alive: an idle connection is closed after its time, and not before', async () => {
  const start = performance.now();
  const text = await server.raw('GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n');
  assert.equal(parse(text).status, 200);
  const idle_ms = performance.now() - start;
  assert.ok(idle_ms >= 950 && idle_ms < 4900, `${idle_ms} ms`); // 5 s is what it would be by default
});

test('Connection: close and HTTP/1.0 are respected', async () => {
  const text = await server.raw('GET /health/live HTTP/1.0\r\n\r\n');
  assert.equal(parse(text).headers.connection, 'close');
  assert.equal(parse(await server.raw('GET /health/live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n')).headers.connection, 'close');
});

test('HEAD is GET without the body', async () => {
  const whole = parse(await server.raw('GET /health/live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n'));
  const head = parse(await server.raw('HEAD /health/live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n'));
  assert.equal(head.status, 200);
  assert.equal(head.body, '');
  assert.equal(head.headers['content-length'], whole.headers['content-length']);
  assert.equal(Number(head.headers['content-length']), whole.body.length);
});

test('405 says what is allowed; 404 where nothing is', async () => {
  const { status, headers, json } = await server.request('/health', { method: 'DELETE' });
  assert.equal(status, 405);
  assert.equal(headers.allow, 'GET, HEAD, OPTIONS');
  assert.equal(json.error.type, 'method_not_allowed');
  for (const route of ['/nothing', '/health/', '//health', '/v1/sessions//messages', '/../health', '/%68ealth']) {
    assert.equal(parse(await server.raw(`GET ${route} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n`)).status, 404, route);
  }
});

test('request ids: a sane one is kept, another is replaced', async () => {
  for (const id of ['a', 'A-b_c.9', 'x'.repeat(128)]) {
    const { headers, json } = await server.request('/nothing', { headers: { 'x-request-id': id } });
    assert.equal(headers['x-request-id'], id);
    assert.equal(json.request_id, id);
  }
  for (const id of ['', 'a b', 'a"b', 'x'.repeat(129), 'caf\u00e9']) {
    const { headers } = await server.request('/nothing', { headers: { 'x-request-id': id } });
    assert.match(headers['x-request-id'], /^req_[0-9a-z]{26}$/);
  }
});

test('CORS: any origin by default, named in the answer because of credentials', async () => {
  const { headers } = await server.request('/health', { headers: { origin: 'https://app.example' } });
  assert.equal(headers['access-control-allow-origin'], 'https://app.example');
  assert.equal(headers['access-control-allow-credentials'], 'true');
  assert.match(headers.vary, /Origin/);
  assert.match(headers['access-control-expose-headers'], /X-Request-Id/);
  assert.equal((await server.request('/health')).headers['access-control-allow-origin'], undefined);
  const error = await server.request('/nothing', { headers: { origin: 'https://app.example' } });
  assert.equal(error.headers['access-control-allow-origin'], 'https://app.example');
});

test('CORS: a preflight is answered for every known route', async () => {
  const { status, headers, text } = await server.request('/v1/sessions', {
    method: 'OPTIONS',
    headers: { origin: 'https://app.example', 'access-control-request-method': 'POST', 'access-control-request-headers': 'authorization, content-type' },
  });
  assert.equal(status, 204);
  assert.equal(text, '');
  assert.match(headers['access-control-allow-methods'], /POST/);
  assert.equal(headers['access-control-allow-headers'], 'authorization, content-type');
  assert.equal(headers['access-control-max-age'], '600');
  assert.equal((await server.request('/nothing', { method: 'OPTIONS', headers: { origin: 'https://app.example' } })).status, 404);
});

test('CORS: a list of origins is matched exactly', async (t) => {
  const strict = await startServer(t, { mock: false, config: { workers: 1, cors: { allow_origins: ['https://a.example'], allow_credentials: false } } });
  const allowed = async (origin) => (await strict.request('/health', { headers: { origin } })).headers['access-control-allow-origin'];
  assert.equal(await allowed('https://a.example'), 'https://a.example');
  for (const origin of ['https://b.example', 'https://a.example.evil', 'http://a.example', 'https://a.example:443', 'null']) {
    assert.equal(await allowed(origin), undefined, origin);
  }
});

test('bodies must be JSON: 415 and 400 with the position', async () => {
  const post = (body, type) => server.request('/v1/sessions', { key: keys.client, method: 'POST', body, headers: type ? { 'content-type': type } : {} });
  for (const type of ['text/plain', 'application/x-www-form-urlencoded', 'application/jsonx', undefined]) {
    const { status, json } = await post('{}', type);
    assert.equal(status, 415, type);
    assert.equal(json.error.code, 'unsupported_media_type');
  }
  assert.equal((await post('{}', 'Application/JSON; charset=utf-8')).status, 201);
  const { status, json } = await post('{"device_id": "a",\n  nonsense}', 'application/json');
  assert.equal(status, 400);
  assert.equal(json.error.code, 'invalid_json');
  assert.match(json.error.message, /line 2, column/);
  assert.equal((await post('{"a":1,"a":2}', 'application/json')).status, 400);
  assert.equal((await post('"text"', 'application/json')).status, 400);
});

test('capacity: 503 with both numbers, what is connected goes on, ops routes are answered', async (t) => {
  const small = await startServer(t, { config: { workers: 1, max_connections: 2 }, mockArgs: [] });
  small.expectLog(/connection refused reason=capacity active=2 max=2/);
  const session = await newSession(small);
  const sessions = [session, await newSession(small)];
  const turn = (id) => small.stream(`/v1/sessions/${id}/turns`, { key: keys.client, body: { input: '[[mock tokens=200 interval=100]]', stream: true } });
  const streams = await Promise.all(sessions.map(({ id }) => turn(id)));
  const { status, headers, json } = await small.request(`/v1/sessions/${session.id}`, { key: keys.client });
  if (status !== 503) return t.skip('the turns were over before the third request');
  assert.equal(headers['retry-after'], '5');
  assert.equal(json.error.type, 'server_at_capacity');
  assert.equal(json.active_connections, 2);
  assert.equal(json.max_connections, 2);
  assert.equal((await small.request('/health/ready')).status, 503);
  assert.equal((await small.request('/health/live')).status, 200);
  assert.equal((await small.request('/health')).json.checks.connections.status, 'critical');
  const families = parseMetrics((await small.request('/metrics')).text);
  assert.equal(sumOf(families, 'parley_connections_rejected_total', { reason: 'capacity' }), 1);
  assert.equal(sumOf(families, 'parley_connections', { kind: 'sse' }), 2);
  assert.equal(sumOf(families, 'parley_connections_max'), 2);
  for (const stream of streams) stream.close();
  await waitFor(async () => (await small.request(`/v1/sessions/${session.id}`, { key: keys.client })).status === 200, 'a place');
});

test('an SSE client that disappears is noticed while its stream is quiet', async () => {
  const { id } = await newSession(server);
  const active = async () => sumOf(parseMetrics((await server.request('/metrics')).text), 'parley_connections', { kind: 'sse' });
  assert.equal(await active(), 0);
  const stream = await server.stream(`/v1/sessions/${id}/turns`, { key: keys.client, body: { input: '[[mock fault=silence]]', stream: true, on_disconnect: 'cancel' } });
  assert.equal(stream.status, 200);
  await waitFor(async () => (await active()) === 1, 'the stream to be counted');
  stream.close();
  await waitFor(async () => (await active()) === 0, 'the place to be given back', 3000);
});

test('/metrics is for this host only: not for who was forwarded', async () => {
  assert.equal((await server.request('/metrics')).status, 200);
  for (const headers of [{ 'x-forwarded-for': '127.0.0.1' }, { forwarded: 'for=127.0.0.1' }, { via: '1.1 proxy' }]) {
    assert.equal((await server.request('/metrics', { headers })).status, 403, JSON.stringify(headers));
  }
});

test('requests are counted by route and status', async () => {
  const count = async (labels) => sumOf(parseMetrics((await server.request('/metrics')).text), 'parley_http_requests_total', labels);
  const before_it = await count({ route: '/v1/sessions/{session}', status: '401' });
  await server.request('/v1/sessions/sess_x');
  await waitFor(async () => (await count({ route: '/v1/sessions/{session}', status: '401' })) === before_it + 1, 'the request to be counted');
  const families = parseMetrics((await server.request('/metrics')).text);
  assert.equal(families.parley_http_request_seconds.type, 'HISTOGRAM');
});

test('a Unix socket serves like a port', async (t) => {
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'parley-unix-'));
  t.after(() => fs.rmSync(dir, { recursive: true, force: true }));
  const socketPath = path.join(dir, 'http.sock');
  await startServer(t, { mock: false, config: { workers: 2, listen: ['127.0.0.1:0', `unix:${socketPath}`] } });
  for (let i = 0; i < 10; i++) {
    const { status, json } = await request('http://x/health/ready', { socketPath });
    assert.equal(status, 200);
    assert.equal(json.status, 'ready');
  }
  assert.equal((await request('http://x/metrics', { socketPath })).status, 200);
});

/** The client address as the access log shows it. */
async function clientOf(proxied, bytes) {
  const id = `probe-${Math.random().toString(36).slice(2)}`;
  const text = await proxied.raw(Buffer.concat([Buffer.from(bytes.prefix ?? '', 'latin1'),
    Buffer.from(`GET /health/live HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-Request-Id: ${id}\r\n${bytes.headers ?? ''}\r\n`)]));
  assert.match(text, /^HTTP\/1.1 200 /);
  return (await proxied.line(new RegExp(`client=(\\S+) .*request_id=${id}`)))[1];
}

test('trusted proxies name the client; others do not', async (t) => {
  const proxied = await startServer(t, { mock: false, config: { workers: 2, trusted_proxies: ['127.0.0.0/8', '10.0.0.0/8'], log: { access: true } } });
  assert.equal(await clientOf(proxied, {}), '127.0.0.1');
  assert.equal(await clientOf(proxied, { headers: 'X-Forwarded-For: 203.0.113.7\r\n' }), '203.0.113.7');
  assert.equal(await clientOf(proxied, { headers: 'X-Forwarded-For: 192.0.2.66, 203.0.113.7, 10.1.2.3\r\n' }), '203.0.113.7');
  assert.equal(await clientOf(proxied, { headers: 'X-Forwarded-For: 192.0.2.66\r\nX-Forwarded-For: 203.0.113.7\r\n' }), '203.0.113.7');
  assert.equal(await clientOf(proxied, { headers: 'Forwarded: for="[2001:db8::7]:99";proto=https\r\n' }), '2001:db8::7');
  assert.equal(await clientOf(proxied, { prefix: 'PROXY TCP4 198.51.100.4 10.0.0.1 5000 80\r\n' }), '198.51.100.4');
  assert.equal(await clientOf(proxied, { prefix: 'PROXY TCP6 2001:db8::4 ::1 5000 80\r\n' }), '2001:db8::4');
  assert.equal(await clientOf(proxied, { prefix: 'PROXY UNKNOWN\r\n' }), '127.0.0.1');
  const v2 = '\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc6\x33\x64\x05\x0a\0\0\x01\x13\x88\0\x50';
  assert.equal(await clientOf(proxied, { prefix: v2 }), '198.51.100.5');
  // Who came through the PROXY protocol from a host that is not trusted may not name another.
  assert.equal(await clientOf(proxied, { prefix: v2, headers: 'X-Forwarded-For: 203.0.113.7\r\n' }), '198.51.100.5');
  assert.equal(await proxied.raw('PROXY TCP4 nonsense\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n'), '');
});

test('without trusted proxies nothing of it is believed', async (t) => {
  const plain = await startServer(t, { mock: false, config: { workers: 1, log: { access: true } } });
  assert.equal(await clientOf(plain, { headers: 'X-Forwarded-For: 203.0.113.7\r\n' }), '127.0.0.1');
  assert.match(await plain.raw('PROXY TCP4 198.51.100.4 10.0.0.1 5000 80\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n'), /^HTTP\/1.1 400 /);
});

test('the access log hides tokens in queries', async (t) => {
  const logged = await startServer(t, { mock: false, config: { workers: 1, log: { access: true } } });
  await logged.request('/health?access_token=pc_secret_secret_secret_secret&x=1');
  await logged.line(/path=\/health /);
  assert.doesNotMatch(logged.output(), /pc_secret/);
});

function handshake(port, options = {}) {
  return within(new Promise((resolve, reject) => {
    const socket = tls.connect({ port, host: '127.0.0.1', servername: 'localhost', rejectUnauthorized: false, ...options }, () => {
      resolve({ protocol: socket.getProtocol(), alpn: socket.alpnProtocol, subject: socket.getPeerCertificate().subject.CN });
      socket.destroy();
    });
    socket.on('error', reject);
  }), 'TLS handshake');
}

test('TLS: 1.2 and 1.3, a verified certificate, no HTTP/2 unless it is configured', async (t) => {
  const { url, port, ca } = await startTls(t);
  assert.equal((await request(`${url}/health`, { ca: ca() })).status, 200);
  assert.equal((await handshake(port, { maxVersion: 'TLSv1.2' })).protocol, 'TLSv1.2');
  assert.equal((await handshake(port)).protocol, 'TLSv1.3');
  assert.equal((await handshake(port, { ALPNProtocols: ['h2', 'http/1.1'] })).alpn, 'http/1.1');
  await assert.rejects(handshake(port, { minVersion: 'TLSv1.1', maxVersion: 'TLSv1.1', ciphers: 'DEFAULT@SECLEVEL=0' }));
});

test('TLS: large bodies both ways, refusals in shape', async (t) => {
  const { url, ca } = await startTls(t);
  const { status } = await request(`${url}/v1/sessions`, { ca: ca(), key: keys.client, body: { metadata: { text: 'x'.repeat(200000) } } });
  assert.ok([201, 422].includes(status), String(status));
  assert.equal((await request(`${url}/metrics`, { ca: ca() })).status, 200);
  const large = await request(`${url}/v1/sessions`, { ca: ca(), key: keys.client, method: 'POST', body: Buffer.alloc(2 << 20, ' '), headers: { 'content-type': 'application/json' } });
  assert.equal(large.status, 413);
});

test('TLS: certificates are read again on SIGHUP', async (t) => {
  const { secure, dir, files, port } = await startTls(t);
  assert.equal((await handshake(port)).subject, 'first');
  const second = certificate(dir, 'second');
  fs.renameSync(second.certificate, files.certificate);
  fs.renameSync(second.key, files.key);
  process.kill(secure.pid, 'SIGHUP');
  await waitFor(async () => (await handshake(port)).subject === 'second', 'the new certificate', 15000);
});

function h2Request(client, headers) {
  return within(new Promise((resolve, reject) => {
    const stream = client.request(headers);
    const parts = [];
    let status;
    stream.on('response', (answer) => { status = answer[':status']; });
    stream.on('data', (part) => parts.push(part));
    stream.on('end', () => resolve({ status, text: Buffer.concat(parts).toString() }));
    stream.on('error', reject);
    stream.end();
  }), `HTTP/2 answer to ${headers[':path']}`);
}

test('HTTP/2 where it is configured, many requests on one connection', async (t) => {
  const { url, ca } = await startTls(t, { http2: true });
  const client = http2.connect(url, { ca: ca() });
  t.after(() => client.destroy());
  const answers = await Promise.all(Array.from({ length: 50 }, (_, i) => h2Request(client, { ':path': i % 2 ? '/health' : '/nothing' })));
  assert.deepEqual(answers.map(({ status }) => status), Array.from({ length: 50 }, (_, i) => (i % 2 ? 200 : 404)));
  assert.equal(JSON.parse(answers[0].text).error.type, 'not_found');
});

/** HEADERS of a GET, and RST_STREAM right behind: the answer cannot be there before. */
const takenBack = (stream, route, key) => Buffer.concat([get(stream, route, key), frame(RST_STREAM, 0, stream, u32(8))]);

test('HTTP/2: a flood of resets ends its connection, others go on', async (t) => {
  const { secure, url, port, ca } = await startTls(t, { http2: true });
  const { id } = (await request(`${url}/v1/sessions`, { ca: ca(), key: keys.client, body: {} })).json;
  secure.expectLog(/connection cut reason=flood/);
  const attacker = tls.connect({ port, host: '127.0.0.1', rejectUnauthorized: false, ALPNProtocols: ['h2'] });
  t.after(() => attacker.destroy());
  attacker.on('error', () => {}); // the reset that is wanted
  attacker.resume();
  const closed = new Promise((resolve) => { attacker.on('close', resolve); });
  const flood = Array.from({ length: 1000 }, (_, i) => takenBack(2 * i + 1, `/v1/sessions/${id}`, keys.client));
  attacker.write(Buffer.concat([Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'), frame(4, 0, 0, Buffer.alloc(0)), ...flood]));
  await within(closed, 'end of the attacker');
  assert.equal((await request(`${url}/health`, { ca: ca() })).status, 200);
  const families = parseMetrics((await secure.request('/metrics')).text);
  assert.equal(sumOf(families, 'parley_connections_rejected_total', { reason: 'flood' }), 1);
});

test('a client that sends and half-closes still gets a synchronous answer', async () => {
  assert.equal(parse(await server.raw('GET /health/live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n', { end: true })).status, 200);
});

test('an agent that keeps connections gets all its answers', async () => {
  const agent = new http.Agent({ keepAlive: true, maxSockets: 4 });
  const get = () => new Promise((resolve, reject) => {
    http.get(`${server.url}/health/live`, { agent }, (res) => { res.resume(); res.on('end', () => resolve(res.statusCode)); }).on('error', reject);
  });
  for (let i = 0; i < 10; i++) assert.deepEqual(await Promise.all(Array.from({ length: 8 }, get)), Array(8).fill(200));
  agent.destroy();
});
