// Workers are killed and stopped at random while clients with tools hop between them: every turn ends once, whole or
// with a reason, the record agrees, and nothing is left behind.
import assert from 'node:assert/strict';
import fs from 'node:fs';
import { DatabaseSync } from 'node:sqlite';
import path from 'node:path';
import { test } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import { parseMetrics, sumOf } from './lib/metrics.mjs';
import { is_last_event, keys, startServer } from './lib/server.mjs';
import { waitFor, within } from './lib/wait.mjs';

const is_slow_build = /asan|tsan|cover/.test(process.env.PARLEY_BUILD ?? '');
const chaos_ms = Number(process.env.CHAOS_MS ?? 25000), clients = Number(process.env.CHAOS_CLIENTS ?? 24), patience_ms = 20000;
const rate = { limit: 300, window: '5s' }, window_ms = 5000;
const rated_key = 'pc_chaos_rated_key_0123456789abcdef';
const key = keys.client;
const tools = [{ type: 'function', function: { name: 'weather', parameters: { type: 'object' } } }];
// What a turn may end with when its worker, or the record's writer, was killed or stopped.
const excuses = new Set(['worker_lost', 'store_unavailable', 'owner_unavailable']);

let seed = Number(process.env.CHAOS_SEED ?? Date.now() % 1e9);
/** An integer from 0 to n-1. */
function random(n) {
  seed = (Math.imul(seed, 1103515245) + 12345) >>> 0;
  return Math.floor((seed / 2 ** 32) * n);
}

/** Until fn gives something, errors of the connection being the chaos; every other error fails. */
async function insist(what, fn) {
  const deadline = Date.now() + patience_ms;
  for (;;) {
    let last;
    try {
      const value = await fn();
      if (value !== undefined) return value;
    } catch (e) {
      if (!/ECONNRESET|ECONNREFUSED|socket hang up|EPIPE|aborted|no answer to/.test(`${e.code} ${e.message}`)) throw e;
      last = e;
    }
    if (Date.now() > deadline) throw new Error(`${what} did not succeed in ${patience_ms} ms`, { cause: last });
    await pause(20);
  }
}

/** An answer with one of these statuses; 503 is tried again. */
const ask = (server, what, route, options, statuses = [200]) => insist(what, async () => {
  const answer = await server.request(route, { key, limit_ms: 10000, ...options });
  if (answer.status === 503) {
    assert.ok(Number(answer.headers['retry-after']) > 0, `${what}: 503 without Retry-After`);
    return undefined;
  }
  assert.ok(statuses.includes(answer.status), `${what}: ${answer.status} ${answer.text}`);
  return answer;
});

/** What a client knows of one turn. */
class Turn {
  constructor(server, session_id, body, output) {
    Object.assign(this, { server, session_id, body, output, id: null, seq: 0, text: '', ends: [], cuts: 0, trail: [] });
  }

  note({ id, event, data }) {
    const [turn, number] = id.split('.');
    const seq = Number(number);
    this.trail.push(`${number}:${event}`);
    this.id ??= turn;
    assert.equal(turn, this.id, 'an event of another turn');
    if (event === 'turn.snapshot') {
      assert.ok(seq >= this.seq, `snapshot ${seq} after ${this.seq}`);
      assert.ok(data.text.startsWith(this.text), `snapshot loses text: ${data.text} / ${this.text}`);
      this.text = data.text;
    } else {
      assert.equal(seq, this.seq + 1, `gap or repetition: ${this.trail.join(' ')}`);
    }
    this.seq = seq;
    if (event === 'text.delta') {
      assert.equal(data.offset, this.text.length);
      this.text += data.text;
    }
    if (is_last_event({ event })) this.ends.push({ event, data });
  }

  /** Follows one connection to its end; tools are answered on others. */
  async follow(events, answers) {
    try {
      for await (const event of events) {
        assert.equal(this.ends.length, 0, `an event after the last: ${event.event}`);
        if (event.event === 'error') { // it could not be followed: the client attaches again
          this.trail.push(`error ${event.data.error.code}`);
          assert.ok(excuses.has(event.data.error.code), JSON.stringify(event.data));
          return;
        }
        this.note(event);
        if (event.event === 'tool.call') answers.push(this.answer(event.data.tool_call_id));
      }
    } catch (e) {
      if (!/ECONNRESET|aborted|socket hang up/.test(`${e.code} ${e.message}`)) throw e;
    } finally {
      events.close();
    }
    if (this.ends.length === 0) this.cuts++;
  }

