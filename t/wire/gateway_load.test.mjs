// The OpenAI-compatible routes under load: long answers, many streams, readers that are slow or gone, over every protocol.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import http from 'node:http';
import http2 from 'node:http2';
import https from 'node:https';
import os from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { keys, startMock, startServer } from './lib/server.mjs';
import { waitFor, within } from './lib/wait.mjs';

// A sanitizer keeps what was freed.
const is_slow_build = /asan|tsan|cover/.test(process.env.PARLEY_BUILD ?? '');

const limits = { max_connections: 3000, concurrent_requests: 3000, requests_per_minute: 0, max_retries: 0, max_keepalive: 100 };

/** One worker and a mock whose address the provider needs before the server is started. */
async function startOne(t, config = {}) {
  const mock = await startMock(t);
  return startServer(t, { mock, config: { workers: 1, max_connections: 4000, connection_queue_size: 2000,
    providers: [{ name: 'mock', base_url: mock.url, api_key: 'sk-test', http_client: limits }], ...config } });
}

const rss_kib = (pid) => Number(/VmRSS:\s+(\d+)/.exec(fs.readFileSync(`/proc/${pid}/status`, 'utf8'))[1]);
const stats = async (server) => (await fetch(`http://${server.mock.address}/mock/stats`)).json();

/** The response of a streamed chat, nothing of it read yet. */
function open(server, content, { agent = false } = {}) {
  const body = JSON.stringify({ stream: true, messages: [{ role: 'user', content }] });
  return within(new Promise((resolve, reject) => {
    const req = http.request(`${server.url}/v1/chat/completions`, { method: 'POST', agent,
      headers: { authorization: `Bearer ${keys.server}`, 'content-type': 'application/json', 'content-length': body.length } });
    req.on('response', (response) => resolve({ req, response }));
    req.on('error', reject);
    req.end(body);
  }), 'head of a stream', 30000);
}

/** Reads it to its end: how many events came, and the last one. */
async function drain({ response }) {
  let events = 0, tail = '';
  for await (const part of response) {
    if (tail.endsWith('\n') && part[0] === 10 && !tail.endsWith('\n\n')) events++;
    for (let at = part.indexOf('\n\n'); at >= 0; at = part.indexOf('\n\n', at + 2)) events++;
    tail = (tail + part.toString('latin1')).slice(-100);
  }
  return { events, is_whole: tail.endsWith('data: [DONE]\n\n') };
}

test('an answer of a million tokens does not grow the worker', async (t) => {
  const server = await startOne(t);
  const [pid] = server.workers();
  await drain(await open(server, '[[mock tokens=1000]]'));
  const before = rss_kib(pid);
  let most = before;
  const sampler = setInterval(() => { most = Math.max(most, rss_kib(pid)); }, 50);
  const { events, is_whole } = await within(drain(await open(server, '[[mock tokens=1000000]]')), 'end of a million tokens', 120000);
  clearInterval(sampler);
  assert.ok(is_whole);
  assert.equal(events, 1000003);
  if (!is_slow_build) assert.ok(most - before < 4096, `grew by ${most - before} KiB`);
});

test('a thousand streams with slow readers among them: each gets all of its own', async (t) => {
  const server = await startOne(t, { http: { send_timeout: '5m' } }); // until the others are done
  const [pid] = server.workers();
  const slow = await Promise.all(Array.from({ length: 6 }, () => open(server, '[[mock tokens=80000]]')));
  const fast = await Promise.all(Array.from({ length: 994 }, () => open(server, '[[mock tokens=40 interval=10]]').then(drain)));
  for (const { events, is_whole } of fast) {
    assert.ok(is_whole);
    assert.equal(events, 43);
  }
  // 15 MB each are on their way to readers that have taken nothing, more than the kernel holds: the rest waits at the provider.
  if (!is_slow_build) assert.ok(rss_kib(pid) < 150 * 1024, `${rss_kib(pid)} KiB`);
  await waitFor(async () => (await stats(server)).active_streams === 6, 'the slow ones alone at the provider');
  for (const { events, is_whole } of await Promise.all(slow.map(drain))) {
    assert.ok(is_whole);
    assert.equal(events, 80003);
  }
});

test('a reader that takes nothing is cut after http.send_timeout, and its provider stopped', async (t) => {
  const server = await startOne(t, { http: { send_timeout: '1s' } });
  const { response } = await open(server, '[[mock tokens=500000]]');
  const other = drain(await open(server, '[[mock tokens=100 interval=30]]'));
  await waitFor(async () => (await stats(server)).aborted === 1, 'end at the provider', 10000);
  await assert.rejects(drain({ response }), /aborted/);
  assert.ok((await other).is_whole);
});

function certificate(t) {
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'parley-tls-'));
  t.after(() => fs.rmSync(dir, { recursive: true }));
  execFileSync('openssl', ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '2', '-subj', '/CN=localhost',
    '-keyout', `${dir}/key.pem`, '-out', `${dir}/cert.pem`], { stdio: 'ignore' });
  return { certificate: `${dir}/cert.pem`, key: `${dir}/key.pem` };
}

test('a client that goes is noticed over TLS and HTTP/2, streamed or not', async (t) => {
  const server = await startOne(t, { tls: { ...certificate(t), listen: ['127.0.0.1:0'], http2: true } });
  const address = (await server.line(/listening address=(\S+) kind=tls/))[1];
  const body = (stream) => JSON.stringify({ stream, messages: [{ role: 'user', content: '[[mock tokens=1000 interval=20]]' }] });
  const headers = { authorization: `Bearer ${keys.server}`, 'content-type': 'application/json' };
  let aborted = 0;

  for (const stream of [true, false]) {
    const req = https.request(`https://${address}/v1/chat/completions`, { method: 'POST', agent: false, rejectUnauthorized: false, headers });
    req.on('error', () => {});
    req.end(body(stream));
    if (stream) await new Promise((resolve) => { req.on('response', (response) => response.once('data', resolve)); });
    await waitFor(async () => (await stats(server)).active_requests === 1, 'request at the provider');
    req.destroy();
    aborted++;
    await waitFor(async () => (await stats(server)).aborted === aborted, 'end at the provider');

    const session = http2.connect(`https://${address}`, { rejectUnauthorized: false });
    const one = session.request({ ':method': 'POST', ':path': '/v1/chat/completions', ...headers });
    one.on('error', () => {});
    one.end(body(stream));
    if (stream) await new Promise((resolve) => { one.once('data', resolve); });
    await waitFor(async () => (await stats(server)).active_requests === 1, 'request at the provider');
    one.close(http2.constants.NGHTTP2_CANCEL);
    aborted++;
    await waitFor(async () => (await stats(server)).aborted === aborted, 'end at the provider');
    session.close();
  }
});
