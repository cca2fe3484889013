// Two hosts as one: who follows a turn may change hosts in the middle, fifty may follow it over both, a result counts
// once wherever it is posted, and simultaneous opens for one device are one session.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { seeded } from './lib/bot.mjs';
import { startHosts } from './lib/hosts.mjs';
import { collect } from './lib/http.mjs';
import { sharedPostgres } from './lib/postgres.mjs';
import { startRedis } from './lib/redis.mjs';
import { is_last_event, keys, newSession, startMock } from './lib/server.mjs';
import { holders } from './lib/sockets.mjs';
import { waitFor, within } from './lib/wait.mjs';

const tools = ['weather', 'clock'].map((name) => ({ type: 'function', function: { name, parameters: { type: 'object' } } }));
const key = keys.client;
const seed = Number(process.env.TWO_HOSTS_SEED ?? Date.now() % 1e9), random = seeded(seed);
let redis, mock, postgres, store_url, hosts;

before(async () => {
  [redis, mock, postgres] = await Promise.all([startRedis(null), startMock(null), sharedPostgres()]);
  store_url = await postgres.newDatabase();
  hosts = await startHosts(null, { redis, store_url, mock });
});
after(async () => {
  for (const host of hosts ?? []) await host.stop();
  await redis?.stop();
  await mock?.stop();
});

const anyHost = () => hosts[random(hosts.length)];
const lineOf = ({ id, event, data }) => `${id} ${event} ${data}`;

/** All events of a turn as lines, over as many connections as it takes: each to any host, each for some events. */
async function followAbout(session_id, turn_id, some) {
  const lines = [];
  for (let last = null; ;) {
    const events = await anyHost().stream(`/v1/sessions/${session_id}/turns/${turn_id}/events`,
      { raw: true, key, headers: last ? { 'last-event-id': last } : {} });
    assert.equal(events.status, 200, events.text);
    let stay = some();
    for await (const event of events) {
      lines.push(lineOf(event));
      last = event.id;
      if (is_last_event(event)) return lines;
      if (--stay <= 0) break;
    }
    events.close();
  }
}

test('fifty follow one turn over both hosts, half of them from host to host: each is told the same', { timeout: 60000 }, async (t) => {
  t.diagnostic(`TWO_HOSTS_SEED=${seed}`);
  const { id } = await newSession(hosts[0]);
  const events = await hosts[0].stream(`/v1/sessions/${id}/turns`,
    { raw: true, key, body: { stream: true, input: 'go [[mock tokens=150 interval=15]]' } });
  assert.equal(events.status, 200, events.text);
  const turn = events.headers['x-parley-turn'];
  const told = (async () => {
    const lines = [];
    for await (const event of events) lines.push(lineOf(event));
    return lines;
  })();
  const all = Array.from({ length: 50 }, (_, n) => followAbout(id, turn, n % 2 ? () => 1 + random(20) : () => Infinity));
  const expected = await within(told, 'end of the turn', 20000);
  assert.match(expected.at(-1), /turn\.completed/);
  for (const lines of await within(Promise.all(all), 'end of fifty', 20000)) assert.deepEqual(lines, expected);
  // And from the beginning, when it has ended.
  for (const lines of await Promise.all([1, 2, 3, 4].map(() => followAbout(id, turn, () => Infinity)))) assert.deepEqual(lines, expected);
});

test('a result that is posted on both hosts at once counts once', async () => {
  for (let i = 0; i < 25; i++) {
    const { id } = await newSession(anyHost());
    const events = await anyHost().stream(`/v1/sessions/${id}/turns`,
      { key, body: { stream: true, input: '[[mock tool=weather args={} tool=clock args={}]]', tools } });
    const post = (host, tool_call_id, output) => host.request(`/v1/sessions/${id}/tool-results`, { key, body: { tool_call_id, output } });
    const calls = [];
    let answers, end;
    for await (const { event, data } of events) {
      if (event === 'tool.call' && calls.push(data.tool_call_id) === 2) {
        answers = await Promise.all(hosts.map((host, n) => post(host, calls[0], `from host ${n}`)));
        assert.equal((await post(anyHost(), calls[1], 'noon')).status, 202); // until then the turn waits
      }
      end = { event, data };
    }
    assert.deepEqual(answers.map(({ status }) => status).sort(), [202, 409], answers.map(({ text }) => text).join());
    const first = answers.findIndex(({ status }) => status === 202);
    assert.equal(answers[1 - first].json.same_output, false);
    assert.equal(end.event, 'turn.completed');
    assert.equal(end.data.message.content, `tool results: from host ${first}; noon`);
  }
});

