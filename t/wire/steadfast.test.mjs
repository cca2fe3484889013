// One run of all that is done to hosts, and happens to them, while thousands of sessions chat: a reload, a new binary, a host that
// drains and comes back, workers that are killed, also in the midst of each; two hosts with one record and one Redis behind a real HAProxy.
//
// SESSIONS=10000, half of them WebSockets, half event streams, ask a third of what the machine answers at its utmost, so that it is
// not the crowd that is tested. KEEP=folder for what was written down: the journal, HAProxy's log, the hosts' logs.
import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';
import { startHosts } from './lib/hosts.mjs';
import { request } from './lib/http.mjs';
import { readJournal, readProxyLog } from './lib/journal.mjs';
import { sharedPostgres } from './lib/postgres.mjs';
import { Child, build, isGone } from './lib/process.mjs';
import { skip_haproxy, startHaproxy } from './lib/proxies.mjs';
import { ask } from './lib/record.mjs';
import { startRedis } from './lib/redis.mjs';
import { keys, startMock } from './lib/server.mjs';
import { holders } from './lib/sockets.mjs';
import { waitFor, within } from './lib/wait.mjs';

const is_slow = /asan|tsan|cover/.test(process.env.PARLEY_BUILD ?? '');
const sessions = Number(process.env.SESSIONS ?? (is_slow ? 1500 : 10000));
const tokens = 20;
const answer = Array.from({ length: tokens }, (_, i) => `tok${i}`).join(' ');
const config = {
  max_connections: sessions, connection_queue_size: 2000, backlog: 4096,
  trusted_proxies: ['127.0.0.1/32'],
  // HAProxy asks every second, and turns away at the second refusal.
  store: { pool_size: 4, acquire_timeout: '30s' }, // a busy machine is slow, and no more
  watchdog: { silence: '1m' }, // nobody but us ends the one that is stopped
  drain: { pause: '4s', timeout: '20s', spread: '3s', come_back: '2s' },
};

function load(t, front, args) {
  const child = new Child(path.join(build, 'parley_load'), ['--target', `127.0.0.1:${front.port}`, '--key', keys.client, '--tokens', tokens, ...args].map(String));
  t.after(() => child.kill('SIGKILL'));
  return child;
}

const resultOf = ({ lines }) => JSON.parse(lines.find((line) => line.startsWith('{')));

/** Seconds between two questions of one of the crowd. */
async function findPace(t, front) {
  const burst = load(t, front, ['--users', 100, '--count', 600, '--interval', 20, 'turns']);
  await within(burst.ended, 'end of the burst', 60000);
  const { whole_per_second } = resultOf(burst);
  return Math.max(20, Math.ceil(3 * sessions / whole_per_second));
}

/** Ends a worker at once: its connections at that moment, as the other side names them. One that drained may have ended by itself. */
function killWorker(host, slot, pid = host.workers()[slot]) {
  const held = new Set();
  try {
    process.kill(pid, 'SIGSTOP'); // takes nobody on any more, once the call that it is in has ended
    const until = Date.now() + 1000;
    while (!/\) [Tt] /.test(fs.readFileSync(`/proc/${pid}/stat`, 'latin1')) && Date.now() < until);
    for (const port of holders(host.port, [pid]).keys()) held.add(`127.0.0.1:${port}`);
    host.expectLog(new RegExp(`worker died slot=${slot} pid=${pid} `));
    process.kill(pid, 'SIGKILL');
  } catch (e) {
    assert.match(e.code, /ESRCH|ENOENT/);
  }
  return { pid, at: Date.now(), held };
}

function keep(dir, hosts, to) {
  fs.cpSync(dir, to, { recursive: true });
  hosts.forEach(({ lines }, i) => fs.writeFileSync(path.join(to, `host${i}`), lines.join('\n')));
}

