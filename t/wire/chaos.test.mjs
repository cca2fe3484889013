// Workers are killed and stopped at random while clients with tools hop between them: every turn ends once, whole or
// with a reason, the record agrees, and nothing is left behind.
import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import { ask, insist, seeded, Turn } from './lib/bot.mjs';
import { parseMetrics, sumOf } from './lib/metrics.mjs';
import { ask as askRecord } from './lib/record.mjs';
import { keys, startServer } from './lib/server.mjs';
import { waitFor } from './lib/wait.mjs';

const is_slow_build = /asan|tsan|cover/.test(process.env.PARLEY_BUILD ?? '');
const chaos_ms = Number(process.env.CHAOS_MS ?? 25000), clients = Number(process.env.CHAOS_CLIENTS ?? 24), patience_ms = 20000;
// So that it is reached also where each answer takes long.
const rate = { limit: 30, window: '5s' }, window_ms = 5000;
const rated_key = 'pc_chaos_rated_key_0123456789abcdef';
const key = keys.client;
const tools = [{ type: 'function', function: { name: 'weather', parameters: { type: 'object' } } }];
// What a turn may end with when its worker, or the record's writer, was killed or stopped.
const excuses = new Set(['worker_lost', 'store_unavailable', 'owner_unavailable']);

const seed = Number(process.env.CHAOS_SEED ?? Date.now() % 1e9), random = seeded(seed);

/** One client: turn after turn in one session. */
async function client(world, n, counts, until) {
  const { json: session } = await ask(world, 'session', '/v1/sessions', { body: {} }, [201]);
  for (let i = 0; Date.now() < until; i++) {
    const has_tool = random(3) === 0, tokens = 10 + random(40), output = `result ${n}-${i} ${'x'.repeat(random(2000))}`;
    const input = has_tool ? `[[mock tool=weather args={"n":${i}}]]` : `[[mock tokens=${tokens} interval=${5 + random(20)}]]`;
    const expected = has_tool ? `tool results: ${output}` : Array.from({ length: tokens }, (_, k) => `tok${k}`).join(' ');
    const body = { input, stream: true, request_id: `r-${n}-${i}`, ...(has_tool ? { tools } : {}) };
    const earlier = new Set();
    for (let attempt = 0; ; attempt++) {
      const turn = new Turn(world, session.id, body, output);
      const end = await turn.run();
      assert.ok(!earlier.has(turn.id), 'a lost turn was replayed, not run anew');
      earlier.add(turn.id);
      counts.cuts += turn.cuts;
      await turn.check(expected);
      counts[end.event === 'turn.completed' ? 'completed' : end.data.error.code] ??= 0;
      counts[end.event === 'turn.completed' ? 'completed' : end.data.error.code]++;
      if (end.event === 'turn.completed' || end.data.error.code !== 'worker_lost') break;
      assert.ok(attempt < 20, 'lost again and again');
    }
  }
}

/** Asks as often as it can with the key whose rate is limited; [sent, answered] of those that were let through. */
async function hammer(world, counts, let_through, until) {
  while (Date.now() < until) {
    const sent = performance.now();
    await insist(world, 'limited', async () => {
      const { status } = await world.server.request('/v1/sessions/sess_01234567890123456789abcdef', { key: rated_key, limit_ms: 10000 });
      if (status === 404) let_through.push([sent, performance.now()]);
      else assert.ok(status === 429 || status === 503, `${status}`);
      if (status !== 404) counts[status] = (counts[status] ?? 0) + 1;
      return true;
    });
    await pause(5);
  }
}

/** The workers now; the log says it too, but not every repetition. */
const workers = (server) => fs.readFileSync(`/proc/${server.pid}/task/${server.pid}/children`, 'utf8').split(' ').filter(Boolean).map(Number);

/** The pid that holds the writer's lock, if any. */
function writer(server) {
  const { ino } = fs.statSync(path.join(server.dir, 'parley.db.writer'));
  const held = fs.readFileSync('/proc/locks', 'utf8').split('\n').map((line) => line.trim().split(/\s+/))
    .find(([, kind, , , , file]) => kind === 'FLOCK' && file?.endsWith(`:${ino}`));
  return held ? Number(held[4]) : 0;
}

const is_running = (pid) => fs.existsSync(`/proc/${pid}`);

/** It may have ended since it was looked at. */
function send(pid, signal) {
  try {
    process.kill(pid, signal);
  } catch (e) {
    if (e.code !== 'ESRCH') throw e;
  }
}

