// bot - a client that does not give up, and notes what it was told: for servers whose workers, hosts and networks fail.
//
//   const random = seeded(seed);
//   const world = { server, random, key, patience_ms, excuses, ends };      server: anything with request() and stream()
//   const turn = new Turn(world, session_id, { input, stream: true, request_id }, tool_output);
//   const { event, data } = await turn.run();                         the end, however often it was cut
import assert from 'node:assert/strict';
import { setTimeout as pause } from 'node:timers/promises';
import { is_last_event } from './server.mjs';
import { within } from './wait.mjs';

// A world's excuses are codes of errors with which a turn may not be followed for now; its ends those of a turn that failed.

/** A generator of integers from 0 to n-1. */
export function seeded(seed) {
  let state = seed >>> 0;
  return (n) => {
    state = (Math.imul(state, 1103515245) + 12345) >>> 0;
    return Math.floor((state / 2 ** 32) * n);
  };
}

/** Several hosts as one server: each request goes to any of them. */
export function anyOf(hosts, random) {
  const pick = () => hosts[random(hosts.length)];
  return { hosts, request: (...args) => pick().request(...args), stream: (...args) => pick().stream(...args) };
}

/** Until fn gives something, errors of the connection being the chaos; every other error fails. */
export async function insist(world, what, fn) {
  const deadline = Date.now() + world.patience_ms;
  for (;;) {
    let last;
    try {
      const value = await fn();
      if (value !== undefined) return value;
    } catch (e) {
      if (!/ECONNRESET|ECONNREFUSED|socket hang up|EPIPE|aborted|no answer to/.test(`${e.code} ${e.message}`)) throw e;
      last = e;
    }
    if (Date.now() > deadline) throw new Error(`${what} did not succeed in ${world.patience_ms} ms`, { cause: last });
    await pause(20);
  }
}

/** An answer with one of these statuses; 503 is tried again. */
export const ask = (world, what, route, options, statuses = [200]) => insist(world, what, async () => {
  const answer = await world.server.request(route, { key: world.key, limit_ms: 10000, ...options });
  if (answer.status === 503) {
    assert.ok(Number(answer.headers['retry-after']) > 0, `${what}: 503 without Retry-After`);
    return undefined;
  }
  assert.ok(statuses.includes(answer.status), `${what}: ${answer.status} ${answer.text}`);
  return answer;
});

/** What a client knows of one turn. */
export class Turn {
  constructor(world, session_id, body, output) {
    Object.assign(this, { world, session_id, body, output, id: null, seq: 0, text: '', ends: [], cuts: 0, trail: [], told: new Map() });
  }

  note({ id, event, data: raw }) {
    const [turn, number] = id.split('.');
    const seq = Number(number), data = JSON.parse(raw);
    this.trail.push(`${number}:${event}`);
    this.id ??= turn;
    assert.equal(turn, this.id, 'an event of another turn');
    if (event === 'turn.snapshot') {
      assert.ok(seq >= this.seq, `snapshot ${seq} after ${this.seq}`);
      assert.ok(data.text.startsWith(this.text), `snapshot loses text: ${data.text} / ${this.text}`);
      this.text = data.text;
    } else {
      assert.equal(seq, this.seq + 1, `gap or repetition: ${this.trail.join(' ')}`);
      this.told.set(seq, `${event} ${raw}`);
    }
    this.seq = seq;
    if (event === 'text.delta') {
      assert.equal(data.offset, this.text.length);
      this.text += data.text;
    }
    if (is_last_event({ event })) this.ends.push({ event, data });
    return data;
  }

