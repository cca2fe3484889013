// Statistics of the named caches: of one host, of two over a Redis, of a thousand that a client of Redis writes.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { parseMetrics, sumOf } from './lib/metrics.mjs';
import { collect } from './lib/http.mjs';
import { startRedis } from './lib/redis.mjs';
import { fleetOf } from './lib/fleet.mjs';
import { is_last_event, keys, newSession, startMock, startServer, streamTurn } from './lib/server.mjs';
import { waitFor } from './lib/wait.mjs';

const regions = ['keys', 'apps', 'tools', 'sessions'];
const stats = { interval: '1s', latency: '1m' };
let redis, mock;

before(async () => {
  [redis, mock] = await Promise.all([startRedis(null), startMock(null)]);
});
after(async () => {
  await redis?.stop();
  await mock?.stop();
});

const health = async (host) => (await host.request('/health')).json.checks.stats;
const read = async (host, query = '') => {
  const { status, json, text } = await host.request(`/admin/v1/stats${query}`, { key: keys.admin });
  assert.equal(status, 200, text);
  return json;
};
const metrics = async (host) => parseMetrics((await host.request('/metrics')).text);
const start = (t, prefix, config = {}) => startServer(t, { mock, config: { backplane: { url: redis.url, key_prefix: prefix }, stats, ...config } });
/** Sums that everybody agrees on: nothing has been counted while they were looked at. */
const knows = (host, count) => waitFor(async () => {
  const { mode, instances, regions: { keys: k } } = await read(host);
  return mode === 'fleet' && instances === count && k.instances === count;
}, `${count} instances`, 20000);

async function makeKey(host) {
  const { status, json, text } = await host.request('/v1/client-keys', { key: keys.server, body: { app_id: 'demo', expires_in: 600 } });
  assert.equal(status, 201, text);
  return json.secret ?? json.key;
}

test('a host without Redis tells its own figures, from any worker', async (t) => {
  const host = await startServer(t, { mock });
  const none = await host.request('/admin/v1/stats', { key: keys.server });
  assert.equal(none.status, 403);
  for (let i = 0; i < 30; i++) await host.request('/v1/sessions/sess_01m7x2gjd8y1r50z4s26qtean5', { key: keys.client });
  for (let i = 0; i < 8; i++) {
    const { mode, degraded, instances, regions: r, data, has_more } = await read(host);
    assert.deepEqual({ mode, degraded, instances, has_more }, { mode: 'host', degraded: false, instances: 1, has_more: false });
    assert.ok(r.keys.hits >= 30 + i && r.keys.entries >= 3 * 4 && r.keys.mean_us >= 0, JSON.stringify(r));
    assert.equal(data.length, 1);
    assert.ok(data[0].is_self && data[0].regions.keys.hits === r.keys.hits);
    assert.deepEqual(Object.keys(r), regions);
    assert.equal(r.keys.stored, undefined);
  }
  assert.deepEqual(await health(host), { mode: 'host', status: 'ok' });
});

