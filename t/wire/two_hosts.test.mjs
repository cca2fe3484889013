// Two hosts as one: who follows a turn may change hosts in the middle, fifty may follow it over both, a result counts
// once wherever it is posted, and simultaneous opens for one device are one session.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { seeded } from './lib/bot.mjs';
import { startHosts } from './lib/hosts.mjs';
import { sharedPostgres } from './lib/postgres.mjs';
import { startRedis } from './lib/redis.mjs';
import { is_last_event, keys, newSession, startMock } from './lib/server.mjs';
import { within } from './lib/wait.mjs';

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
