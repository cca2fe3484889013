// Everything that a network does to the connections to Redis, while clients go on asking: they are served by the host
// itself, its limits hold, it says within a second that it is alone, and it is back by itself, not all workers at once.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { startCutter } from './lib/cutter.mjs';
import { startDns } from './lib/dns.mjs';
import { backplane, backplaneLines, isAlone, isTold, isUp, outages, warnings } from './lib/hosts.mjs';
import { collect } from './lib/http.mjs';
import { parseMetrics, sumOf } from './lib/metrics.mjs';
import { startRedis } from './lib/redis.mjs';
import { is_last_event, keys, newSession, startMock, startServer } from './lib/server.mjs';
import { waitFor } from './lib/wait.mjs';

const tools = [{ type: 'function', function: { name: 'weather', parameters: { type: 'object' } } }];
const limited_key = 'pc_test_limited_key_0123456789abcdef';
const with_limit = [
  { kind: 'client', app: 'demo', secret: keys.client, rate: { limit: 0, window: '60s' } },
  { kind: 'client', app: 'demo', secret: limited_key, rate: { limit: 20, window: '60s' } },
];
const workers = 2;
const patient = { limit: '10s', connect: '20s' }; // the relay's own pauses, and the machine's, must stay within it
// A slow build runs fewer of these at once, and gives Redis more time: its answers wait for the relay and the server too.
const is_slow_build = /asan|tsan|cover/.test(process.env.PARLEY_BUILD ?? ''), slowness = is_slow_build ? 4 : 1;
const at_once = is_slow_build ? 2 : true;
let redis, mock;

process.setMaxListeners(50);
before(async () => { [redis, mock] = await Promise.all([startRedis(null), startMock(null)]); });
after(async () => {
  await redis?.stop();
  await mock?.stop();
});

async function startBehind(t, cutter, { name = '127.0.0.1', limit = `${500 * slowness}ms`, connect = `${slowness}s`, ...options } = {}) {
  const host = await startServer(t, { ...options, mock, config: {
    workers, keys: with_limit, backplane: { url: `redis://${name}:${cutter.port}`, key_prefix: `${cutter.port}:`, command_timeout: limit, connect_timeout: connect }, ...options.config,
  } });
  host.expectLog(/stats (slow|not reported)/); // it took as long as Redis
  await isUp(host);
  return host;
}

/** How many of n requests at once the limit lets through. */
async function letThrough(host, n) {
  const answers = await Promise.all(Array.from({ length: n }, () => host.request('/v1/sessions/sess_01m7x2gjd8y1r50z4s26qtean5', { key: limited_key })));
  for (const { status, headers } of answers) {
    assert.ok(status === 404 || status === 429, `${status}`);
    if (status === 429) assert.ok(Number(headers['retry-after']) >= 1);
  }
  return answers.filter(({ status }) => status === 404).length;
}

/** Clients that take turns with a tool, its result posted to any worker: none may notice more than a wait. */
function startClients(host, n) {
  const state = { turns: 0, worst_ms: 0, is_over: false };
  const timed = async (promise) => {
    const began = Date.now(), value = await promise;
    state.worst_ms = Math.max(state.worst_ms, Date.now() - began);
    return value;
  };
  const client = async () => {
    const { id } = await newSession(host);
    while (!state.is_over) {
      const events = await timed(host.stream(`/v1/sessions/${id}/turns`, { key: keys.client, body: { stream: true, input: '[[mock tool=weather args={}]]', tools } }));
      assert.equal(events.status, 200, events.text);
      const seen = await collect((async function* answering() {
        for await (const event of events) {
          yield event;
          if (event.event !== 'tool.call') continue;
          const { status, text } = await timed(host.request(`/v1/sessions/${id}/tool-results`, { key: keys.client, body: { tool_call_id: event.data.tool_call_id, output: 'fine' } }));
          assert.equal(status, 202, text);
        }
      })(), is_last_event);
      assert.equal(seen.at(-1).event, 'turn.completed', JSON.stringify(seen.at(-1)));
      state.turns++;
    }
  };
  const all = Promise.all(Array.from({ length: n }, client));
  all.catch(() => {}); // said by stop()
  state.more = (turns = 10) => {
    const seen = state.turns;
    return Promise.race([waitFor(() => state.turns >= seen + turns, `${turns} more turns`), all]);
  };
  state.stop = () => {
    state.is_over = true;
    return all;
  };
  return state;
}

const faults = [
  ['latency beyond the limit', (cutter) => cutter.delay(350 * slowness)],
  ['half-open connections', (cutter) => cutter.halfOpen()],
  ['a reset, and nobody listens', (cutter) => cutter.refuse()],
  ['byte by byte', (cutter) => cutter.drip(60 * slowness)],
  ['a pause', (cutter) => cutter.hold()],
  ['what is sent is lost', (cutter) => cutter.swallow()],
  ['a name that nobody resolves', (cutter, dns) => { dns.hang(); cutter.cut(); }],
];

