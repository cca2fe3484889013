// Sockets and descriptors under pressure: who is slow or silent is cut in time, and /health answers when nothing else does.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import net from 'node:net';
import { after, before, test } from 'node:test';
import { keys, newSession, startMock, startServer, streamTurn } from './lib/server.mjs';
import { request } from './lib/http.mjs';
import { startTls } from './lib/tls.mjs';
import { parseMetrics, sumOf } from './lib/metrics.mjs';
import { unaccepted } from './lib/sockets.mjs';
import { waitFor, within } from './lib/wait.mjs';

let mock;
before(async () => { mock = await startMock(null); });
after(() => mock?.stop());

/** Connections that were opened and say nothing (or these bytes). */
async function open(t, port, count, bytes = '') {
  const sockets = await Promise.all(Array.from({ length: count }, () => new Promise((resolve, reject) => {
    const socket = net.connect({ port, host: '127.0.0.1' }, () => {
      if (bytes !== '') socket.write(bytes);
      resolve(socket);
    });
    socket.on('error', reject);
  })));
  for (const socket of sockets) {
    socket.removeAllListeners('error');
    socket.on('error', () => {});
    socket.resume();
    socket.ended = new Promise((resolve) => { socket.on('close', resolve); });
  }
  t.after(() => sockets.forEach((socket) => socket.destroy()));
  return sockets;
}

const metricsOf = async (server) => parseMetrics((await server.request('/metrics')).text);

/** CPU time of these processes so far, in milliseconds (clock ticks are 10). */
function cpu_ms(pids) {
  return pids.reduce((sum, pid) => {
    const fields = fs.readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1].split(' ');
    return sum + 10 * (Number(fields[11]) + Number(fields[12]));
  }, 0);
}

test('slow TLS: no handshake, half a handshake and a trickle of one are cut after header_timeout', async (t) => {
  const { secure, port } = await startTls(t, {}, { mock, config: { http: { header_timeout: '600ms' } } });
  const hello = Buffer.from('1603010200010001fc0303', 'hex');
  const begun = Date.now();
  const silent = await open(t, port, 8);
  const half = await open(t, port, 8, hello);
  const trickling = await open(t, port, 8);
  const timer = setInterval(() => trickling.forEach((socket) => socket.write('\x16')), 50);
  t.after(() => clearInterval(timer));
  await within(Promise.all([...silent, ...half].map((socket) => socket.ended)), 'end of all');
  await within(Promise.all(trickling.map((socket) => socket.ended)), 'end of the trickle');
  assert.ok(Date.now() - begun >= 500);
  assert.equal(sumOf(await metricsOf(secure), 'parley_connection_queue'), 0);
});

test('TLS: slow heads and bodies are told 408', async (t) => {
  const { url, ca, port } = await startTls(t, {}, { mock, config: { http: { header_timeout: '600ms', body_timeout: '600ms' } } });
  assert.equal((await request(`${url}/health`, { ca: ca() })).status, 200);
  const tls = await import('node:tls');
  for (const head of ['GET / HTTP/1.1\r\nHost: x\r\n', 'POST /v1/sessions HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{']) {
    const socket = tls.connect({ port, host: '127.0.0.1', rejectUnauthorized: false }, () => socket.write(head));
    const timer = setInterval(() => socket.write('a'), 50);
    t.after(() => clearInterval(timer));
    let text = '';
    let error = null;
    socket.on('data', (part) => { text += part; });
    socket.on('error', (e) => { error = e; });
    await within(new Promise((resolve) => { socket.on('close', resolve); }), 'end');
    clearInterval(timer);
    assert.match(text, /^HTTP\/1.1 408 /, String(error));
    assert.match(text, /"code":"request_timeout"/);
  }
});

test('a PROXY header that never comes ends the connection', async (t) => {
  const server = await startServer(t, { mock, config: { trusted_proxies: ['127.0.0.1'], http: { header_timeout: '500ms' } } });
  const silent = await open(t, server.port, 8);
  const half = await open(t, server.port, 8, 'PROXY TCP4 192.0.2');
  await within(Promise.all([...silent, ...half].map((socket) => socket.ended)), 'end of all');
  assert.equal((await server.request('/health')).status, 200);
});

test('a large answer that nobody reads is given up after send_timeout', async (t) => {
  const server = await startServer(t, { mock, config: { http: { send_timeout: '3s' } } });
  const { id } = await newSession(server);
  const input = 'x'.repeat(900000);
  for (let i = 0; i < 12; i++) await streamTurn(server, id, { input });
  const socket = net.connect({ port: server.port, host: '127.0.0.1' });
  t.after(() => socket.destroy());
  socket.on('error', () => {});
  socket.pause();
  socket.write(`GET /v1/sessions/${id}/messages?limit=100 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${keys.server}\r\n\r\n`);
  const active = async () => sumOf(await metricsOf(server), 'parley_connections');
  await waitFor(async () => (await active()) === 1, 'the request');
  await waitFor(async () => (await active()) === 0, 'the end of it', 20000);
});