test('what is counted: keys, apps, tool calls, turns; by hits and misses', async (t) => {
  const host = await startServer(t, { mock });
  const of = async () => (await read(host)).regions;
  const secret = await makeKey(host);
  const before = await of();
  const first = await Promise.all(Array.from({ length: 40 }, () => host.request('/v1/sessions', { key: secret, body: {} })));
  assert.ok(first.every(({ status }) => status === 201));
  const seen = await of();
  // Each worker asks the record once or, when several ask at once, more than once; then it knows.
  assert.ok(seen.keys.misses - before.keys.misses >= 1, JSON.stringify(seen.keys));
  assert.equal(seen.keys.hits + seen.keys.misses - before.keys.hits - before.keys.misses, 41);
  assert.ok(seen.apps.hits >= 1);
  const { id } = first[0].json;
  const events = await streamTurn(host, id, { input: 'hello' }, secret);
  const [turn] = events[0].id.split('.');
  for (let i = 0; i < 12; i++) assert.equal((await host.request(`/v1/sessions/${id}/turns/${turn}`, { key: secret })).status, 200);
  assert.equal((await host.request(`/v1/sessions/${id}/turns/turn_01m7x2gjd8y1r50z4s26qtean5`, { key: secret })).status, 404);
  const { sessions } = await of();
  assert.ok(sessions.hits - before.sessions.hits >= 12 && sessions.misses > before.sessions.misses && sessions.entries >= 1, JSON.stringify(sessions));
  const unknown = await host.request(`/v1/sessions/${id}/tool-results`, { key: secret, body: { tool_call_id: 'call_01m7x2gjd8y1r50z4s26qtean5', output: 1 } });
  assert.equal(unknown.status, 404);
  const tools = [{ type: 'function', function: { name: 'weather', parameters: { type: 'object' } } }];
  const stream = await host.stream(`/v1/sessions/${id}/turns`, { key: secret, body: { stream: true, input: '[[mock tool=weather args={}]]', tools } });
  await collect((async function* answering() {
    for await (const event of stream) {
      yield event;
      if (event.event !== 'tool.call') continue;
      assert.equal((await of()).tools.entries, 1);
      const { status } = await host.request(`/v1/sessions/${id}/tool-results`, { key: secret, body: { tool_call_id: event.data.tool_call_id, output: 1 } });
      assert.equal(status, 202);
    }
  })(), is_last_event);
  const { tools: t2 } = await of();
  assert.deepEqual({ hits: t2.hits, misses: t2.misses, entries: t2.entries }, { hits: 1, misses: 1, entries: 0 });
  // A host's figure outlives its workers.
  const { keys: k } = await of();
  const old = host.killWorker(1);
  await host.replaced(1, old);
  const now = await of();
  assert.ok(now.keys.hits > k.hits && now.keys.misses >= k.misses);
  assert.equal(sumOf(await metrics(host), 'parley_cache_misses_total', { region: 'tools' }), 1);
});

test('two hosts: each tells of both; sums are those of the rows; a killed one vanishes in time', async (t) => {
  const two = [await start(t, 'pair:'), await start(null, 'pair:')];
  await Promise.all(two.map((host) => knows(host, 2)));
  for (let i = 0; i < 50; i++) await newSession(two[i % 2]);
  await waitFor(async () => {
    const all = await Promise.all(two.map((host) => read(host)));
    return all.every(({ data, regions: r }) => r.keys.hits >= 50 && data.length === 2 && data.every((d) => d.regions.keys.hits >= 25));
  }, 'figures of both');
  for (const host of two) {
    const { data, regions: r } = await read(host);
    assert.equal(data.filter(({ is_self }) => is_self).length, 1);
    for (const name of regions) {
      for (const figure of ['hits', 'misses', 'entries']) {
        assert.equal(r[name][figure], data.reduce((sum, d) => sum + d.regions[name][figure], 0), `${name} ${figure}`);
      }
    }
    assert.ok(data.every(({ age_ms }) => age_ms <= 2000));
    await waitFor(async () => (await health(host)).instances === 2, 'both in /health');
    const m = await metrics(host);
    assert.equal(sumOf(m, 'parley_stats_instances'), 2);
    assert.ok(sumOf(m, 'parley_fleet_cache', { region: 'keys', figure: 'hits' }) > 0);
  }
  assert.equal(await redis.command('ZCARD', 'pair:instances'), '2');
  // The speaker's death changes nothing: another worker speaks.
  const pid = two[0].killWorker(0);
  await two[0].replaced(0, pid);
  await knows(two[0], 2);
  await two[1].stop({ signal: 'SIGKILL' });
  const killed_at = Date.now();
  await waitFor(async () => (await read(two[0])).instances === 1, 'one instance');
  assert.ok(Date.now() - killed_at < 8000, 'interval and grace, a second to look, and what a busy machine adds');
  await waitFor(async () => (await redis.command('ZCARD', 'pair:instances')) === '1', 'registry of one');
  assert.equal((await redis.command('KEYS', 'pair:stats:*:keys')).split('\n').length, 2, 'its own and the sums');
});