/** All that the record has of their turns is what the clients were told, and the other way round. */
function compare(host, journal) {
  const theirs = new Set(journal.asked.map(({ session }) => session)); // others are those of the burst
  const rows = ask(host, 'SELECT id, session_id, state, error_code, text FROM turns').filter(({ session_id }) => theirs.has(session_id));
  const of_record = new Map(rows.map((row) => [row.id, row]));
  const complaints = [];
  for (const turn of journal.turns) {
    const row = of_record.get(turn.id);
    const outcome = row && (row.state === 'completed' ? 'completed' : row.error_code ?? row.state);
    if (outcome !== turn.outcome) complaints.push(`told ${turn.outcome}, recorded ${outcome}: ${turn.session} ${turn.id}`);
    if (turn.outcome === 'completed' && row?.text !== answer) complaints.push(`completed with ${row?.text}: ${turn.id}`);
    if (!turn.in_order) complaints.push(`events lost or doubled: ${turn.session} ${turn.id}`);
  }
  const told = new Set(journal.turns.map(({ id }) => id));
  for (const row of rows) {
    if (row.state === 'live') complaints.push(`never ended: ${row.session_id} ${row.id}`);
    // One that was lost before its client knew of it was asked again.
    if (!told.has(row.id) && row.error_code !== 'worker_lost') complaints.push(`not told: ${row.session_id} ${row.id} ${row.state} ${row.error_code}`);
  }
  assert.deepEqual(complaints.slice(0, 10), [], `${complaints.length} complaints`);
  const messages = ask(host, "SELECT session_id FROM messages WHERE role = 'assistant' AND NOT is_partial").filter(({ session_id }) => theirs.has(session_id));
  const whole = journal.asked.filter(({ outcome }) => outcome === 'whole').length;
  assert.equal(messages.length, whole, 'as many whole answers as questions');
  return rows;
}

/** Every connection that broke was passed on over one that a killed worker had. */
function expectExplained(journal, proxy_log, killed) {
  const passed = Map.groupBy(readProxyLog(proxy_log), ({ client }) => client);
  const is_theirs = (at, { via }) => killed.some(({ at: killed_at, held }) => at >= killed_at - 1000 && held.has(via));
  const broken = [...journal.cuts, ...journal.answers.filter(({ status }) => ![0, 200, 503].includes(status))];
  const strange = broken.filter(({ at, address }) => !passed.get(address)?.some((line) => is_theirs(at, line)));
  const known = strange.slice(0, 10).map((cut) => ({ ...cut, passed: passed.get(cut.address) ?? [] }));
  assert.deepEqual(known, [], `${strange.length} of ${broken.length} cuts are not explained`);
  // Refusals of a socket's requests have no status.
  const odd = journal.answers.filter(({ status, code }) => status === 0 && !/^(draining|owner_unavailable|store_unavailable|server_at_capacity)$/.test(code));
  assert.deepEqual(odd.slice(0, 10), []);
  assert.ok(journal.closed.every(({ code }) => code === 1001 || code === 0), 'closed otherwise');
}

