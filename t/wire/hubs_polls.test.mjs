// Long polls of hubs whose clients go: their places are free at once, their connections after events.connect_timeout, whichever
// of four workers has them.
import assert from 'node:assert/strict';
import http from 'node:http';
import { test } from 'node:test';
import { parseMetrics, sumOf } from './lib/metrics.mjs';
import { keys, startServer } from './lib/server.mjs';
import { waitFor } from './lib/wait.mjs';

const END = '\x1e', key = keys.server, COUNT = 12;
const record = (what) => JSON.stringify(what) + END;

test('clients that go while they poll are noticed, at any worker', { timeout: 240000 }, async (t) => {
  const server = await startServer(t, { mock: false, config: { events: { connect_timeout: '6s', poll_timeout: '5m', client_timeout: '10m' } } });
  const places = async () => sumOf(parseMetrics((await server.request('/metrics')).text), 'parley_connections');
  const before_it = await places();
  const polls = await Promise.all(Array.from({ length: COUNT }, async () => {
    const { json } = await server.request('/hubs/tasks/negotiate?negotiateVersion=1', { key, method: 'POST' });
    const route = `/hubs/tasks?id=${json.connectionToken}`;
    const post = async (what) => (await server.request(route, { key, body: record(what), headers: { 'content-type': 'text/plain' } })).status;
    assert.deepEqual([(await server.request(route, { key })).status, await post({ protocol: 'json', version: 1 })], [200, 200]);
    assert.equal((await server.request(route, { key })).text, `{}${END}`);
    const waits = http.get(server.url + route, { agent: false, headers: { authorization: `Bearer ${key}` } });
    waits.on('error', () => {}); // it is cut below
    return { waits, ping: () => post({ type: 6 }) };
  }));
  await waitFor(async () => await places() >= before_it + COUNT, 'polls that wait', 20000);
  assert.deepEqual(await Promise.all(polls.map(({ ping }) => ping())), polls.map(() => 200));
  for (const { waits } of polls) waits.destroy();
  await waitFor(async () => await places() <= before_it, 'their places', 20000);
  await waitFor(async () => (await Promise.all(polls.map(({ ping }) => ping()))).every((status) => status === 404), 'the end of their connections', 20000);
});