  async answer(tool_call_id) {
    const body = { tool_call_id, output: this.output };
    const { status, json } = await ask(this.server, 'tool result', `/v1/sessions/${this.session_id}/tool-results`, { body }, [202, 404, 409]);
    if (status === 404) assert.equal(json.error.code, 'unknown_tool_call');
    if (status === 409) assert.equal(json.same_output, true); // our own, whose answer was cut
  }

  async open() {
    const base = `/v1/sessions/${this.session_id}/turns`;
    const is_known = this.id !== null;
    const events = await this.server.stream(is_known ? `${base}/${this.id}/events` : base,
      is_known ? { key, headers: { 'last-event-id': `${this.id}.${this.seq}` } } : { key, body: this.body });
    if (events.status === 503) {
      this.trail.push(`503 ${events.json.error.code}`);
      return undefined;
    }
    assert.equal(events.status, 200, `${is_known ? 'attach' : 'start'}: ${events.text}; ${this.trail.join(' ')}`);
    return events;
  }

  async run() {
    const answers = [];
    while (this.ends.length === 0) {
      const events = await insist('stream', () => this.open());
      // A client that is cut by itself now and then, too.
      const timer = random(8) === 0 ? setTimeout(() => events.close(), random(300)) : null;
      await within(this.follow(events, answers), `end of ${this.id} after ${this.trail.slice(-6).join(' ')}`, patience_ms + 10000);
      clearTimeout(timer);
    }
    await Promise.all(answers);
    return this.ends[0];
  }

  /** All pages of them. */
  async messages(url) {
    for (let all = [], after = ''; ;) {
      const { json } = await ask(this.server, 'messages', `${url}/messages?limit=100${after}`, {});
      all = all.concat(json.data);
      if (!json.has_more) return all;
      after = `&after=${json.data.at(-1).id}`;
    }
  }

  /** The record says the same, on any worker. */
  async check(expected) {
    const { event, data } = this.ends[0];
    const url = `/v1/sessions/${this.session_id}`;
    const { json } = await ask(this.server, 'state', `${url}/turns/${this.id}`, {});
    assert.equal(`turn.${json.state}`, event, `${JSON.stringify(json)} after ${this.trail.join(' ')}`);
    if (event === 'turn.completed') {
      assert.equal(this.text, expected);
      assert.equal(data.message.content, expected);
      assert.equal(json.text, expected);
      const mine = (await this.messages(url)).filter(({ turn_id }) => turn_id === this.id);
      assert.deepEqual(mine.filter(({ role }) => role === 'user').map(({ content }) => content), [this.body.input]);
      assert.equal(mine.at(-1).content, expected);
      assert.equal(mine.at(-1).partial, undefined);
    } else {
      assert.equal(event, 'turn.failed');
      assert.ok(excuses.has(data.error.code), `${this.id} ${JSON.stringify(data)} ${this.trail.join(' ')}`);
      assert.equal(json.error.code, data.error.code);
    }
  }
}

