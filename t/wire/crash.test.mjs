// What can break around a worker, each thing once: what happens, what is lost, what the operator sees. The README has the table.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import http from 'node:http';
import path from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { fill, mountSmall, tempDir } from './lib/disk.mjs';
import { collect } from './lib/http.mjs';
import { isGone } from './lib/process.mjs';
import { is_last_event, keys, newSession, startServer, streamTurn } from './lib/server.mjs';
import { holders } from './lib/sockets.mjs';
import { waitFor } from './lib/wait.mjs';
import { openChat } from './lib/ws.mjs';

const key = keys.client;
const is_sanitized = /asan|tsan/.test(process.env.PARLEY_BUILD ?? '');
const health = async (server) => (await server.request('/health')).json;

test('an input that kills workers again and again: slowed down, degraded, its fingerprint in the log', async (t) => {
  const server = await startServer(t, { config: { workers: 2, watchdog: { backoff: '400ms' } } });
  server.expectLog(/worker died|worker dies again and again|worker crashed|parleyd\(|\.so|\[0x/);
  const poison = { device_id: 'poison', metadata: { say: 'it' } };
  const delays = [];
  for (let i = 0; i < 4; i++) {
    const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
    let pid;
    // A connection to the worker of slot 0, over which it is given the input; then it dies as if of it.
    await waitFor(async () => {
      const port = await new Promise((resolve, reject) => {
        const request = http.request({ port: server.port, host: '127.0.0.1', method: 'POST', path: '/v1/sessions', agent,
          headers: { authorization: `Bearer ${key}`, 'content-type': 'application/json' } }, (res) => {
          const { localPort } = res.socket;
          res.resume().on('end', () => resolve(localPort));
        });
        request.on('error', reject);
        request.end(JSON.stringify(poison));
      });
      pid = server.workers()[0];
      const is_there = holders(server.port, [pid]).get(port) === pid;
      agent.destroy();
      return is_there;
    }, 'a connection to slot 0');
    process.kill(pid, 'SIGSEGV');
    const died_at = Date.now();
    if (i === 2) {
      await server.line(/worker dies again and again slot=0 deaths=3 backoff_ms=400/);
      const json = await health(server);
      assert.equal(json.status, 'degraded');
      assert.deepEqual([json.checks.workers.status, json.checks.workers.crashing], ['degraded', 1]);
      assert.equal((await server.request('/health/ready')).status, 200);
    }
    await server.replaced(0, pid);
    delays.push(Date.now() - died_at);
  }
  assert.ok(delays[2] >= 400 && delays[3] >= 800, delays.join(' '));
  const prints = server.lines.map((line) => /worker died at slot=0 .*request=\/v1\/sessions fingerprint=([0-9a-f]{16}) under_way=no/.exec(line)?.[1]).filter(Boolean);
  assert.equal(prints.length, 4);
  assert.equal(new Set(prints).size, 1, 'the same each time');
  assert.ok(server.lines.some((line) => /worker crashed signal=11/.test(line)), 'and where it was');
  assert.ok(!server.lines.some((line) => line.includes('poison')), 'not what is in it');
});

test('a worker that hangs is aborted, and says where it was', { skip: is_sanitized }, async (t) => {
  const server = await startServer(t, { config: { workers: 2, watchdog: { silence: '2s' } } });
  server.expectLog(/worker stalled slot=1|worker died|worker crashed|parleyd\(|\.so|\[0x/);
  const has_said = () => server.lines.some((line) => /worker crashed signal=06/.test(line));
  // What hangs otherwise takes the signal at once; who is stopped has a second to be let go, or is killed: then once more.
  for (let tries = 0; tries < 2 && !has_said(); tries++) {
    const pid = server.workers()[1];
    process.kill(pid, 'SIGSTOP');
    await server.line(new RegExp(`worker stalled slot=1 pid=${pid} silent_ms=`));
    if (!isGone(pid)) process.kill(pid, 'SIGCONT');
    await server.replaced(1, pid);
  }
  assert.ok(has_said(), server.output());
  assert.ok(server.lines.filter((line) => /parleyd\(.*\[0x|libc/.test(line)).length >= 3, 'a trace');
  assert.equal((await health(server)).workers.ready, 2);
});

test('out of memory: one worker is replaced, the others do not notice', { skip: is_sanitized }, async (t) => {
  const server = await startServer(t, { config: { http: { max_body: '8MiB' } } });
  server.expectLog(/worker died|panic check=|worker crashed|parleyd\(|\.so|\[0x|fatal|store \w+ failed/);
  const [pid] = server.workers();
  const pages = Number(fs.readFileSync(`/proc/${pid}/statm`, 'utf8').split(' ')[0]);
  execFileSync('prlimit', [`--pid=${pid}`, `--as=${pages * 4096 + (1 << 20)}`]);
  const others = server.workers().slice(1);
  const body = { metadata: { text: 'x'.repeat(6 << 20) } };
  await waitFor(async () => {
    await server.request('/v1/sessions', { key, body }).catch((e) => assert.match(`${e.code} ${e.message}`, /ECONNRESET|hang up|EPIPE/));
    return server.lines.some((line) => line.includes(`worker died slot=0 pid=${pid} `));
  }, 'the end of the one without memory', 30000);
  await server.replaced(0, pid);
  assert.deepEqual(server.workers().slice(1), others);
  for (let i = 0; i < 8; i++) await newSession(server);
});

test('out of memory: what the kernel would take first is a worker, not the master', async (t) => {
  const server = await startServer(t);
  const adj = (pid) => Number(fs.readFileSync(`/proc/${pid}/oom_score_adj`, 'utf8'));
  for (const pid of server.workers()) assert.equal(adj(pid), Math.min(1000, adj(server.pid) + 100));
});

test('the disk of the record is full: refused, said, and well again by itself', async (t) => {
  const dir = tempDir(t, 'parley-full-');
  if (!mountSmall(dir, '3m')) return t.skip('no mount here');
  const server = await startServer(t, { config: { store: { url: `sqlite:${dir}/parley.db`, grace: '1s' } } });
  server.expectLog(/WARN|ERROR/); // each write says so
  const session = await newSession(server);
  await streamTurn(server, session.id, { input: 'before' });
  fill(path.join(dir, 'filler'));
  const refused = await waitFor(async () => {
    const { status, json } = await server.request('/v1/sessions', { key, body: {} });
    return status !== 201 && { status, json };
  }, 'a refusal');
  assert.equal(refused.status, 503, JSON.stringify(refused.json));
  assert.equal(refused.json.error.code, 'store_unavailable');
  assert.equal((await server.request('/health/live')).status, 200);
  // What is there can be read.
  const { json } = await server.request(`/v1/sessions/${session.id}/messages`, { key });
  assert.equal(json.data.length, 2);
  fs.rmSync(path.join(dir, 'filler'));
  await waitFor(async () => (await server.request('/v1/sessions', { key, body: {} })).status === 201, 'writes again', 20000);
  assert.equal((await streamTurn(server, session.id, { input: 'after' })).at(-1).event, 'turn.completed');
  assert.ok(server.workers().every((pid) => fs.existsSync(`/proc/${pid}`)), 'no worker died of it');
  return undefined;
});

test('the disk of the log is full: lines are lost, nothing else', async (t) => {
  const dir = tempDir(t, 'parley-log-full-');
  if (!mountSmall(dir, '256k')) return t.skip('no mount here');
  const file = path.join(dir, 'log');
  const server = await startServer(t, { ready: false, config: { log: { file, access: true } } });
  const text = () => { try { return fs.readFileSync(file, 'utf8'); } catch { return ''; } };
  await waitFor(() => text().includes('server ready'), 'start');
  server.url = `http://${/listening address=(\S+)/.exec(text())[1]}`;
  fill(path.join(dir, 'filler'));
  const session = await newSession(server);
  assert.equal((await streamTurn(server, session.id, { input: 'unheard' })).at(-1).event, 'turn.completed');
  for (let i = 0; i < 50; i++) assert.equal((await server.request('/health/live')).status, 200);
  const then = text().length;
  fs.rmSync(path.join(dir, 'filler'));
  await waitFor(async () => {
    await server.request('/health/live');
    return text().length > then;
  }, 'lines again');
  return undefined;
});

test('the clock on the wall steps: turns, sockets, limits and connections go on', { skip: is_sanitized }, async (t) => {
  const dir = tempDir(t, 'parley-clock-');
  const shim = path.join(dir, 'shim.so'), offset = path.join(dir, 'offset');
  execFileSync('gcc', ['-shared', '-fPIC', '-O2', '-o', shim, path.join(path.dirname(fileURLToPath(import.meta.url)), 'lib/clock_shim.c'), '-ldl']);
  const step = (seconds) => {
    const bytes = Buffer.alloc(8);
    bytes.writeBigInt64LE(BigInt(seconds));
    const fd = fs.openSync(offset, fs.existsSync(offset) ? 'r+' : 'w');
    fs.writeSync(fd, bytes, 0, 8, 0); // in place: it is mapped
    fs.closeSync(fd);
  };
  step(0);
  const server = await startServer(t, { env: { LD_PRELOAD: shim, CLOCK_SHIM: offset }, config: {
    keys: [{ kind: 'client', app: 'demo', secret: key, rate: { limit: 40, window: '24h' } }],
  } });
  const chat = await openChat(t, server);
  const session = await newSession(server);
  const events = await server.stream(`/v1/sessions/${session.id}/turns`, { key, body: { input: '[[mock tokens=150 interval=20]]', stream: true } });
  const done = collect(events, is_last_event, 30000);
  const before = server.workers();
  for (const seconds of [3600, -3600, 20 * 3600, 0]) {
    step(seconds);
    const root = await server.request('/');
    assert.equal(root.status, 200);
    chat.send({ action: 'ping' });
    const count = chat.frames.length;
    await waitFor(() => chat.frames.length > count, 'pong');
    const other = await newSession(server);
    assert.ok(Math.abs(Date.parse(other.created_at) - Date.now() - seconds * 1000) < 60000, `${other.created_at} at ${seconds}: the shim is in place`);
    assert.equal((await streamTurn(server, other.id, { input: 'hello' })).at(-1).event, 'turn.completed');
  }
  assert.equal((await done).at(-1).event, 'turn.completed');
  assert.equal(chat.closed, null);
  assert.deepEqual(server.workers(), before, 'nobody was taken for hung');
  // The windows of limits are of the other clock: what was used stays used.
  const statuses = [];
  for (let i = 0; i < 40; i++) statuses.push((await server.request(`/v1/sessions/${session.id}`, { key })).status);
  assert.ok(statuses.includes(429));
});
