// A minute of two hosts whose workers are killed and whose connections to Redis are delayed, held, lost, reset and refused,
// while clients with tools go from host to host: each turn is, byte for byte, what its owner and the record say, and
// ends once, whole or with a reason.
//
// HOSTS_BOT_SEED repeats what the clients and the havoc choose, HOSTS_BOT_MS and HOSTS_BOT_CLIENTS how long and how many.
import assert from 'node:assert/strict';
import fs from 'node:fs';
import { test } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import { anyOf, ask, insist, seeded, Turn } from './lib/bot.mjs';
import { startCutter } from './lib/cutter.mjs';
import { isUp, startHosts } from './lib/hosts.mjs';
import { collect } from './lib/http.mjs';
import { parseMetrics, sumOf } from './lib/metrics.mjs';
import { sharedPostgres } from './lib/postgres.mjs';
import { startRedis } from './lib/redis.mjs';
import { is_last_event, keys, startMock } from './lib/server.mjs';
import { waitFor } from './lib/wait.mjs';

const bot_ms = Number(process.env.HOSTS_BOT_MS ?? 60000), clients = Number(process.env.HOSTS_BOT_CLIENTS ?? 16);
const seed = Number(process.env.HOSTS_BOT_SEED ?? Date.now() % 1e9);
const tools = [{ type: 'function', function: { name: 'weather', parameters: { type: 'object' } } }];
const workers = 4;

/** A client that seldom stays where it is. */
class Hopper extends Turn {
  stay_ms() {
    const { random } = this.world;
    return random(2) === 0 ? random(500) : null;
  }

  /** Now and then from two places at once, and they do not agree. */
  async answer(tool_call_id) {
    const { random } = this.world;
    const outputs = random(2) === 0 ? [this.output] : [this.output, `another ${this.output}`];
    const answers = await Promise.all(outputs.map((output) => this.postResult(tool_call_id, output)));
    const accepted = outputs.filter((_, i) => answers[i].status === 202);
    assert.ok(accepted.length <= 1, 'two results for one call');
    for (const [i, { status, json }] of answers.entries()) {
      if (status === 404) assert.equal(json.error.code, 'unknown_tool_call');
      // Its own, whose answer was cut or late, or the other one's.
      else if (status === 409 && json.same_output) accepted.push(outputs[i]);
    }
    assert.ok(new Set(accepted).size <= 1, `${accepted.length} results were taken for one call`);
    [this.taken] = accepted;
  }

  /** What its owner still knows, on any host, is what was told; after the owner's death it is the record's summary. */
  async compareFeed() {
    const { world } = this;
    const url = `/v1/sessions/${this.session_id}/turns/${this.id}/events?after=0`;
    const events = await insist(world, 'replay', async () => {
      const stream = await world.server.stream(url, { raw: true, key: world.key });
      if (stream.status === 503) return undefined;
      assert.equal(stream.status, 200, stream.text);
      const seen = await collect(stream, (event) => is_last_event(event) || event.event === 'error').finally(() => stream.close());
      return is_last_event(seen.at(-1)) ? seen : undefined;
    });
    for (const { id, event, data } of events) {
      const told = this.told.get(Number(id.split('.')[1]));
      if (event === 'turn.snapshot') {
        const { text } = JSON.parse(data);
        assert.ok(this.text.startsWith(text), `${this.id}: recorded ${text}, told ${this.text}`);
      } else if (told !== undefined && this.ends[0].event === 'turn.completed') {
        assert.equal(`${event} ${data}`, told, `${this.id} ${id}`);
      }
    }
    const end = events.at(-1);
    assert.equal(end.event, this.ends[0].event);
    return events[0].event !== 'turn.snapshot';
  }
}

async function client(world, n, counts, until) {
  const { random } = world;
  const { json: session } = await ask(world, 'session', '/v1/sessions', { body: {} }, [201]);
  const turns = [];
  for (let i = 0; Date.now() < until; i++) {
    const has_tool = random(2) === 0, tokens = 10 + random(40), output = `result ${n}-${i} ${'x'.repeat(random(2000))}`;
    const input = has_tool ? `[[mock tool=weather args={"n":${i}}]]` : `[[mock tokens=${tokens} interval=${5 + random(20)}]]`;
    const body = { input, stream: true, request_id: `r-${n}-${i}`, ...(has_tool ? { tools } : {}) };
    for (let attempt = 0; ; attempt++) {
      const turn = new Hopper(world, session.id, body, output);
      const { event, data } = await turn.run();
      assert.ok(turns.every(({ id }) => id !== turn.id), 'a lost turn was replayed, not run anew');
      turns.push(turn);
      if (has_tool && event === 'turn.completed') {
        turn.taken ??= data.message.content.slice('tool results: '.length); // the answer to its post was lost
        assert.ok([output, `another ${output}`].includes(turn.taken), data.message.content);
      }
      await turn.check(has_tool ? `tool results: ${turn.taken}` : Array.from({ length: tokens }, (_, k) => `tok${k}`).join(' '));
      if (await turn.compareFeed()) counts.compared_whole++;
      const how = event === 'turn.completed' ? 'completed' : data.error.code;
      counts[how] = (counts[how] ?? 0) + 1;
      counts.cuts += turn.cuts;
      if (event === 'turn.completed') break;
      assert.ok(attempt < 20, 'lost again and again');
    }
  }
  return { session_id: session.id, turns };
}

