// Many sockets follow one session while workers are killed under them: whoever reconnects and resumes has every event once and in order.
import assert from 'node:assert/strict';
import fs from 'node:fs';
import { test } from 'node:test';
import { keys, newSession, startServer } from './lib/server.mjs';
import { holders } from './lib/sockets.mjs';
import { waitFor, within } from './lib/wait.mjs';
import { Chat } from './lib/ws.mjs';

const rounds = Number(process.env.CHAOS_ROUNDS ?? 32), follower_count = 6, patience_ms = 30000;
// What an action may be answered with while a worker, perhaps the record's writer, is being replaced.
const excuses = new Set(['store_unavailable', 'owner_unavailable', 'draining']);
const words = (n) => Array.from({ length: n }, (_, i) => `tok${i}`).join(' ');

let seed = Number(process.env.CHAOS_SEED ?? Date.now() % 1e9);
/** An integer from 0 to n-1. */
function random(n) {
  seed = (Math.imul(seed, 1103515245) + 12345) >>> 0;
  return Math.floor((seed / 2 ** 32) * n);
}

/** The workers now, as the kernel knows them. */
const workers = (server) => fs.readFileSync(`/proc/${server.pid}/task/${server.pid}/children`, 'utf8').split(' ').filter(Boolean).map(Number);

/** One user with one session: connects again when cut, and asks for what it has not. */
class Follower {
  constructor(server, session_id) {
    Object.assign(this, { server, session_id, chat: null, turns: new Map(), cuts: 0, count: 0, refusals: [] });
  }

  async connect() {
    const deadline = Date.now() + patience_ms;
    for (;;) {
      this.chat = new Chat(this.server);
      const chat = this.chat;
      chat.ws.on('message', (bytes) => this.note(JSON.parse(bytes)));
      try {
        await within(chat.opened, 'open WebSocket');
        break;
      } catch (e) {
        chat.cut();
        if (Date.now() > deadline || (e.status && e.status !== 503)) throw e;
      }
    }
  }

  /** Connects to follow what comes. A turn that the record still has as live is told from its beginning by this. */
  async join() {
    while (this.chat === null || this.is_cut) {
      await this.connect();
      for (const turn of this.turns.values()) turn.may_begin_anew = true;
      await this.ask(() => ({ action: 'join', payload: { session_id: this.session_id } }), ({ status }) => status === 'joined');
    }
  }

  get is_cut() { return this.chat.closed !== null; }

  /** Sends until it is answered, or the socket is cut. */
  async ask(message, is_answer) {
    for (const deadline = Date.now() + patience_ms; !this.is_cut;) {
      const request_id = `ask-${++this.count}`;
      this.chat.send({ ...message(), request_id });
      const found = await waitFor(() => this.is_cut || this.chat.frames.find((frame) => frame.request_id === request_id &&
        (is_answer(frame) || (frame.status === 'error' && frame.seq === undefined))), `answer to ${request_id}`, patience_ms);
      if (found === true || is_answer(found)) return;
      assert.ok(excuses.has(found.chunk.code), JSON.stringify(found));
      assert.ok(Date.now() < deadline, JSON.stringify(found));
    }
  }

  turn(turn_id) {
    if (!this.turns.has(turn_id)) this.turns.set(turn_id, { seq: 0, text: '', end: null, trail: [] });
    return this.turns.get(turn_id);
  }

  /** Each frame of a turn as it comes, over whichever socket. */
  note(frame) {
    if (frame.seq === undefined) {
      if (frame.status === 'error') this.refusals.push(frame.chunk.code);
      return;
    }
    const turn = this.turn(frame.turn_id), { chunk } = frame;
    turn.trail.push(`${frame.seq}:${frame.status}`);
    if (turn.may_begin_anew && frame.seq <= turn.seq) Object.assign(turn, { seq: 0, text: '', end: null });
    turn.may_begin_anew = false;
    assert.ok(frame.seq > turn.seq, `repeated or out of order: ${turn.trail.join(' ')}`);
    assert.equal(turn.end, null, `after the end: ${turn.trail.join(' ')}`);
    turn.seq = frame.seq;
    if (chunk?.type === 'snapshot') {
      assert.ok(chunk.data.startsWith(turn.text), 'a snapshot that loses text');
      turn.text = chunk.data;
    } else if (chunk?.type === 'text') {
      assert.equal(chunk.metadata.offset, turn.text.length, `text is missing: ${turn.trail.join(' ')}`);
      turn.text += chunk.data;
    }
    if (frame.status === 'complete') turn.end = 'complete';
    if (frame.status === 'error') turn.end = chunk.code;
  }

