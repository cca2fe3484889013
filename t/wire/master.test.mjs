// The master with real workers: reload, bad config, systemd, two masters, drain, the command line.
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import fs from 'node:fs';
import net from 'node:net';
import path from 'node:path';
import { test } from 'node:test';
import { promisify } from 'node:util';
import { build, Child, isGone } from './lib/process.mjs';
import { startServer } from './lib/server.mjs';
import { waitFor } from './lib/wait.mjs';

const run = (server, ...args) => promisify(execFile)(path.join(build, 'parleyd'), ['--config', server.file, ...args], { cwd: server.dir })
  .then(({ stdout, stderr }) => ({ code: 0, stdout, stderr }), ({ code, stdout, stderr }) => ({ code, stdout, stderr }));

const alive = (server) => server.request('/health/live').then(({ status }) => assert.equal(status, 200));

test('SIGHUP with a good config gives every slot a new worker, and nobody is refused meanwhile', async (t) => {
  const server = await startServer(t);
  const before = server.workers();
  let is_over = false;
  let answered = 0;
  const clients = Array.from({ length: 16 }, async () => {
    while (!is_over) {
      await alive(server);
      answered++;
    }
  });
  server.changeConfig({ max_connections: 77, connection_queue_size: 50 });
  server.kill('SIGHUP');
  await server.line(/reload done/);
  is_over = true;
  await Promise.all(clients);
  assert.ok(answered > 0);
  const now = server.workers();
  for (let slot = 0; slot < 4; slot++) assert.notEqual(now[slot], before[slot]);
  await waitFor(() => before.every((pid) => !fs.existsSync(`/proc/${pid}`)), 'end of the old workers');
  const { json } = await server.request('/health');
  assert.equal(json.connections.max, 4 * 77);
  assert.equal(json.workers.ready, 4);
});

test('SIGHUP with a bad config: the old one goes on', async (t) => {
  const server = await startServer(t);
  const before = server.workers();
  server.expectLog(/config error|reload failed/);
  server.changeConfig({ max_conections: 5 });
  server.kill('SIGHUP');
  await server.line(/config error .*max_conections.*max_connections/);
  await server.line(/reload failed .*config=old/);
  await alive(server);
  assert.deepEqual(server.workers(), before);
});

test('SIGHUP names the keys that need a restart, and they stay', async (t) => {
  const server = await startServer(t);
  server.expectLog(/config change needs a restart/);
  server.changeConfig({ unix_mode: '0600', backlog: 1024, log: { access: true } });
  server.kill('SIGHUP');
  await server.line(/needs a restart key=unix_mode/);
  await server.line(/needs a restart key=backlog/);
  await server.line(/reload done/);
  await server.line(/worker ready slot=3 .*backlog=2048/);
  await alive(server);
  await server.line(/ ACCESS /);
});

test('a second master on the same run_dir refuses, and the first does not notice', async (t) => {
  const server = await startServer(t);
  const second = new Child(path.join(build, 'parleyd'), ['--config', server.file], { cwd: server.dir });
  await second.line(/run_dir not locked .*another server uses it/);
  assert.equal((await second.ended).code, 1);
  await alive(server);
});

test('a port that someone else has is an error, not a share', async (t) => {
  const other = net.createServer().listen(0, '127.0.0.1');
  t.after(() => other.close());
  await new Promise((resolve) => other.once('listening', resolve));
  const server = await startServer(t, { ready: false, config: { listen: [`127.0.0.1:${other.address().port}`] } });
  server.expectLog(/listen failed/);
  await server.line(/listen failed address=127.0.0.1:\d+ error="another process listens there"/);
  await server.ended;
  await server.stop({ code: 1 });
});

test('a config error exits 78 and names file, line and key; --check-config too', async (t) => {
  const server = await startServer(t);
  assert.equal((await run(server, '--check-config')).code, 0);
  const file = path.join(server.dir, 'bad.yaml');
  fs.writeFileSync(file, 'workers: 4\nbacklog: lots\nmax_conections: 1\n');
  for (const args of [['--config', file, '--check-config'], ['--config', file]]) {
    const { code, stderr } = await run(server, ...args);
    assert.equal(code, 78);
    assert.match(stderr, /bad\.yaml:2:\d+: backlog/);
    assert.match(stderr, /bad\.yaml:3:\d+: max_conections/);
  }
  assert.equal((await run(server, '--workers', 'many')).code, 78);
  assert.equal((await run(server, '--wrokers', '2')).code, 64);
});