test('a host that ends in order is gone at once', async (t) => {
  const two = [await start(t, 'leave:', { stats: { interval: '10m', latency: '1m' } }), await start(null, 'leave:', { stats: { interval: '10m', latency: '1m' } })];
  await Promise.all(two.map((host) => knows(host, 2)));
  await two[1].stop();
  assert.equal((await read(two[0])).instances, 1);
  assert.equal(await redis.command('ZCARD', 'leave:instances'), '1');
});

test('a thousand instances are added up right, and garbage among them does no harm', async (t) => {
  const fleet = await fleetOf(redis, 'many:');
  t.after(() => fleet.close());
  const sums = await fleet.write(1000);
  const host = await start(t, 'many:');
  await waitFor(async () => (await health(host)).instances === 1001, '1,001 instances in the stored sums', 20000);
  const own = ({ data }) => data.find(({ is_self }) => is_self);
  const whole = async () => {
    const pages = [await read(host, '?limit=600')];
    pages.push(await read(host, `?limit=600&after=${pages[0].data.at(-1).instance}`));
    return { ...pages[1], data: [...pages[0].data, ...pages[1].data], first: pages[0] };
  };
  // Our own row may be newer than the stored sums, by what our questions have counted.
  const figures = ['hits', 'misses', 'entries'];
  const all = await waitFor(async () => {
    const one = await whole();
    return regions.every((name) => figures.every((figure) => one.regions[name][figure] === sums[name][figure] + own(one).regions[name][figure])) && one;
  }, 'sums of the same moment as our own row', 20000);
  assert.equal(all.instances, 1001);
  assert.equal(all.data.length, 1001);
  assert.deepEqual([all.first.has_more, all.has_more], [true, false]);
  assert.equal(new Set(all.data.map(({ instance }) => instance)).size, 1001);
  for (const name of regions) {
    for (const figure of figures) {
      assert.equal(all.regions[name][figure], sums[name][figure] + own(all).regions[name][figure], `${name} ${figure}`);
    }
    assert.equal(all.regions[name].p50_us, 250);
  }
  // Many at once, on any worker: each hears of all.
  for (const { instances, data, has_more } of await Promise.all(Array.from({ length: 16 }, () => read(host)))) {
    assert.deepEqual([instances, data.length, has_more], [1001, 1000, true]);
  }
  const [name] = fleet.names;
  const bad = ['', 'x', 'v=2 at=1', '\u0000\u0001', `v=1 at=${2n ** 64n}`, 'v=1 at=1 interval=1 hits=-1', 'a'.repeat(300000), `${await redis.command('GET', `many:stats:${name}:keys`)} more=1`];
  for (let i = 0; i < bad.length; i++) await fleet.command('SET', `many:stats:${fleet.names[i]}:keys`, bad[i]);
  await fleet.command('DEL', `many:stats:${fleet.names[20]}:keys`);
  await fleet.command('LPUSH', `many:stats:${fleet.names[20]}:keys`, 'a list');
  await fleet.command('ZADD', 'many:instances', '99999999999999', 'no name', '99999999999999', `${'f'.repeat(16)}:x`);
  await fleet.command('ZADD', 'many:instances', '99999999999999', 'dddddddddddddddd'); // says nothing
  const left = await read(host);
  assert.equal(left.regions.keys.instances, 1001 - bad.length - 1);
  assert.equal(left.regions.apps.instances, 1001);
  assert.equal(left.rejected, bad.length - 1 + 1 + 2);
  assert.equal(left.instances, 1001);
  assert.equal(left.stale, 1);
  const lost = [...fleet.names.slice(0, bad.length), fleet.names[20]].reduce((sum, n) => sum + fleet.counts.get(n).keys.hits, 0);
  await waitFor(async () => {
    const one = await whole();
    return one.regions.keys.hits === sums.keys.hits - lost + own(one).regions.keys.hits;
  }, 'sums without what is garbage', 20000);
  await waitFor(async () => sumOf(await metrics(host), 'parley_stats_rejected_total') > 0, 'counted');
  // The registry itself.
  await fleet.command('SET', 'many:instances', 'no set');
  await waitFor(async () => (await redis.command('TYPE', 'many:instances')) === 'zset' && (await read(host)).mode === 'fleet', 'a registry again');
  assert.equal((await read(host)).instances, 1);
  // Late ones do not count, and leave.
  await fleet.command('ZADD', 'many:instances', '1', fleet.names[30]);
  await waitFor(async () => (await redis.command('ZSCORE', 'many:instances', fleet.names[30])) === '', 'it is dropped');
  assert.equal((await health(host)).mode, 'fleet');
});