  /** To the end of this turn, over as many sockets as it takes. */
  async finish(turn_id) {
    const turn = this.turn(turn_id);
    for (const deadline = Date.now() + patience_ms; !turn.end;) {
      await waitFor(() => turn.end || this.is_cut, `end of ${turn_id} after ${turn.trail.slice(-5).join(' ')}; ${this.refusals.slice(-5)}`, patience_ms);
      if (turn.end) break;
      assert.ok(Date.now() < deadline);
      this.cuts++;
      await this.connect();
      const after = turn.seq;
      if (!turn.end) await this.ask(() => ({ action: 'resume', payload: { session_id: this.session_id, turn_id, after: turn.seq } }), ({ seq }) => seq > after);
    }
    return turn;
  }
}

/** Starts a turn, whatever happens meanwhile: its id. */
async function begin(follower, text, key) {
  for (let i = 0; ; i++) {
    const request_id = `${key}-${i}`;
    if (follower.is_cut) await follower.join();
    follower.chat.chat({ text, idempotency_key: key, session_id: follower.session_id }, request_id);
    const first = await waitFor(() => follower.is_cut || follower.chat.frames.find((frame) => frame.request_id === request_id), 'beginning', patience_ms);
    if (first === true) continue;
    if (first.seq !== undefined) return first.turn_id;
    assert.ok(excuses.has(first.chunk.code) || first.chunk.code === 'turn_in_progress', JSON.stringify(first));
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

test(`${rounds} deaths under ${follower_count} sockets of one session`, { timeout: 280000 }, async (t) => {
  t.diagnostic(`CHAOS_SEED=${seed}`);
  const server = await startServer(t);
  for (const expected of [/worker died /, /store write waits /, /turn (hop|end) not saved /, /turn taken over /]) server.expectLog(expected);
  const { id } = await newSession(server);
  const followers = Array.from({ length: follower_count }, () => new Follower(server, id));
  t.after(() => followers.forEach(({ chat }) => chat?.cut()));
  const failures = [];
  const on_uncaught = (e) => failures.push(e); // of note(), which the socket calls
  process.on('uncaughtException', on_uncaught);
  t.after(() => process.off('uncaughtException', on_uncaught));
  for (const follower of followers) await follower.join();
  const counts = { complete: 0, worker_lost: 0 };
  for (let round = 0; round < rounds; round++) {
    const starter = followers[random(follower_count)], tokens = 10 + random(40);
    // Those whose worker is to die last longer: on a busy machine all others may have ended before we get to it.
    const interval = (round % 3 === 0 ? 20 : 3) + random(10);
    const turn_id = await begin(starter, `[[mock tokens=${tokens} interval=${interval}]]`, `round-${round}`);
    await waitFor(() => starter.is_cut || starter.turn(turn_id).seq > random(tokens), 'some of it', patience_ms);
    // In turn: the owner's worker (mostly), another's, and a client that goes by itself.
    const held = holders(server.port, workers(server));
    const pid = held.get(round % 3 === 0 ? starter.chat.local_port : followers[random(follower_count)].chat.local_port);
    if (round % 3 === 2) followers[random(follower_count)].chat.cut();
    else if (pid) process.kill(pid, 'SIGKILL');
    const ends = await Promise.all(followers.map((follower) => follower.finish(turn_id)));
    assert.deepEqual(failures, []);
    const [{ end }] = ends;
    for (const turn of ends) {
      assert.equal(turn.end, end, JSON.stringify(ends.map((other) => other.trail.slice(-4))));
      if (end === 'complete') assert.equal(turn.text, words(tokens));
      else assert.ok(words(tokens).startsWith(turn.text), turn.text);
    }
    assert.ok(end in counts || excuses.has(end), end);
    counts[end] = (counts[end] ?? 0) + 1;
    for (const follower of followers) if (follower.is_cut) await follower.join();
  }
  t.diagnostic(JSON.stringify({ ...counts, cuts: followers.map(({ cuts }) => cuts) }));
  assert.ok(counts.complete > 0 && counts.worker_lost > 0, JSON.stringify(counts));
  await waitFor(async () => (await server.request('/health', { key: keys.client })).json?.status === 'ok', 'health');
});