describe('Redis behind', { concurrency: at_once }, () => {
  for (const [name, begin] of faults) {
    test(name, { timeout: 90000 * slowness }, async (t) => {
      const needs_dns = begin.length > 1, dns = needs_dns ? await startDns(t) : null;
      if (needs_dns && dns === null) {
        t.skip('needs root: a mount namespace with a name server of its own');
        return;
      }
      const cutter = await startCutter(t, redis);
      const host = await startBehind(t, cutter, dns ? { name: 'redis.test', wrap: dns.wrap } : {});
      const clients = startClients(host, 3);
      assert.equal(await letThrough(host, 10), 10);
      await clients.more();

      const earlier = outages(host), began = Date.now();
      begin(cutter, dns);
      await isAlone(host);
      await waitFor(() => isTold(host), 'warning');
      const outage = outages(host), { at } = warnings(host)[outage - 1];
      // One of the machine's own may have come just before, and go on.
      if (outage > earlier) {
        t.diagnostic(`noticed after ${at - began} ms`);
        assert.ok(at - began < 5000 * slowness, `noticed after ${at - began} ms`); // one second, and what the machine adds
      }
      assert.equal(sumOf(parseMetrics((await host.request('/metrics')).text), 'parley_backplane_up'), 0);
      assert.notEqual((await backplane(host)).reason, '');
      assert.equal((await host.request('/health/ready')).status, 200);
      // What it has given out itself still counts, and Redis had counted the same.
      assert.equal(await letThrough(host, 16), 10);
      // Attempts go on, fail, and disturb nobody.
      const attempts = dns ? () => dns.asked : () => cutter.accepted, before = attempts();
      await waitFor(() => attempts() >= before + 2 * workers, 'attempts');
      await clients.more();
      const { status, mode } = await backplane(host);
      assert.deepEqual([status, mode], ['degraded', 'local']);
      assert.equal(outages(host), outage);

      dns?.answer();
      cutter.open();
      await isUp(host);
      await clients.more();
      await clients.stop();
      await waitFor(() => backplaneLines(host, /INFO +backplane is back/).length === outages(host), 'is back');
      // Two for each worker, none left over.
      await waitFor(() => [...cutter.pairs].filter(({ far }) => far).length === 2 * workers, 'two connections for each worker');
      t.diagnostic(`${clients.turns} turns, the longest wait ${clients.worst_ms} ms`);
      assert.ok(clients.worst_ms < 8000 * slowness, `${clients.worst_ms} ms`);
    });
  }

  test('latency within the limit: nothing changes but the time', async (t) => {
    const cutter = await startCutter(t, redis);
    const host = await startBehind(t, cutter, patient);
    cutter.delay(80);
    const clients = startClients(host, 3);
    assert.equal(await letThrough(host, 30), 20);
    await clients.more(20);
    await clients.stop();
    assert.deepEqual(warnings(host), []);
    assert.equal((await backplane(host)).mode, 'redis');
  });

  test('a reset alone: back at once', async (t) => {
    const cutter = await startCutter(t, redis);
    const host = await startBehind(t, cutter, patient);
    const clients = startClients(host, 3);
    for (let round = 0; round < 3; round++) {
      const { accepted } = cutter;
      cutter.cut();
      await waitFor(() => cutter.accepted >= accepted + 2 * workers, 'new connections');
      await isUp(host);
      await clients.more();
    }
    await clients.stop();
    assert.ok(warnings(host).length <= 3);
  });
});

test('sixteen workers of two hosts do not come back at the same instant, and it is said once', { timeout: 60000 * slowness }, async (t) => {
  const cutter = await startCutter(t, redis);
  // Refused is refused at once: no time limit of theirs is for us to meet, and none is to be missed by what else the machine does.
  const hosts = await Promise.all([1, 2].map(() => startBehind(t, cutter, { ...patient, config: { workers: 8 } })));
  const connections = 2 * 2 * 8;
  await waitFor(() => cutter.pairs.size === connections, 'two connections for each worker');
  cutter.accepted_at = [];
  cutter.refuse();
  // An attempt is two connections. After five of them a worker waits up to five seconds.
  await waitFor(() => cutter.accepted_at.length >= 5 * connections, 'five attempts of each', 20000);
  await Promise.all(hosts.map((host) => isAlone(host)));
  // One that has found its way while the others fail is not the end of it: it is said once, and once that it is over.
  await waitFor(async () => {
    if (cutter.pairs.size < 2) cutter.refuse(2);
    return (await Promise.all(hosts.map(backplane))).some(({ workers_without }) => workers_without === 7);
  }, 'one worker that is back');
  cutter.accepted_at = [];
  await waitFor(() => cutter.accepted_at.length >= connections, 'attempts of the others', 20000);
  const opened = performance.now();
  cutter.open();
  await Promise.all(hosts.map(isUp));
  assert.equal(cutter.pairs.size, connections);
  for (const host of hosts) {
    await host.line(/INFO +backplane is back/);
    assert.deepEqual([warnings(host).length, backplaneLines(host, /INFO +backplane is back/).length], [1, 1], host.output());
  }
  const back = cutter.accepted_at.filter((at) => at >= opened);
  assert.equal(back.length, connections - 2);
  const together = Math.max(...back.map((from) => back.filter((at) => at >= from && at < from + 250).length));
  t.diagnostic(`the last one after ${Math.round(back.at(-1) - opened)} ms, at most ${together} of ${connections} within 250 ms`);
  assert.ok(together <= connections / 2, `${together} of ${connections} within 250 ms`);
});