async function havoc(server, counts, until) {
  let stopped = 0;
  while (Date.now() < until) {
    await pause(300 + random(200));
    const dice = random(10);
    const all = workers(server), pid = dice < 2 ? writer(server) : all[random(all.length)];
    if (!all.includes(pid) || pid === stopped) continue;
    if (dice === 9 && !is_running(stopped)) {
      send(pid, 'SIGSTOP');
      stopped = pid;
      counts.stopped++;
      if (random(2) === 0) setTimeout(() => send(pid, 'SIGCONT'), 700 + random(600));
    } else {
      send(pid, 'SIGKILL');
      counts[dice < 2 ? 'killed_writers' : 'killed']++;
    }
  }
  if (stopped) send(stopped, 'SIGCONT');
}

/** Resident KiB of every worker. */
const resident = (server) => workers(server).map((pid) => Number(/VmRSS:\s+(\d+)/.exec(fs.readFileSync(`/proc/${pid}/status`, 'utf8'))[1]));

test('under random deaths every turn ends once and the host stays whole', { timeout: chaos_ms + 120000 }, async (t) => {
  t.diagnostic(`CHAOS_SEED=${seed}`);
  const server = await startServer(t, { config: {
    watchdog: { silence: '2s' },
    keys: [{ kind: 'client', app: 'demo', secret: key }, { kind: 'server', app: 'demo', secret: keys.server },
      { kind: 'client', app: 'demo', secret: rated_key, rate }],
  } });
  for (const expected of [/worker died /, /worker (stalled|starved) /, /store write waits /, /turn (hop|end) not saved /, /turn taken over /]) server.expectLog(expected);
  // One may be stopped while it begins, and three may hang in one slot; who writes the record may be stopped for as long as others wait.
  for (const expected of [/worker not ready /, /worker dies again and again /, /store writes fail/, /usage not written /]) server.expectLog(expected);
  // A worker that was stopped for too long and is let go dies of the watchdog's SIGABRT; a failed check would say so.
  for (const expected of [/^worker crashed signal=06$/, /^\S+\(.*\)\[0x[0-9a-f]+\]$/]) server.expectLog(expected);
  const counts = { completed: 0, cuts: 0, killed: 0, killed_writers: 0, stopped: 0 }, let_through = [];
  const until = Date.now() + chaos_ms;
  const chaos = havoc(server, counts, until), world = { server, random, key, patience_ms, excuses, ends: excuses };
  await Promise.all([chaos, hammer(world, counts, let_through, until), hammer(world, counts, let_through, until),
    ...Array.from({ length: clients }, (_, n) => client(world, n, counts, until))]);
  t.diagnostic(JSON.stringify(counts));
  assert.ok(counts.completed > clients && counts.killed > 10, JSON.stringify(counts));

  // The sliding window: whatever lies within one was let through at most `limit` times (its clock counts milliseconds).
  let_through.sort(([a], [b]) => a - b);
  for (const [i, [from]] of let_through.entries()) {
    const inside = let_through.slice(i).filter(([sent, answered]) => sent >= from && answered < from + window_ms - 2).length;
    assert.ok(inside <= rate.limit, `${inside} in ${window_ms} ms`);
  }
  assert.ok(let_through.length > rate.limit, `${let_through.length} let through, ${JSON.stringify(counts)}`);

  await waitFor(async () => (await ask(world, 'health', '/health', {})).json.status === 'ok', 'health ok');
  const live = () => askRecord(server, "SELECT id, owner FROM turns WHERE state = 'live'");
  await waitFor(() => live().length === 0, 'end of every turn in the record').catch((e) => assert.fail(`${e.message}: ${JSON.stringify(live())}`));
  const { n: recorded } = askRecord(server, "SELECT count(*) AS n FROM turns WHERE state <> 'failed' OR error_code <> 'worker_lost'")[0];
  const families = await waitFor(async () => {
    const parsed = parseMetrics((await ask(world, 'metrics', '/metrics', {})).text);
    return sumOf(parsed, 'parley_turns_live') === 0 && parsed;
  }, 'no live turn in the metrics');
  assert.ok(sumOf(families, 'parley_turns_total', { outcome: 'completed' }) <= recorded);
  // A worker that dies between the commit and the count has told nobody.
  const { completed, killed, killed_writers } = counts;
  assert.ok(sumOf(families, 'parley_turns_total', { outcome: 'completed' }) >= completed - killed - killed_writers);
  for (const kib of is_slow_build ? [] : resident(server)) assert.ok(kib < 60000, `${kib} KiB resident`);
  await server.stop();
});