/** Each host's way to Redis is bad now and then, in one way after the other, by itself. */
async function worsen(cutter, random, counts, until) {
  const ways = ['cut', 'refuse', 'hold', 'delay', 'swallow', 'halfOpen', 'drip'];
  while (Date.now() < until) {
    await pause(500 + random(3000));
    const way = ways[random(ways.length)];
    cutter[way](way === 'drip' ? 1 + random(30) : 20 + random(500));
    counts.ways[way] = (counts.ways[way] ?? 0) + 1;
    await pause(200 + random(2500));
    cutter.open();
  }
}

const workersOf = (host) => fs.readFileSync(`/proc/${host.pid}/task/${host.pid}/children`, 'utf8').split(' ').filter(Boolean).map(Number);

async function kill(hosts, random, counts, until) {
  while (Date.now() < until) {
    await pause(600 + random(1200));
    const pids = workersOf(hosts[random(hosts.length)]);
    if (pids.length < workers) continue;
    process.kill(pids[random(pids.length)], 'SIGKILL');
    counts.killed++;
  }
}

/** The rows of a client's session are what it was told, no more and no less. */
async function checkRecord(postgres, database, { session_id, turns }) {
  const select = `SELECT coalesce(json_agg(json_build_object('id', id, 'state', state, 'code', error_code, 'text', coalesce(text, ''), 'messages',
    (SELECT json_agg(json_build_object('role', role, 'content', body->'content') ORDER BY position) FROM messages WHERE turn_id = turns.id))), '[]')
    FROM turns WHERE session_id = '${session_id}'`;
  const rows = new Map(JSON.parse(await postgres.sql(select, database)).map((row) => [row.id, row]));
  for (const turn of turns) {
    const row = rows.get(turn.id), [{ event, data }] = turn.ends;
    rows.delete(turn.id);
    assert.equal(`turn.${row.state}`, event, turn.id);
    if (event === 'turn.completed') {
      assert.equal(row.text, turn.text);
      assert.equal(row.text, data.message.content);
      const roles = row.messages.map(({ role }) => role).join(' ');
      assert.equal(roles, turn.body.tools ? 'user assistant tool assistant' : 'user assistant', turn.id);
      assert.equal(row.messages[0].content, turn.body.input);
      assert.equal(row.messages.at(-1).content, turn.text);
    } else {
      assert.equal(row.code, data.error.code);
      assert.ok(turn.text.startsWith(row.text), `${turn.id}: recorded ${row.text}, told ${turn.text}`);
    }
  }
  // Begun, and lost before anybody was told of it.
  for (const row of rows.values()) assert.deepEqual([row.state, row.code], ['failed', 'worker_lost'], JSON.stringify(row));
}

test('clients that hop between two hosts, whatever becomes of Redis and the workers', { timeout: bot_ms + 120000 }, async (t) => {
  t.diagnostic(`HOSTS_BOT_SEED=${seed}`);
  process.setMaxListeners(50);
  const [redis, mock, postgres] = await Promise.all([startRedis(t), startMock(t), sharedPostgres()]);
  const cutters = await Promise.all([1, 2].map(() => startCutter(t, redis)));
  const store_url = await postgres.newDatabase(), database = new URL(store_url).pathname.slice(1);
  const hosts = await startHosts(t, { redis, store_url, mock, cutters, config: { workers, store: { pool_size: 3 } } });
  for (const host of hosts) for (const line of [/worker died /, /backplane degraded /, /turn (hop|end) not saved /, /stats /]) host.expectLog(line);

  // Clients and havoc draw from generators of their own: how they interleave changes nothing.
  const worldOf = (n) => {
    const random = seeded(seed + 7919 * n);
    return { server: anyOf(hosts, random), random, key: keys.client, patience_ms: 30000, excuses: new Set(['owner_unavailable']), ends: new Set(['worker_lost']) };
  };
  const counts = { completed: 0, compared_whole: 0, cuts: 0, killed: 0, ways: {} }, until = Date.now() + bot_ms;
  const [, , , ...seen] = await Promise.all([kill(hosts, seeded(seed + 1), counts, until),
    ...cutters.map((cutter, i) => worsen(cutter, seeded(seed + 2 + i), counts, until)),
    ...Array.from({ length: clients }, (_, n) => client(worldOf(n + 1), n, counts, until))]);
  t.diagnostic(JSON.stringify(counts));
  assert.ok(counts.completed > 2 * clients && counts.killed > bot_ms / 3000 && counts.compared_whole > counts.completed / 2, JSON.stringify(counts));

  await Promise.all(hosts.map(isUp));
  await waitFor(async () => (await postgres.sql("SELECT count(*) FROM turns WHERE state = 'live'", database)) === '0', 'no live turn in the record', 20000);
  for (const of_client of seen) await checkRecord(postgres, database, of_client);
  assert.equal(await postgres.sql('SELECT count(*) FROM (SELECT 1 FROM turns WHERE state = \'completed\' GROUP BY session_id, request_id HAVING count(*) > 1) AS twice', database), '0');
  for (const [i, host] of hosts.entries()) {
    await waitFor(async () => sumOf(parseMetrics((await host.request('/metrics')).text), 'parley_turns_live') === 0, 'no live turn in the metrics');
    await waitFor(() => cutters[i].pairs.size === 2 * workers, 'two connections to Redis for each worker');
  }
});
