// Signs of life on hubs: clients that go while they poll, whichever of four workers has their connections; pings each way, and who
// says nothing for too long.
import assert from 'node:assert/strict';
import http from 'node:http';
import { test } from 'node:test';
import WebSocket from 'ws';
import { parseMetrics, sumOf } from './lib/metrics.mjs';
import { keys, startServer } from './lib/server.mjs';
import { waitFor, within } from './lib/wait.mjs';

const END = '\x1e', key = keys.server, COUNT = 12;
const record = (what) => JSON.stringify(what) + END;

test('clients that go while they poll are noticed, at any worker', { timeout: 240000 }, async (t) => {
  const server = await startServer(t, { mock: false, config: { events: { connect_timeout: '6s', poll_timeout: '5m', keepalive_interval: '10m', client_timeout: '10m' } } });
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

test('silence is filled with pings, and who is silent himself is told to come back', { timeout: 120000 }, async (t) => {
  const server = await startServer(t, { mock: false, config: { events: { keepalive_interval: '2s', client_timeout: '5s' } } });
  const open = async () => {
    const ws = new WebSocket(`${server.url.replace('http', 'ws')}/hubs/tasks?access_token=${key}`);
    const self = { ws, records: [], code: null };
    ws.on('message', (data) => self.records.push(...String(data).split(END).filter(Boolean).map((text) => JSON.parse(text))));
    ws.on('close', (code) => { self.code = code; });
    await within(new Promise((resolve, reject) => { ws.on('open', resolve); ws.on('error', reject); }), 'open socket');
    ws.send(record({ protocol: 'json', version: 1 }));
    return self;
  };
  const [silent, lively] = [await open(), await open()];
  const pings = setInterval(() => lively.ws.send(record({ type: 6 })), 200);
  t.after(() => clearInterval(pings));

  // Version 0 of negotiating knows one id. Events are streamed, and nothing is ever posted but the handshake.
  const { json } = await server.request('/hubs/tasks/negotiate', { key, method: 'POST' });
  assert.deepEqual([json.negotiateVersion, json.connectionToken, json.availableTransports.length], [0, undefined, 3]);
  const route = `/hubs/tasks?id=${json.connectionId}`;
  const stream = await server.stream(route, { key, raw: true });
  assert.equal(stream.status, 200, stream.text);
  await waitFor(async () => (await server.request(route, { key, body: record({ protocol: 'json', version: 1 }), headers: { 'content-type': 'text/plain' } })).status === 200, 'its connection');
  const streamed = [];
  await within((async () => { for await (const { data } of stream) streamed.push(JSON.parse(data.replace(END, ''))); })(), 'end of the stream', 30000);
  await waitFor(() => silent.code, 'end of the socket', 30000);
  for (const records of [streamed, silent.records]) {
    assert.deepEqual(records[0], {});
    assert.ok(records.filter(({ type }) => type === 6).length >= 1, JSON.stringify(records));
    assert.deepEqual(records.at(-1), { type: 7, error: 'The client has been silent for too long.', allowReconnect: true });
  }
  assert.equal(lively.code, null);
  assert.ok(lively.records.some(({ type }) => type === 6));
  lively.ws.close();
});