test('alarms: stored sums that are wrong, and adding up that takes long', async (t) => {
  const host = await start(t, 'alarm:');
  await knows(host, 1);
  await waitFor(async () => { const { status, age_ms } = await health(host); return status === 'ok' && age_ms !== null; }, 'sums seen');
  host.expectLog(/WARN +stats drift region=keys drift=/);
  const key = 'alarm:stats:aggregated:keys';
  await newSession(host);
  const spoil = async (change) => {
    const text = await waitFor(async () => (await redis.command('GET', key)) || null, 'stored sums');
    await redis.command('SET', key, change(text));
    return waitFor(async () => { const h = await health(host); return h.reason === 'drift' && h; }, 'drift in /health');
  };
  const twice = await spoil((text) => text.replace(/hits=(\d+)/, (_, n) => `hits=${Number(n) + 1000}`));
  assert.equal(twice.status, 'degraded');
  assert.ok(twice.drift > 0.05);
  await host.line(/WARN +stats drift region=keys drift=\S+ limit=0.0500/);
  const m = await metrics(host);
  assert.ok(sumOf(m, 'parley_stats_alarms_total', { alarm: 'drift' }) >= 1);
  await waitFor(async () => (await health(host)).status === 'ok', 'true again');
  await spoil(() => 'what is this');
  await waitFor(async () => (await health(host)).status === 'ok', 'true again');
  assert.equal((await host.request('/health/ready')).status, 200);

  const slow = await start(t, 'slow:', { stats: { interval: '1s', latency: '1ms' } });
  slow.expectLog(/WARN +stats slow took_ms=/);
  const fleet = await fleetOf(redis, 'slow:');
  t.after(() => fleet.close());
  await fleet.write(2000);
  await waitFor(async () => (await health(slow)).reason === 'latency', 'latency in /health', 20000);
  await slow.line(/WARN +stats slow took_ms=\S+ limit_ms=1 instances=/);
  assert.ok(sumOf(await metrics(slow), 'parley_stats_alarms_total', { alarm: 'latency' }) >= 1);
});

test('Redis lost: figures of this host, marked; back by itself', async (t) => {
  const mine = await startRedis(t);
  const config = { backplane: { url: mine.url }, stats };
  const two = [await startServer(t, { mock, config }), await startServer(t, { mock, config })];
  await Promise.all(two.map((host) => knows(host, 2)));
  // What a Redis that was away has is older than what it is compared with, by as much as was counted meanwhile.
  for (const host of two) host.expectLog(/stats drift/);
  await mine.kill();
  for (const host of two) {
    const alone = await waitFor(async () => { const s = await read(host); return s.mode === 'degraded' && s; }, 'alone');
    assert.deepEqual([alone.degraded, alone.instances, alone.data.length, alone.data[0].is_self], [true, 1, 1, true]);
    await waitFor(async () => { const h = await health(host); return h.status === 'degraded' && h.reason === 'redis_away'; }, 'in /health');
  }
  await mine.again();
  await Promise.all(two.map((host) => knows(host, 2)));
  // Silent, while several wait for it: all are answered, of the one host.
  mine.child.kill('SIGSTOP');
  for (const s of await Promise.all(Array.from({ length: 12 }, () => read(two[0])))) {
    assert.deepEqual([s.mode, s.instances, s.data.length], ['degraded', 1, 1]);
  }
  mine.child.kill('SIGCONT');
  await Promise.all(two.map((host) => knows(host, 2)));
  await waitFor(async () => (await Promise.all(two.map(health))).every(({ status }) => status === 'ok'), 'well again', 20000);
});
