// A new binary takes over: nobody is refused or reset, turns go on and are reached, and what fails leaves the old one as it was.
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import fs from 'node:fs';
import http from 'node:http';
import path from 'node:path';
import { test } from 'node:test';
import { promisify } from 'node:util';
import { collect, request } from './lib/http.mjs';
import { parseMetrics, sumOf } from './lib/metrics.mjs';
import { build, isGone } from './lib/process.mjs';
import { freePort } from './lib/port.mjs';
import { is_last_event, keys, newSession, startServer } from './lib/server.mjs';
import { unaccepted } from './lib/sockets.mjs';
import { waitFor } from './lib/wait.mjs';

const key = keys.client;
const run = (server, ...args) => promisify(execFile)(path.join(build, 'parleyd'), ['--config', server.file, ...args], { cwd: server.dir })
  .then(({ stdout, stderr }) => ({ code: 0, stdout, stderr }), ({ code, stdout, stderr }) => ({ code, stdout, stderr }));

test('ten new binaries, one after the other: every connection is answered', async (t) => {
  const dir = fs.mkdtempSync('/tmp/parley-up-');
  t.after(() => fs.rmSync(dir, { recursive: true }));
  const file = path.join(dir, 's');
  const server = await startServer(t, { config: { listen: ['127.0.0.1:0', `unix:${file}`] } });
  let is_over = false, answered = 0;
  const one = async (options) => {
    while (!is_over) {
      const { status } = await server.request('/health/live', options);
      assert.equal(status, 200);
      answered++;
    }
  };
  const kept = async () => { // a connection is kept as long as the server keeps it
    const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
    while (!is_over) {
      const status = await new Promise((resolve, reject) => {
        http.get({ port: server.port, host: '127.0.0.1', path: '/health/live', agent }, (res) => { res.resume().on('end', () => resolve(res.statusCode)); })
          .on('error', reject);
      });
      assert.equal(status, 200);
      answered++;
    }
    agent.destroy();
  };
  const clients = [...Array.from({ length: 12 }, () => one()), ...Array.from({ length: 4 }, () => one({ socketPath: file })), kept(), kept()];
  const failed = Promise.all(clients);
  failed.catch(() => {});
  const masters = [server.master];
  for (let i = 0; i < 10; i++) {
    const then = answered;
    masters.push(await server.upgrade());
    await Promise.race([failed, waitFor(() => answered > then + 50, 'answers')]);
  }
  is_over = true;
  await failed;
  await waitFor(() => masters.slice(0, -1).every(isGone), 'end of the old masters');
  assert.equal(fs.readFileSync(path.join(server.dir, 'run/lock'), 'utf8'), `${server.master}\n`);
  const { json } = await server.request('/health');
  assert.deepEqual([json.workers.ready, json.workers.draining, json.draining], [4, 0, false]);
  const status = await run(server, 'status');
  assert.match(status.stdout, new RegExp(`4 of 4 workers ready .*pid ${server.master}\\b`));
  await server.stop();
  assert.ok(!fs.existsSync(file));
  t.diagnostic(`${answered} answers`);
});

const tools = [{ type: 'function', function: { name: 'weather', parameters: { type: 'object' } } }];

test('turns of the old workers go on, and are reached through the new ones; counters and limits stay', async (t) => {
  const server = await startServer(t, { config: { drain: { timeout: '20s' } } });
  const start = async (input, more = {}) => {
    const session = await newSession(server);
    const events = await server.stream(`/v1/sessions/${session.id}/turns`, { key, body: { input, stream: true, ...more } });
    const seen = [];
    const done = collect(events, (event) => { seen.push(event); return is_last_event(event); }, 30000);
    await waitFor(() => seen.some(({ event }) => ['text.delta', 'tool.call'].includes(event)), 'begin');
    return { base: `/v1/sessions/${session.id}`, turn: seen[0].id.split('.')[0], seen, done };
  };
  const slow = await start('[[mock tokens=200 interval=20]]');
  const endless = await start('[[mock tokens=5000 interval=20]]');
  const asking = await start('[[mock tool=weather]]', { tools });
  const requests = async () => sumOf(parseMetrics((await server.request('/metrics')).text), 'parley_http_requests_total', { route: '/v1/sessions' });
  const before = server.workers(), counted = await requests();
  const old = server.master;
  await server.upgrade();
  assert.ok(server.workers().every((pid) => !before.includes(pid)));
  assert.equal(await requests(), counted);
  const all = collect(await server.stream(`${slow.base}/turns/${slow.turn}/events?after=0`, { key }), is_last_event, 30000);
  const tool_call_id = asking.seen.find(({ event }) => event === 'tool.call').data.tool_call_id;
  const posted = await server.request(`${asking.base}/tool-results`, { key, body: { tool_call_id, output: 'rain' } });
  assert.equal(posted.status, 202, posted.text);
  assert.equal((await asking.done).at(-1).event, 'turn.completed');
  const cancelled = await server.request(`${endless.base}/turns/${endless.turn}/cancel`, { method: 'POST', key });
  assert.ok(cancelled.status < 300, cancelled.text);
  assert.equal((await endless.done).at(-1).event, 'turn.cancelled');
  assert.ok(!isGone(old), 'it has a live turn');
  assert.equal((await slow.done).at(-1).event, 'turn.completed');
  assert.deepEqual((await all).map(({ id }) => id), (await slow.done).map(({ id }) => id));
  await waitFor(() => isGone(old) && before.every(isGone), 'end of the old ones');
});

