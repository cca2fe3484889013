// Whoever reads the log stops reading: nobody waits for him, what was lost is counted and told.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { parseMetrics, sumOf } from './lib/metrics.mjs';
import { newSession, startServer, streamTurn } from './lib/server.mjs';
import { waitFor } from './lib/wait.mjs';

const config = { log: { access: true }, watchdog: { silence: '2s' } };
const lost = async (server) => sumOf(parseMetrics((await server.request('/metrics')).text), 'parley_log_lines_lost_total');
const told = (lines) => lines.map((line) => /WARN +log lines lost count=(\d+)/.exec(line)).filter(Boolean);

/** Requests until every process of the server has lost lines, and work that must go on meanwhile. */
async function talkUnheard(server) {
  const route = `/health/live?${'x'.repeat(1000)}`;
  await waitFor(async () => {
    const answers = await Promise.all(Array.from({ length: 100 }, () => server.request(route)));
    assert.ok(answers.every(({ status }) => status === 200));
    return await lost(server) > 100;
  }, 'lost lines', 30000);
  const session = await newSession(server);
  assert.equal((await streamTurn(server, session.id, { input: 'unheard' })).at(-1).event, 'turn.completed');
}

test('a socket that nobody reads, as systemd and the tests have it', async (t) => {
  const server = await startServer(t, { config });
  server.expectLog(/log lines lost count=/);
  const before = server.workers();
  server.process.stderr.pause();
  await talkUnheard(server);
  // Neither the master nor a new worker waits.
  server.kill('SIGHUP');
  await waitFor(async () => !before.some((pid) => fs.existsSync(`/proc/${pid}`)), 'four new workers', 30000);
  server.process.stderr.resume();
  await server.line(/log lines lost count=/);
  // Not those of workers that ended meanwhile: they are in the metric only.
  assert.ok(await lost(server) >= Number(told(server.lines)[0][1]));
  const from = server.lines.length;
  await server.request('/health/live');
  await server.line(/ACCESS/, 10000, from);
});

/** Standard error is a named pipe of which the test has the other end; `mode` is what it has when the server opens it. */
async function withPipe(t, { uid, mode }) {
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'parley-pipe-'));
  t.after(() => fs.rmSync(dir, { recursive: true, force: true }));
  const name = path.join(dir, 'fifo');
  execFileSync('mkfifo', ['-m', '666', name]);
  fs.chmodSync(dir, 0o755);
  const fd = fs.openSync(name, fs.constants.O_RDWR | fs.constants.O_NONBLOCK);
  let text = '';
  const read = () => {
    const piece = Buffer.alloc(1 << 16);
    try {
      for (let n; (n = fs.readSync(fd, piece)) > 0;) text += piece.toString('latin1', 0, n);
    } catch (e) {
      assert.equal(e.code, 'EAGAIN');
    }
    return text;
  };
  const wrap = ['sh', '-c', `exec 2>"${name}"; : >"${dir}.open"; while [ -e "${dir}.wait" ]; do sleep 0.01; done; exec "$@"`, 'sh'];
  fs.writeFileSync(`${dir}.wait`, '');
  t.after(() => { for (const suffix of ['.wait', '.open']) fs.rmSync(dir + suffix, { force: true }); });
  const starting = startServer(t, { config, wrap, uid, ready: false });
  await waitFor(() => fs.existsSync(`${dir}.open`), 'the shell');
  fs.chmodSync(name, mode);
  fs.rmSync(`${dir}.wait`);
  const server = await starting;
  await waitFor(() => read().includes('server ready workers='), 'start');
  server.url = `http://${/listening address=(\S+)/.exec(text)[1]}`;
  return { server, read };
}

for (const { name, uid, mode } of [
  { name: 'a pipe that nobody reads', mode: 0o666 },
  { name: 'the same, which belongs to somebody else, as in a container', uid: 65534, mode: 0o600 },
]) {
  test(name, { skip: uid !== undefined && process.getuid() !== 0 && 'not root' }, async (t) => {
    const { server, read } = await withPipe(t, { uid, mode });
    await talkUnheard(server);
    // Quiet processes tell too; then the lines and the metric say the same.
    const is_all_told = async () => told(read().split('\n')).reduce((all, [, count]) => all + Number(count), 0) === await lost(server);
    await waitFor(is_all_told, 'all told', 20000);
    // No line is in parts.
    for (const line of read().trim().split('\n')) assert.match(line, /^\d{4}-\d\d-\d\dT\S+Z (INFO|ACCESS|WARN) /);
    const reader = setInterval(read, 20); // until the server has ended
    t.after(() => clearInterval(reader));
  });
}
