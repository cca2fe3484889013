// What clients of hubs send counts against the limits of their keys: invocations are refused as each transport can say it, with
// the limiter in shared memory and in Redis.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as signalR from '@microsoft/signalr';
import WebSocket from 'ws';
import { isUp } from './lib/hosts.mjs';
import { parseMetrics, sumOf } from './lib/metrics.mjs';
import { startRedis } from './lib/redis.mjs';
import { keys, startServer } from './lib/server.mjs';
import { waitFor, within } from './lib/wait.mjs';

const transports = { WebSockets: 1, ServerSentEvents: 2, LongPolling: 4 };
const END = '\x1e';
const a_day = 20;
const limited = Object.fromEntries([...Object.keys(transports), 'byHand'].map((name) => [name, `ps_limited_${name}_0123456789abcdef`]));

async function start(t, backplane = {}) {
  const own = Object.entries(limited).map(([name, secret]) => ({ kind: 'server', app: 'demo', secret, rpd: name === 'byHand' ? 6 : a_day }));
  return startServer(t, { mock: false, config: { backplane, keys: [{ kind: 'server', app: 'demo', secret: keys.server }, ...own] } });
}

function connect(server, transport, key) {
  return new signalR.HubConnectionBuilder()
    .withUrl(`${server.url}/hubs/tasks`, { transport: transports[transport], accessTokenFactory: () => key, logger: signalR.LogLevel.None })
    .configureLogging(signalR.LogLevel.None).build();
}

const subscribe = (connection) => connection.invoke('SubscribeToTaskType', 'image.generation');

/** Invokes until it is refused: how often that went well, and the refusal. */
async function untilRefused(connection) {
  for (let count = 0; count < 5 * a_day; count++) {
    const refusal = await within(subscribe(connection).then(() => null, (e) => e), 'an answer');
    if (refusal) return { count, refusal };
  }
  throw new Error('nobody was refused');
}

for (const where of ['shared memory', 'Redis']) {
  test(`invocations are refused over each transport, and its connection stays, by ${where}`, { timeout: 120000 }, async (t) => {
    const redis = where === 'Redis' && await startRedis(t);
    const server = await start(t, redis ? { url: redis.url } : {});
    for (const [transport, key] of Object.entries(limited)) {
      if (transport === 'byHand') continue;
      const connection = connect(server, transport, key);
      await within(connection.start(), 'start');
      const { count, refusal } = await untilRefused(connection);
      if (transport === 'WebSockets') {
        assert.equal(count, a_day);
        assert.match(refusal.message, /Too many requests with this key: it has 20 requests per day/);
      } else {
        // The handshake is a POST, too; a client whose events are streamed sends pings by itself.
        assert.ok(count < a_day && count >= a_day - 5, `${count}`);
        assert.equal(refusal.statusCode, 429, String(refusal));
      }
      await assert.rejects(subscribe(connection));
      assert.equal(connection.state, 'Connected');
      assert.equal((await server.request('/v1/tasks', { key })).status, 429, 'it is the same limit');
      await connection.stop();
    }
    const metrics = parseMetrics((await server.request('/metrics')).text);
    assert.ok(sumOf(metrics, 'parley_rate_limited_total', { kind: 'server_key' }) >= 9);
    // Another key is not concerned.
    const other = connect(server, 'WebSockets', keys.server);
    await within(other.start(), 'start');
    for (let i = 0; i < 2 * a_day; i++) await subscribe(other);
    await other.stop();
  });
}

test('no more calls of a socket wait for its limits than it may have topics', { timeout: 120000 }, async (t) => {
  const redis = await startRedis(t);
  const server = await startServer(t, { mock: false, config: { backplane: { url: redis.url, command_timeout: '10s' }, keys: [{ kind: 'server', app: 'demo', secret: keys.server, rpd: 1000 }] } });
  server.expectLog(/backplane/); // Redis may be silent for longer than that on a machine with much else to do
  await isUp(server);
  const ws = new WebSocket(`${server.url.replace('http', 'ws')}/hubs/tasks?access_token=${keys.server}`);
  const ends = [];
  ws.on('message', (data) => ends.push(...String(data).split(END).filter(Boolean).map((text) => JSON.parse(text)).filter(({ type }) => type === 3)));
  await within(new Promise((resolve, reject) => { ws.on('open', resolve); ws.on('error', reject); }), 'open socket');
  const say = (...records) => ws.send(records.map((record) => JSON.stringify(record) + END).join(''));
  const call = (invocationId) => ({ type: 1, target: 'UnsubscribeFromTaskType', invocationId, arguments: ['image.generation'] });
  say({ protocol: 'json', version: 1 }, call('first'));
  await waitFor(() => ends.length === 1, 'an answer');
  redis.child.kill('SIGSTOP');
  say(...Array.from({ length: 130 }, (_, i) => call(`${i}`)));
  const refused = () => ends.filter(({ error }) => error);
  await waitFor(() => refused().length === 30, 'refusals');
  redis.child.kill('SIGCONT');
  await waitFor(() => ends.length === 131, 'the others', 20000);
  assert.deepEqual(refused().map(({ invocationId }) => Number(invocationId)), Array.from({ length: 30 }, (_, i) => i + 100));
  assert.match(refused()[0].error, /max_topics calls that wait/);
  say(call('last'));
  await waitFor(() => ends.some(({ invocationId, error }) => invocationId === 'last' && !error), 'the last');
  ws.close();
});

test('a POST counts as many as it has records, and is refused as a whole', async (t) => {
  const server = await start(t), key = limited.byHand;
  const { json: { connectionToken } } = await server.request('/hubs/tasks/negotiate?negotiateVersion=1', { method: 'POST', key });
  const route = `/hubs/tasks?id=${connectionToken}`;
  assert.equal((await server.request(route, { key })).status, 200);
  const post = (...records) => server.request(route, { method: 'POST', key, body: records.map((record) => JSON.stringify(record) + END).join('') });
  const call = (invocationId) => ({ type: 1, target: 'SubscribeToTaskType', invocationId, arguments: ['image.generation'] });
  assert.equal((await post({ protocol: 'json', version: 1 })).status, 200);
  const three = await post(call('1'), call('2'), call('3'));
  assert.deepEqual([three.status, three.headers['x-ratelimit-limit'], three.headers['x-ratelimit-remaining']], [200, '6', '2']);
  const refused = await post(call('4'), call('5'), call('6'));
  assert.deepEqual([refused.status, refused.json.error.code, refused.json.limit.amount], [429, 'rate_limited', 6]);
  assert.ok(Number(refused.headers['retry-after']) > 0);
  assert.equal(refused.headers['x-ratelimit-limit'], '6');
  assert.equal((await post(call('7'), { type: 6 })).status, 200, 'what fits is taken');
  assert.equal((await post({ type: 6 })).status, 429, 'a ping is a request as well');
  const done = [];
  await waitFor(async () => {
    const { text } = await server.request(route, { key });
    done.push(...text.split(END).filter(Boolean).map((record) => JSON.parse(record)).filter(({ type }) => type === 3).map(({ invocationId }) => invocationId));
    return done.includes('7');
  }, 'the completions', 30000);
  assert.deepEqual(done.sort(), ['1', '2', '3', '7']);
});