test('200 races of opens for one device on two hosts: one session each', { timeout: 60000 }, async () => {
  const race = async (n) => {
    const answers = await Promise.all([0, 1, 0, 1].map((host) => hosts[host].request('/v1/sessions',
      { key: keys.server, body: { device_id: `race-${n}`, reuse: true } })));
    for (const { status, text } of answers) assert.ok(status === 200 || status === 201, text);
    assert.equal(new Set(answers.map(({ json }) => json.id)).size, 1, answers.map(({ json }) => json.id).join());
    assert.equal(answers.filter(({ status }) => status === 201).length, 1);
    for (const { status, json } of answers) assert.equal(json.reused, status === 200);
  };
  for (let n = 0; n < 200; n += 8) await Promise.all(Array.from({ length: 8 }, (_, i) => race(n + i)));
  const database = new URL(store_url).pathname.slice(1);
  assert.equal(await postgres.sql("SELECT count(*), count(DISTINCT device_id) FROM chat_sessions WHERE device_id LIKE 'race-%'", database), '200|200');
});

/** A long turn that runs on this worker of a host, followed by four on the other one. */
async function turnOn(a, b, slot) {
  for (;;) {
    const { id } = await newSession(a);
    const events = await a.stream(`/v1/sessions/${id}/turns`, { key, body: { stream: true, input: 'go [[mock tokens=3000 interval=10]]' } });
    const url = `/v1/sessions/${id}/turns/${events.headers['x-parley-turn']}`;
    if (holders(a.port, a.workers()).get(events.local_port) !== a.workers()[slot]) {
      await b.request(`${url}/cancel`, { key, method: 'POST' });
      events.close();
      continue;
    }
    const followers = await Promise.all([1, 2, 3, 4].map(() => b.stream(`${url}/events`, { key })));
    const waiting = b.request(`${url}?wait=20`, { key, limit_ms: 20000 }).then(({ json }) => json);
    const ended = Promise.all(followers.map(async (follower) => {
      const seen = await collect(follower, is_last_event, 20000);
      return { at: Date.now(), seen };
    }));
    await waitFor(async () => (await b.request(url, { key })).json.state === 'live', 'a live turn');
    return { id, url, waiting, ended };
  }
}

/** One second is promised; the rest is what a busy machine adds. A lease would be thirty. */
async function checkLost(b, { id, url, waiting, ended }, killed_at) {
  for (const { at, seen } of await ended) {
    const end = seen.at(-1);
    assert.deepEqual([end.event, end.data.error?.code], ['turn.failed', 'worker_lost'], JSON.stringify(end));
    assert.ok(at - killed_at < 15000, `told after ${at - killed_at} ms`);
    assert.deepEqual(seen.map((event) => Number(event.id.split('.')[1])), seen.map((_, i) => i + 1));
  }
  const answer = await waiting;
  assert.equal(answer.error?.code, 'worker_lost', JSON.stringify(answer));
  assert.ok(Date.now() - killed_at < 15000, `who waits was answered after ${Date.now() - killed_at} ms`);
  const { status, json } = await b.request(`/v1/sessions/${id}/turns`, { key, body: { input: 'again' } });
  assert.deepEqual([status, json.message?.content], [200, 'echo: again']);
}

test('a worker of one host dies: who follows from the other is told within a second, and the session goes on', { timeout: 90000 }, async () => {
  const [a, b] = hosts;
  // The first worker is who looks after what the others leave; its successor has never met it.
  for (const slot of [0, 0, 3]) {
    const turn = await turnOn(a, b, slot);
    const pid = a.killWorker(slot);
    await checkLost(b, turn, Date.now());
    await a.replaced(slot, pid);
  }
});

test('all workers of one host die at once: their successors look after their turns', { timeout: 90000 }, async () => {
  const [a, b] = hosts;
  const turns = await Promise.all([0, 1, 2, 3].map((slot) => turnOn(a, b, slot)));
  const pids = a.workers().map((_, slot) => a.killWorker(slot)), killed_at = Date.now();
  for (const turn of turns) await checkLost(b, turn, killed_at);
  for (const [slot, pid] of pids.entries()) await a.replaced(slot, pid);
});