test('parleyd upgrade: more workers by the new file, and another version of the binary', async (t) => {
  const server = await startServer(t);
  server.changeConfig({ workers: 6, log: { access: true } });
  const { code, stdout } = await run(server, 'upgrade');
  assert.equal(code, 0);
  server.successor = Number(/process (\d+) has taken over/.exec(stdout)[1]);
  await server.line(/taken over version=/);
  await server.line(/worker is up slot=5/);
  assert.equal((await server.request('/')).json.workers, 6);
});

test('a reload during an upgrade is done after it, by whoever is in charge then', async (t) => {
  const server = await startServer(t);
  server.expectLog(/upgrade failed|worker of another master/);
  const workers = async () => (await server.request('/')).json.workers;
  // The new one has its configuration already: its workers are starting.
  let from = server.lines.length;
  server.kill('SIGUSR2');
  const [, pid] = await server.line(/upgrade started pid=(\d+)/, 10000, from);
  await server.line(/worker started slot=0/, 10000, from);
  process.kill(Number(pid), 'SIGSTOP');
  server.changeConfig({ workers: 5 });
  server.kill('SIGHUP');
  await server.line(/reload waits for the upgrade/, 10000, from);
  const asked = run(server, 'reload');
  await waitFor(() => server.lines.slice(from).filter((line) => line.includes('reload waits')).length === 2, 'both');
  process.kill(Number(pid), 'SIGCONT');
  await server.line(/taken over version=/, 20000, from);
  server.successor = Number(pid);
  await server.line(/reload done workers=5/, 20000, from);
  assert.equal(await workers(), 5);
  assert.equal((await asked).code, 0);
  // One that fails: the old one reloads.
  from = server.lines.length;
  server.kill('SIGUSR2');
  const [, failing] = await server.line(/upgrade started pid=(\d+)/, 10000, from);
  process.kill(Number(failing), 'SIGSTOP');
  server.changeConfig({ workers: 3 });
  server.kill('SIGHUP');
  await server.line(/reload waits for the upgrade/, 10000, from);
  process.kill(Number(failing), 'SIGKILL');
  await server.line(/upgrade failed/, 20000, from);
  await server.line(/reload done workers=3/, 20000, from);
  assert.equal(await workers(), 3);
});

test('an address that the new configuration has no more: who waits in its queue is answered', async (t) => {
  const port = await freePort(), dir = fs.mkdtempSync('/tmp/parley-gone-');
  t.after(() => fs.rmSync(dir, { recursive: true }));
  const socketPath = path.join(dir, 's');
  const server = await startServer(t, { config: { listen: ['127.0.0.1:0', `127.0.0.1:${port}`, `unix:${socketPath}`], watchdog: { silence: '2m' }, drain: { timeout: '10s' } } });
  server.expectLog(/inherited socket closed/);
  const before = server.workers(), old = server.master;
  for (const pid of before) process.kill(pid, 'SIGSTOP');
  const ask = (options, base = `http://127.0.0.1:${port}`) => request(`${base}/health/live`, { limit_ms: 30000, ...options });
  const waiting = [...Array.from({ length: 40 }, () => ask()), ...Array.from({ length: 20 }, () => ask({ socketPath }))];
  await waitFor(() => unaccepted(port) === 40, 'forty in the queues');
  server.changeConfig({ listen: ['127.0.0.1:0'] });
  const upgraded = server.upgrade();
  await server.line(/upgrade done/, 20000);
  for (const pid of before) process.kill(pid, 'SIGCONT');
  for (const { status } of await Promise.all(waiting)) assert.equal(status, 200);
  await upgraded;
  await waitFor(() => isGone(old), 'end of the old master');
  await assert.rejects(ask(), /ECONNREFUSED/);
  assert.ok(!fs.existsSync(socketPath));
  assert.equal((await server.request('/health/live')).status, 200);
});