test('thousands chat through a reload, a new binary, killed workers and a drain', { skip: skip_haproxy, timeout: 280000 }, async (t) => {
  const dir = fs.mkdtempSync('/tmp/parley-steadfast-');
  const hosts = [];
  t.after(() => {
    if (process.env.KEEP) keep(dir, hosts, process.env.KEEP);
    fs.rmSync(dir, { recursive: true });
  });
  const [redis, mock, postgres] = await Promise.all([startRedis(t), startMock(t), sharedPostgres()]);
  const store_url = await postgres.newDatabase();
  let [a, b] = await startHosts(t, { redis, store_url, mock, config });
  const proxy_log = path.join(dir, 'haproxy');
  hosts.push(a, b);
  const front = await startHaproxy([a, b], { maxconn: 9900, log: proxy_log });
  t.after(() => front.end());
  const journal_file = path.join(dir, 'journal'), began_at = Date.now();
  // It asks until it is told to end, and then waits for the answers that are due.
  const pace_s = await findPace(t, front);
  const crowd = load(t, front, ['--users', sessions, '--duration', 600, '--limit', 900, '--pace', pace_s, '--interval', 100, '--journal', journal_file, 'steadfast']);
  const note = (what) => t.diagnostic(`${((Date.now() - began_at) / 1000).toFixed(1)} s ${what}`);
  assert.equal(Number((await crowd.line(/^standing (\d+)/, 120000))[1]), sessions);
  note(`all stand, and each asks every ${pace_s} s`);

  /** They go on asking, and are answered. */
  const answered = () => readJournal(journal_file).asked.length;
  const chat = async (what) => {
    note(what);
    const then = answered();
    await waitFor(() => answered() >= then + Math.max(sessions / 60, 20), 'answers', 60000);
  };
  await chat('chatting');

  const killed = [];
  const kill = (what, ...which) => {
    killed.push(killWorker(...which));
    note(`killed ${what} with ${killed.at(-1).held.size} connections`);
  };
  const old = a.workers(), from = a.lines.length;
  a.kill('SIGHUP');
  await a.line(/worker draining slot=1/, 60000, from);
  kill('one that gives its sockets away', a, 1, old[1]);
  await a.line(/reload done/, 60000, from);
  await chat('reloaded');
  await waitFor(() => old.every(isGone), 'end of the old workers', 40000);

  const before = b.workers(), old_master = b.master;
  await b.upgrade();
  kill('an old one', b, 0, before[0]);
  kill('a new one that takes sockets', b, 3);
  await chat('upgraded');
  await waitFor(() => before.every(isGone) && isGone(old_master), 'end of the old master', 40000);

  for (const [host, slot] of [[a, 0], [b, 2]]) {
    kill('one', host, slot);
    await host.replaced(slot, killed.at(-1).pid);
    await chat('and it is replaced');
  }

  const stopped_at = Date.now(), from_drain = a.lines.length;
  a.kill('SIGTERM');
  await a.line(/worker draining slot=2/, 60000, from_drain);
  kill('one that drains', a, 2);
  const { code } = await a.ended;
  assert.equal(code, 0);
  await a.stop();
  await chat('drained');
  [a] = await startHosts(t, { redis, store_url, mock, config: { ...config, listen: [a.address] }, count: 1 });
  hosts.push(a);
  await chat('and back');

  crowd.kill('SIGTERM');
  await within(crowd.ended, 'end of those who wait for answers', 60000);
  note('all ended');
  const summary = resultOf(crowd);
  const journal = readJournal(journal_file);
  assert.equal((await request(`${front.url}/health/ready`)).status, 200);

  expectExplained(journal, proxy_log, killed);
  const refused = journal.answers.filter(({ at, code }) => at < stopped_at && code === 'draining');
  assert.deepEqual(refused.slice(0, 10), [], 'nobody is refused by a reload or an upgrade');
  assert.equal(summary.unexplained, 0, '503 without Retry-After');

  const rows = compare(b, journal);
  const lost = rows.filter(({ error_code }) => error_code === 'worker_lost').length;
  const whole = journal.turns.filter(({ outcome }) => outcome === 'completed').length;
  const other = rows.length - lost - whole;
  note(`${rows.length} turns: ${whole} whole, ${lost} lost with their workers, ${other} otherwise; ${journal.cuts.length} cut, ${summary.moved} told to move; ` +
    `longest gap between two events ${(summary.gap_us.max / 1000).toFixed(0)} ms, p99 ${(summary.gap_us.p99 / 1000).toFixed(0)} ms`);
  assert.ok(lost <= killed.reduce((sum, { held }) => sum + held.size, 0));
  assert.ok(other <= (rows.length - lost) / 1000, 'of those that no killed worker ran 99.9 % are whole');
  const failed = journal.asked.filter(({ outcome }) => outcome !== 'whole').length;
  assert.ok(failed <= journal.asked.length / 1000, `${failed} of ${journal.asked.length} questions were not answered`);
});