test('half-open connections: the queue is bounded, the metrics listener answers at once, silent ones make room', async (t) => {
  const server = await startServer(t, { mock, config: { connection_queue_size: 25, metrics: { listen: '127.0.0.1:0' }, http: { header_timeout: '30s' } } });
  server.expectLog(/accepting paused reason=queue open=\d+ waiting=25/);
  const metrics_port = /listening address=(\S+) kind=metrics/.exec(server.output())[1];
  await open(t, server.port, 250);
  await waitFor(() => unaccepted(server.port) > 0, 'somebody who waits');
  const { text } = await request(`http://${metrics_port}/metrics`, { limit_ms: 1000 });
  assert.ok(sumOf(parseMetrics(text), 'parley_connection_queue') <= 100);
  // Whoever has something to say gets through soon: who has nothing to say for a second makes room.
  const begun = Date.now();
  for (let i = 0; i < 8; i++) assert.equal((await server.request('/health', { limit_ms: 10000 })).status, 200);
  assert.ok(Date.now() - begun < 10000);
  assert.ok(sumOf(await metricsOf(server), 'parley_connections_rejected_total', { reason: 'timeout' }) >= 100);
});

test('few descriptors: fewer places are promised, ops routes are answered when all are taken', async (t) => {
  const server = await startServer(t, { mock, nofile: 256, config: { workers: 1, drain: { timeout: '500ms' } } });
  server.expectLog(/max_connections capped wanted=1000 max=\d+/);
  server.expectLog(/connection refused reason=capacity/);
  server.expectLog(/accepting paused reason=queue/); // more come than it accepts and answers meanwhile
  const places = sumOf(await metricsOf(server), 'parley_connections_max');
  assert.ok(places > 50 && places < 200, `${places}`);
  const { id } = await newSession(server);
  const live = await server.stream(`/v1/sessions/${id}/turns`, { key: keys.client, body: { input: '[[mock fault=silence]]', stream: true } });
  const turn = live.headers['x-parley-turn'];
  const poll = `GET /v1/sessions/${id}/turns/${turn}?wait=30 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${keys.client}\r\n\r\n`;
  const polls = [];
  while (polls.length < places + 20) polls.push(...await open(t, server.port, 10, poll));
  await waitFor(async () => sumOf(await metricsOf(server), 'parley_connections') === places, 'all places to be taken');
  for (let i = 0; i < 8; i++) assert.equal((await server.request('/health', { limit_ms: 1000 })).status, 200);
  const refused = await server.request(`/v1/sessions/${id}`, { key: keys.client, limit_ms: 1000 });
  assert.equal(refused.status, 503);
  assert.equal(refused.json.max_connections, places);
  live.close();
  polls.forEach((socket) => socket.destroy());
  await waitFor(async () => (await server.request(`/v1/sessions/${id}`, { key: keys.client })).status === 200, 'places');
});

test('no descriptors at all: /health is answered within a second, nothing spins, and all is well when there are some again', async (t) => {
  const server = await startServer(t, {
    mock, config: { http: { keepalive_timeout: '60s', header_timeout: '60s' }, drain: { timeout: '500ms' }, metrics: { listen: '127.0.0.1:0' } },
  });
  const metrics_port = Number(/listening address=\S+:(\d+) kind=metrics/.exec(server.output())[1]);
  for (const expected of [/accept failed error="?Too many open files/, /(store|session sweep|provider) .*(fail|unavailable)/, /turn .*not saved/, /bus does not accept errno=24/]) server.expectLog(expected);
  const { id } = await newSession(server);
  await server.request('/health');
  const live = await server.stream(`/v1/sessions/${id}/turns`, { key: keys.client, body: { input: '[[mock fault=silence]]', stream: true } });
  const turn = live.headers['x-parley-turn'];
  const poll = `GET /v1/sessions/${id}/turns/${turn}?wait=60 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${keys.client}\r\n\r\n`;
  const polls = await open(t, server.port, 200, poll);
  await waitFor(async () => sumOf(await metricsOf(server), 'parley_connections') === 201, 'the polls');
  const pids = server.workers();
  for (const pid of pids) {
    const highest = Math.max(...fs.readdirSync(`/proc/${pid}/fd`).map(Number));
    execFileSync('prlimit', [`--pid=${pid}`, `--nofile=${highest - 20}:`]);
  }
  const more = await open(t, server.port, 100, poll);
  more.push(...await open(t, metrics_port, 400)); // nobody can accept these
  const before_it = cpu_ms(pids), begun = Date.now();
  for (let i = 0; i < 40; i++) {
    const { status } = await server.request('/health/live', { limit_ms: 1500 });
    assert.equal(status, 200);
  }
  await waitFor(() => Date.now() - begun > 2000, 'two seconds');
  const share = (cpu_ms(pids) - before_it) / (Date.now() - begun);
  assert.ok(share < 0.5, `${share} of a core`);
  for (const pid of pids) execFileSync('prlimit', [`--pid=${pid}`, '--nofile=4096:']);
  for (const socket of [...polls, ...more]) socket.destroy();
  live.close();
  await waitFor(async () => sumOf(await metricsOf(server), 'parley_connections') === 0, 'the places');
  for (let i = 0; i < 20; i++) assert.equal((await server.request(`/v1/sessions/${id}`, { key: keys.client, limit_ms: 1000 })).status, 200);
});