  /** Follows one connection to its end; tools are answered on others. */
  async follow(events, answers) {
    try {
      for await (const event of events) {
        assert.equal(this.ends.length, 0, `an event after the last: ${event.event}`);
        if (event.event === 'error') { // it could not be followed: the client attaches again
          const { code } = JSON.parse(event.data).error;
          this.trail.push(`error ${code}`);
          assert.ok(this.world.excuses.has(code), event.data);
          return;
        }
        const data = this.note(event);
        if (event.event === 'tool.call') answers.push(this.answer(data.tool_call_id));
      }
    } catch (e) {
      if (!/ECONNRESET|aborted|socket hang up/.test(`${e.code} ${e.message}`)) throw e;
    } finally {
      events.close();
    }
    if (this.ends.length === 0) this.cuts++;
  }

  postResult(tool_call_id, output) {
    const body = { tool_call_id, output };
    return ask(this.world, 'tool result', `/v1/sessions/${this.session_id}/tool-results`, { body }, [202, 404, 409]);
  }

  async answer(tool_call_id) {
    const { status, json } = await this.postResult(tool_call_id, this.output);
    if (status === 404) assert.equal(json.error.code, 'unknown_tool_call');
    if (status === 409) assert.equal(json.same_output, true); // our own, whose answer was cut
  }

  async open() {
    const { server, key } = this.world;
    const base = `/v1/sessions/${this.session_id}/turns`;
    const is_known = this.id !== null;
    const events = await server.stream(is_known ? `${base}/${this.id}/events` : base,
      { raw: true, key, ...(is_known ? { headers: { 'last-event-id': `${this.id}.${this.seq}` } } : { body: this.body }) });
    if (events.status === 503) {
      this.trail.push(`503 ${events.json.error.code}`);
      return undefined;
    }
    assert.equal(events.status, 200, `${is_known ? 'attach' : 'start'}: ${events.text}; ${this.trail.join(' ')}`);
    return events;
  }

  /** How long a client stays on a connection at most; null: until it ends. */
  stay_ms() {
    const { random } = this.world;
    return random(8) === 0 ? random(300) : null;
  }

  async run() {
    const answers = [], { patience_ms } = this.world;
    while (this.ends.length === 0) {
      const events = await insist(this.world, `stream ${this.id} ${this.trail.slice(-6).join(' ')}`, () => this.open());
      const stay_ms = this.stay_ms();
      const timer = stay_ms === null ? null : setTimeout(() => events.close(), stay_ms);
      await within(this.follow(events, answers), `end of ${this.id} after ${this.trail.slice(-6).join(' ')}`, patience_ms + 10000);
      clearTimeout(timer);
    }
    await Promise.all(answers);
    return this.ends[0];
  }

  /** All pages of its session's messages; those that are of this turn. */
  async messages() {
    for (let all = [], after = ''; ;) {
      const { json } = await ask(this.world, 'messages', `/v1/sessions/${this.session_id}/messages?limit=100${after}`, {});
      all = all.concat(json.data);
      if (!json.has_more) return all.filter(({ turn_id }) => turn_id === this.id);
      after = `&after=${json.data.at(-1).id}`;
    }
  }

  /** The record says the same, on any worker. */
  async check(expected) {
    const { event, data } = this.ends[0];
    const { json } = await ask(this.world, 'state', `/v1/sessions/${this.session_id}/turns/${this.id}`, {});
    assert.equal(`turn.${json.state}`, event, `${JSON.stringify(json)} after ${this.trail.join(' ')}`);
    if (event === 'turn.completed') {
      assert.equal(this.text, expected);
      assert.equal(data.message.content, expected);
      assert.equal(json.text, expected);
      const mine = await this.messages();
      assert.deepEqual(mine.filter(({ role }) => role === 'user').map(({ content }) => content), [this.body.input]);
      assert.equal(mine.at(-1).content, expected);
      assert.equal(mine.at(-1).partial, undefined);
    } else {
      assert.equal(event, 'turn.failed');
      assert.ok(this.world.ends.has(data.error.code), `${this.id} ${JSON.stringify(data)} ${this.trail.join(' ')}`);
      assert.equal(json.error.code, data.error.code);
    }
  }
}