test('flags win over the file; --print-config hides secrets', async (t) => {
  const server = await startServer(t);
  const { stdout } = await run(server, '--print-config', '--max-connections', '600', '--listen', '127.0.0.1:0', '--listen', '[::1]:0');
  assert.match(stdout, /^max_connections: 600$/m);
  assert.match(stdout, /^listen: .*127\.0\.0\.1:0.*\[::1\]:0/m);
  assert.ok(!stdout.includes('pc_test_client_key'));
  assert.match((await run(server, '--version')).stdout, /^parleyd \d+\.\d+\.\d+/);
  assert.match((await run(server, '--help')).stdout, /connection_queue_size[\s\S]*2 to 5 times/);
});

test('status, reload and drain through the control socket', async (t) => {
  const server = await startServer(t);
  assert.equal(fs.statSync(path.join(server.dir, 'run/control')).mode & 0o777, 0o600);
  const status = await run(server, 'status');
  assert.equal(status.code, 0);
  assert.match(status.stdout, /running, 4 of 4 workers ready/);
  for (const pid of server.workers()) assert.match(status.stdout, new RegExp(`\\b${pid}\\b`));
  const reloaded = await run(server, 'reload');
  assert.deepEqual(reloaded, { code: 0, stdout: 'every worker runs the new configuration\n', stderr: '' });
  await server.line(/reload done/);
  assert.equal((await run(server, 'drain')).code, 0);
  assert.equal((await server.ended).code, 0);
  const gone = await run(server, 'status');
  assert.equal(gone.code, 3);
  assert.match(gone.stderr, /no server is running/);
});

test('the pause before draining still serves, but is not ready', async (t) => {
  const server = await startServer(t, { config: { drain: { pause: '60s', timeout: '5s' } } });
  server.kill('SIGTERM');
  await server.line(/stopping pause_ms=60000/);
  assert.equal((await server.request('/health/ready')).status, 503);
  await alive(server);
  // Once more, later than a wrapper's repetition: at once.
  await waitFor(() => { server.kill('SIGTERM'); return new Promise((resolve) => { setTimeout(() => resolve(server.status), 600); }); }, 'end');
  assert.equal(server.status.code, 0);
});

test('the addresses that are listened on are in run_dir/addresses', async (t) => {
  const server = await startServer(t, { config: { metrics: { listen: '127.0.0.1:0' } } });
  const lines = fs.readFileSync(path.join(server.dir, 'run/addresses'), 'utf8').trim().split('\n');
  assert.equal(lines[0], `http ${server.address}`);
  assert.match(lines[1], /^metrics 127\.0\.0\.1:[1-9]\d*$/);
});

test('a Unix socket is served by all workers', async (t) => {
  const dir = fs.mkdtempSync('/tmp/parley-unix-');
  t.after(() => fs.rmSync(dir, { recursive: true }));
  const file = path.join(dir, 'http.sock');
  const server = await startServer(t, { config: { listen: ['127.0.0.1:0', `unix:${file}`] } });
  const answer = await new Promise((resolve, reject) => {
    let text = '';
    net.connect(file, function connected() { this.write('GET /health/live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n'); })
      .on('data', (bytes) => { text += bytes; }).on('end', () => resolve(text)).on('error', reject);
  });
  assert.match(answer, /^HTTP\/1\.1 200 /);
  await server.stop();
  assert.ok(!fs.existsSync(file));
});

test('SIGUSR1 opens the log file again in every process', async (t) => {
  const dir = fs.mkdtempSync('/tmp/parley-log-');
  t.after(() => fs.rmSync(dir, { recursive: true }));
  const file = path.join(dir, 'log');
  const server = await startServer(t, { ready: false, config: { log: { file, access: true } } });
  const text = () => { try { return fs.readFileSync(file, 'utf8'); } catch { return ''; } };
  await waitFor(() => text().includes('server ready'), 'start');
  const url = `http://${/listening address=(\S+)/.exec(text())[1]}/health/live`;
  fs.renameSync(file, `${file}.1`);
  server.kill('SIGUSR1');
  const reached = () => new Set([...text().matchAll(/ ACCESS .* worker=(\d)/g)].map((match) => match[1]));
  await waitFor(async () => {
    await fetch(url, { headers: { connection: 'close' } });
    return reached().size === 4;
  }, 'access lines of every worker in the new file');
});

test('when the master is killed its workers end within a second', async (t) => {
  const server = await startServer(t);
  const pids = server.workers();
  server.kill('SIGKILL');
  await server.ended;
  const died_at = Date.now();
  await waitFor(() => pids.every(isGone), 'end of the workers');
  assert.ok(Date.now() - died_at < 5000); // at once, and what a busy machine adds
  await server.stop({ signal: 'SIGKILL' });
});
