// What who runs it relies on: the table of `parleyd status`, the lines that are grepped for, backups that are good.
import assert from 'node:assert/strict';
import { execFile, execFileSync, spawn, spawnSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';
import { promisify } from 'node:util';
import { build, root } from './lib/process.mjs';
import { sharedPostgres } from './lib/postgres.mjs';
import { is_last_event, keys, newSession, startServer, streamTurn } from './lib/server.mjs';
import { waitFor, within } from './lib/wait.mjs';
import { openChat } from './lib/ws.mjs';

const parleyd = path.join(build, 'parleyd');
const manual = fs.readFileSync(path.join(root, 'etc/operations.md'), 'utf8');
const run = (server, ...args) => promisify(execFile)(parleyd, ['--config', server.file, ...args], { cwd: server.dir, env: { ...process.env, TERM: 'xterm' } })
  .then(({ stdout, stderr }) => ({ code: 0, stdout, stderr }), ({ code, stdout, stderr }) => ({ code, stdout, stderr }));

// ---- status ----

test('status: a table where it is read, JSON where it is wanted, 3 where there is nobody', async (t) => {
  const server = await startServer(t);
  const session = await newSession(server);
  await streamTurn(server, session.id, { input: 'hello' });
  const chat = await openChat(t, server);
  const table = await run(server, 'status');
  assert.equal(table.code, 0);
  assert.doesNotMatch(table.stdout, /\x1b/, 'a pipe gets no colours');
  assert.match(table.stdout, /^parley \d+\.\d+\.\d+ {3}running, 4 of 4 workers ready {3}up 00:00:\d\d {3}pid \d+$/m);
  assert.match(table.stdout, /websocket 1\b/);
  assert.match(table.stdout, /^turns +0 live +1 completed +0 failed/m);
  for (const pid of server.workers()) assert.match(table.stdout, new RegExp(`^ +[0-3] +${pid} +ready `, 'm'));
  assert.match(table.stdout, /^mock +\[\.+\] +0 % +0\/1000 .* up$/m);
  const { stdout } = await run(server, 'status', '--json');
  const all = JSON.parse(stdout);
  assert.deepEqual(all.workers.list.map(({ pid }) => pid), server.workers());
  assert.equal(all.connections.websocket, 1);
  assert.equal(all.turns.completed, 1);
  assert.ok(all.tokens.output > 0 && all.requests >= 2);
  assert.deepEqual([all.store.kind, all.backplane.kind], [process.env.PARLEY_TEST_STORE === 'postgres' ? 'postgres' : 'sqlite', 'local']);
  for (const worker of all.workers.list) assert.ok(worker.rss_bytes > 1e6 && worker.cpu_ms >= 0);
  assert.equal((await run(server, 'status', '--jsn')).code, 64);
  await chat.close();
  await server.stop();
  assert.equal((await run({ ...server, dir: '/tmp', file: path.join(root, 'etc/parley.production.yaml') }, 'status')).code, 3);
});

test('status --watch on a terminal: rates, every second, until q; the screen before comes back', async (t) => {
  if (spawnSync('script', ['--version']).status !== 0) return t.skip('no script');
  const server = await startServer(t);
  const session = await newSession(server);
  const watch = spawn('script', ['--quiet', '--flush', '--return', '--command', `${parleyd} --config ${server.file} status --watch`, '/dev/null'],
    { cwd: server.dir, env: { ...process.env, TERM: 'xterm' }, stdio: ['pipe', 'pipe', 'inherit'] });
  t.after(() => watch.kill('SIGKILL'));
  let screen = '';
  watch.stdout.on('data', (bytes) => { screen += bytes; });
  await waitFor(() => screen.includes('workers ready'), 'the first look');
  await streamTurn(server, session.id, { input: 'hello' });
  // With colours in between.
  const shown = () => screen.replace(/\x1b\[[0-9;?]*[a-zA-Z]/g, '');
  await waitFor(() => /turns +0 live +\d+\.\d\/s +1 completed/.test(shown()), 'the turn, and how many a second');
  await waitFor(() => /ready +\d+ %/.test(shown()), 'the share of a core');
  assert.ok(screen.startsWith('\x1b[?1049h\x1b[?25l'), JSON.stringify(screen.slice(0, 40)));
  watch.stdin.write('q');
  const [code] = await within(new Promise((resolve) => { watch.on('close', (...how) => resolve(how)); }), 'end of the watch');
  assert.equal(code, 0);
  assert.ok(screen.trimEnd().endsWith('\x1b[?25h\x1b[?1049l'), JSON.stringify(screen.slice(-40)));
});

// ---- lines ----

test('every line that the manual says to grep for is written, as it says', async (t) => {
  const server = await startServer(t, { config: { workers: 1, max_connections: 5, connection_queue_size: 20, backlog: 128, mcp: { servers: [{ name: 'gone', url: 'http://127.0.0.1:9/mcp' }] } } });
  server.expectLog(/connection refused|config error|reload failed|mcp server away server=gone/);
  const chats = [];
  for (let i = 0; i < 5; i++) chats.push(await openChat(t, server));
  for (let i = 0; i < 200; i++) assert.equal((await server.request('/v1/models', { key: keys.server })).status, 503);
  await server.line(/worker ready slot=0 max_connections=5 queue_size=20 backlog=128/);
  await server.line(/provider ready name=mock max_connections=1000 concurrent_requests=1000 pool_timeout=5s/);
  await server.line(/websocket open active=5 max=5/);
  await server.line(/connection refused reason=capacity active=5 max=5/);
  const refusals = server.lines.filter((line) => line.includes('connection refused'));
  assert.ok(refusals.length < 100, `200 refusals made ${refusals.length} lines`);
  for (const chat of chats) await chat.close();
  server.changeConfig({ max_conections: 1 });
  server.kill('SIGHUP');
  await server.line(/reload failed/);
  const old = server.killWorker(0);
  await server.replaced(0, old);
  const table = manual.slice(manual.indexOf('| to grep for |')).split('\n\n')[0];
  await server.stop();
  const patterns = [...table.matchAll(/^\| (`.*?`) \| /gm)].flatMap(([, cell]) => [...cell.matchAll(/`([^`]+)`/g)].map(([, text]) => text.replaceAll('\\|', '|')));
  assert.ok(patterns.length >= 10, patterns.join(' '));
  for (const pattern of patterns) assert.match(server.lines.join('\n'), new RegExp(pattern), pattern);
});

test('/health looks at everything that the manual names', async (t) => {
  const server = await startServer(t);
  const { checks } = (await server.request('/health')).json;
  const [, list] = /`checks`: ([^)]*)\)/.exec(manual);
  for (const name of list.split(', ')) assert.equal(checks[name]?.status, 'ok', name);
});

// ---- backups ----

/** A conversation with a turn that is over and one that is not; the backup is taken; the record is another's now. */
async function backUpAndRestore(t, config, backUp) {
  const server = await startServer(t, { config });
  const session = await newSession(server, { device_id: 'device-1' });
  assert.equal((await streamTurn(server, session.id, { input: 'remember the blue door' })).at(-1).event, 'turn.completed');
  const live = await server.stream(`/v1/sessions/${session.id}/turns`, {
    key: keys.client, body: { stream: true, request_id: 'half', input: '[[mock tokens=2000 interval=20]]' },
  });
  for await (const { event } of live) if (event === 'text.delta') break;
  const url = await backUp(server);
  const before = (await server.request(`/v1/sessions/${session.id}/messages`, { key: keys.client })).json;
  live.close();
  await server.stop({ signal: 'SIGKILL' });

  const restored = await startServer(t, { config: { ...config, store: { url } } });
  const after = (await restored.request(`/v1/sessions/${session.id}/messages`, { key: keys.client })).json;
  assert.deepEqual(after.data.slice(0, 2), before.data.slice(0, 2), 'what was said is there');
  // The turn that was live has no owner; its session goes on, and the same request runs anew.
  const turn = `/v1/sessions/${session.id}/turns`;
  const again = await waitFor(async () => {
    const events = await restored.stream(turn, { key: keys.client, body: { stream: true, request_id: 'half', input: '[[mock tokens=2000 interval=20]]' } });
    if (events.status === 200) return events;
    events.close();
    return null;
  }, 'the end of the lost turn', 20000);
  for await (const { event } of again) {
    if (event === 'text.delta') break;
    assert.ok(!is_last_event({ event }), `it is told as it was: ${event}`);
  }
  again.close();
  const next = await newSession(restored, { device_id: 'device-2' });
  assert.equal((await streamTurn(restored, next.id, { input: 'and on' })).at(-1).event, 'turn.completed');
}

test('SQLite: a backup taken while it is written to is good, by the command of the manual', async (t) => {
  if (spawnSync('sqlite3', ['--version']).status !== 0) return t.skip('no sqlite3');
  if (process.env.PARLEY_TEST_STORE === 'postgres') return t.skip('the servers of this run have another record');
  const [, command] = /^ {4}(sqlite3 .*)$/m.exec(manual);
  await backUpAndRestore(t, {}, async (server) => {
    const file = server.config.store.url.replace('sqlite:', ''), dir = fs.mkdtempSync('/tmp/parley-backup-'), copy = path.join(dir, 'parley.db');
    process.on('exit', () => fs.rmSync(dir, { recursive: true })); // after the server that has it
    execFileSync('sh', ['-c', command.replace('/var/lib/parley/parley.db', file).replace('/backup/parley.db', copy)]);
    assert.equal(execFileSync('sqlite3', [copy, 'PRAGMA integrity_check'], { encoding: 'utf8' }).trim(), 'ok');
    return `sqlite:${copy}`;
  });
});

test('PostgreSQL: the same with pg_dump and pg_restore', async (t) => {
  if (spawnSync('pg_dump', ['--version']).status !== 0) return t.skip('no pg_dump');
  const postgres = await sharedPostgres();
  const url = await postgres.newDatabase(), empty = await postgres.newDatabase();
  const dir = fs.mkdtempSync('/tmp/parley-backup-');
  t.after(() => fs.rmSync(dir, { recursive: true }));
  const dump = path.join(dir, 'parley.dump');
  await backUpAndRestore(t, { store: { url } }, async () => {
    execFileSync('pg_dump', ['--format=custom', `--file=${dump}`, url]);
    execFileSync('pg_restore', ['--no-owner', `--dbname=${empty}`, dump]);
    return empty;
  });
});