test('what cannot run, or is not ready in time, leaves the old one as it was', async (t) => {
  const server = await startServer(t, { config: { watchdog: { upgrade_timeout: '8s' } } });
  const before = server.workers(), good = server.config;
  server.expectLog(/upgrade failed|config error|worker died|certificate|not wanted|worker not|listen failed|worker of another master/);
  const still = async () => {
    assert.deepEqual(before.map(isGone), [false, false, false, false]);
    for (let i = 0; i < 8; i++) assert.equal((await server.request('/health/live')).status, 200);
    const { json } = await server.request('/health');
    assert.deepEqual([json.workers.configured, json.workers.ready, json.workers.starting, json.draining], [4, 4, 0, false]);
  };
  // A bad file: the new process ends at once.
  fs.writeFileSync(server.file, 'workers: many\n');
  server.kill('SIGUSR2');
  await server.line(/upgrade failed reason="it ended before it was ready: exit=78"/);
  server.allowed.push(/parley\.yaml:1:\d+: workers/);
  await still();
  // Another directory.
  server.changeConfig({ run_dir: path.join(server.dir, 'elsewhere') });
  assert.match((await run(server, '--config', server.file, 'status')).stderr, /no server is running/);
  let from = server.lines.length;
  server.expectLog(/run_dir has changed/);
  server.kill('SIGUSR2');
  await server.line(/upgrade failed reason="it ended before it was ready: exit=1"/, 10000, from);
  await still();
  // Workers that never become ready.
  from = server.lines.length;
  const dir = fs.mkdtempSync('/tmp/parley-cert-');
  t.after(() => fs.rmSync(dir, { recursive: true }));
  for (const name of ['c', 'k']) fs.writeFileSync(path.join(dir, name), 'nonsense');
  server.changeConfig({ run_dir: good.run_dir, tls: { certificate: path.join(dir, 'c'), key: path.join(dir, 'k'), listen: ['127.0.0.1:0'] } });
  server.kill('SIGUSR2');
  await server.line(/upgrade failed reason="it was not ready in time"/, 20000, from);
  await waitFor(async () => (await server.request('/health')).json.workers.starting === 0, 'rows of the new ones to be free');
  await still();
  server.changeConfig({ tls: undefined });
  await server.upgrade();
  assert.ok(before.every((pid) => !server.workers().includes(pid)));
});

test('the new master is killed before it is ready; the old one in the midst of its drain', async (t) => {
  const server = await startServer(t, { config: { drain: { timeout: '30s' } } });
  server.expectLog(/upgrade failed|worker of another master is gone|worker died/);
  server.kill('SIGUSR2');
  const [, started] = await server.line(/upgrade started pid=(\d+)/);
  process.kill(Number(started), 'SIGKILL');
  await server.line(/upgrade failed reason="it ended before it was ready: signal=KILL/);
  await waitFor(async () => {
    const { json } = await server.request('/health');
    return json.workers.ready === 4 && json.workers.starting === 0;
  }, 'the host as it was');
  const session = await newSession(server);
  const events = await server.stream(`/v1/sessions/${session.id}/turns`, { key, body: { input: '[[mock tokens=3000 interval=20]]', stream: true, request_id: 'r' } });
  const turn = (await events[Symbol.asyncIterator]().next()).value.id.split('.')[0];
  const old = server.master, before = server.workers();
  await server.upgrade();
  process.kill(old, 'SIGKILL');
  await waitFor(() => before.every(isGone), 'end of the old workers');
  // Their rows are cleaned up, and their turns are told as lost.
  await waitFor(async () => (await server.request('/health')).json.workers.draining === 0, 'no draining worker');
  const state = await server.request(`/v1/sessions/${session.id}/turns/${turn}?wait=30`, { key });
  assert.equal(state.json.error?.code, 'worker_lost', state.text);
  server.kill('SIGTERM');
  await waitFor(() => isGone(server.master), 'end');
  await server.stop({ signal: 'SIGKILL' }); // as the first process ended
});