/** One client: turn after turn in one session. */
async function client(server, n, counts, until) {
  const { json: session } = await ask(server, 'session', '/v1/sessions', { body: {} }, [201]);
  for (let i = 0; Date.now() < until; i++) {
    const has_tool = random(3) === 0, tokens = 10 + random(40), output = `result ${n}-${i} ${'x'.repeat(random(2000))}`;
    const input = has_tool ? `[[mock tool=weather args={"n":${i}}]]` : `[[mock tokens=${tokens} interval=${5 + random(20)}]]`;
    const expected = has_tool ? `tool results: ${output}` : Array.from({ length: tokens }, (_, k) => `tok${k}`).join(' ');
    const body = { input, stream: true, request_id: `r-${n}-${i}`, ...(has_tool ? { tools } : {}) };
    const earlier = new Set();
    for (let attempt = 0; ; attempt++) {
      const turn = new Turn(server, session.id, body, output);
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
async function hammer(server, let_through, until) {
  while (Date.now() < until) {
    const sent = performance.now();
    await insist('limited', async () => {
      const { status } = await server.request('/v1/sessions/sess_01234567890123456789abcdef', { key: rated_key, limit_ms: 10000 });
      if (status === 404) let_through.push([sent, performance.now()]);
      else assert.ok(status === 429 || status === 503, `${status}`);
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

async function havoc(server, counts, until) {
  let stopped = 0;
  while (Date.now() < until) {
    await pause(300 + random(200));
    const dice = random(10);
    const all = workers(server), pid = dice < 2 ? writer(server) : all[random(all.length)];
    if (!all.includes(pid) || pid === stopped) continue;
    if (dice === 9 && !is_running(stopped)) {
      process.kill(pid, 'SIGSTOP');
      stopped = pid;
      counts.stopped++;
      if (random(2) === 0) setTimeout(() => { if (is_running(pid)) process.kill(pid, 'SIGCONT'); }, 700 + random(600));
    } else {
      process.kill(pid, 'SIGKILL');
      counts[dice < 2 ? 'killed_writers' : 'killed']++;
    }
  }
  if (stopped && is_running(stopped)) process.kill(stopped, 'SIGCONT');
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
  // A worker that was stopped for too long and is let go dies of the watchdog's SIGABRT; a failed check would say so.
  for (const expected of [/^worker crashed signal=06$/, /^\S+\(.*\)\[0x[0-9a-f]+\]$/]) server.expectLog(expected);
  const counts = { completed: 0, cuts: 0, killed: 0, killed_writers: 0, stopped: 0 }, let_through = [];
  const until = Date.now() + chaos_ms;
  const chaos = havoc(server, counts, until);
  await Promise.all([chaos, hammer(server, let_through, until), hammer(server, let_through, until),
    ...Array.from({ length: clients }, (_, n) => client(server, n, counts, until))]);
  t.diagnostic(JSON.stringify(counts));
  assert.ok(counts.completed > clients && counts.killed > 10, JSON.stringify(counts));

  // The sliding window: whatever lies within one was let through at most `limit` times (its clock counts milliseconds).
  let_through.sort(([a], [b]) => a - b);
  for (const [i, [from]] of let_through.entries()) {
    const inside = let_through.slice(i).filter(([sent, answered]) => sent >= from && answered < from + window_ms - 2).length;
    assert.ok(inside <= rate.limit, `${inside} in ${window_ms} ms`);
  }
  assert.ok(let_through.length > rate.limit, `${let_through.length} let through`);

  await waitFor(async () => (await ask(server, 'health', '/health', {})).json.status === 'ok', 'health ok');
  const database = new DatabaseSync(path.join(server.dir, 'parley.db'), { readOnly: true });
  const live = () => database.prepare("SELECT id, owner FROM turns WHERE state = 'live'").all();
  await waitFor(() => live().length === 0, 'end of every turn in the record').catch((e) => assert.fail(`${e.message}: ${JSON.stringify(live())}`));
  const { n: recorded } = database.prepare("SELECT count(*) AS n FROM turns WHERE state <> 'failed' OR error_code <> 'worker_lost'").get();
  database.close();
  const families = await waitFor(async () => {
    const parsed = parseMetrics((await ask(server, 'metrics', '/metrics', {})).text);
    return sumOf(parsed, 'parley_turns_live') === 0 && parsed;
  }, 'no live turn in the metrics');
  assert.ok(sumOf(families, 'parley_turns_total', { outcome: 'completed' }) <= recorded);
  // A worker that dies between the commit and the count has told nobody.
  const { completed, killed, killed_writers } = counts;
  assert.ok(sumOf(families, 'parley_turns_total', { outcome: 'completed' }) >= completed - killed - killed_writers);
  for (const kib of is_slow_build ? [] : resident(server)) assert.ok(kib < 60000, `${kib} KiB resident`);
  await server.stop();
});
