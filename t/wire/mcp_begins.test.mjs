// A worker that begins lets nobody in before it knows what the tool servers offer, for as long as it may wait: at a start, at a
// reload, in the place of one that died.
import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';
import { startModern } from './lib/mcp.mjs';
import { parseMetrics, sumOf } from './lib/metrics.mjs';
import { call, is_alive, ready, run, sdk, start } from './lib/programs.mjs';
import { keys } from './lib/server.mjs';
import { waitFor } from './lib/wait.mjs';

const meta = { 'io.modelcontextprotocol/protocolVersion': '2026-07-28', 'io.modelcontextprotocol/clientCapabilities': {} };
const expected = ['tools__add', 'web__add'];

/** Those of the expected tools that some worker has on its list. */
async function list(server) {
  const { json, text } = await server.request('/mcp', {
    key: keys.server, limit_ms: 30000, headers: { accept: 'application/json, text/event-stream', 'mcp-protocol-version': '2026-07-28', 'mcp-method': 'tools/list' },
    body: { jsonrpc: '2.0', id: 1, method: 'tools/list', params: { _meta: meta } },
  });
  assert.ok(json?.result, text);
  return json.result.tools.map(({ name }) => name).filter((name) => expected.includes(name)).sort();
}

async function reload(server) {
  const from = server.lines.length;
  server.kill('SIGHUP');
  await server.line(/reload done/, 60000, from);
}

const impatient = (server) => server.lines.filter((line) => line.includes('worker waits no longer for tool servers')).length;

test('no turn and no list is without the tools of a server that is slow, whichever worker has just begun', async (t) => {
  const web = await startModern(null);
  const server = await start(t, [{ name: 'web', url: web.url }, sdk('tools', 'legacy')], { mcp: { start_wait: '15s' } });
  t.after(() => web.stop());
  for (const name of ['web', 'tools']) await ready(server, name);
  web.delay_ms = 100;
  let is_over = false, done = 0;
  const until_over = async (verb) => { const given = []; for (; !is_over; done++) given.push(await verb()); return given; };
  const asked = Promise.all(Array.from({ length: 4 }, (_, i) => until_over(() => call(server, expected[i % 2], { a: 1, b: 2 }))));
  const listed = until_over(() => list(server));
  for (let i = 0; i < 2 || done < 12; i++) await reload(server);
  is_over = true;
  assert.deepEqual((await asked).flat().filter((text) => text !== 'sum 3'), []);
  for (const names of await listed) assert.deepEqual(names, expected);
  for (let slot = 0; slot < 4; slot++) {
    await server.replaced(slot, server.killWorker(slot));
    for (let i = 0; i < 8; i++) assert.deepEqual(await list(server), expected);
  }
  assert.equal(impatient(server), 0);
});

test('one that says nothing holds a start, a reload and a replacement for no longer than it may', async (t) => {
  const web = await startModern(null);
  web.is_mute = true;
  const server = await start(t, [{ name: 'web', url: web.url }], { mcp: { start_wait: '200ms' } });
  t.after(() => web.stop());
  server.expectLog(/mcp server away server=web/);
  assert.equal(impatient(server), 4);
  await reload(server);
  assert.equal(impatient(server), 8);
  await server.replaced(0, server.killWorker(0));
  assert.equal(impatient(server), 9);
  assert.equal((await run(server, 'hello')).at(-1).event, 'turn.completed');
});

test('one that is not there is not waited for', async (t) => {
  const server = await start(t, [{ name: 'gone', url: 'http://127.0.0.1:9/mcp' }, { name: 'off', url: 'http://127.0.0.1:9/mcp', enabled: false }], { mcp: { start_wait: '15s' } });
  server.expectLog(/mcp server away server=gone/);
  await reload(server);
  await server.replaced(0, server.killWorker(0));
  assert.equal(impatient(server), 0);
  assert.equal((await run(server, 'hello')).at(-1).event, 'turn.completed');
});

test('per: worker: in a reload a slot has a process for each of its two workers, until the old one has gone', async (t) => {
  const server = await start(t, [sdk('tools', 'legacy', { per: 'worker' })], { workers: 2, drain: { timeout: '60s' }, mcp: { start_wait: '15s' } });
  await ready(server, 'tools', 2);
  const where = async () => JSON.parse(await call(server, 'tools__where')).pid;
  const old = new Set();
  await waitFor(async () => old.add(await where()).size === 2, 'two processes', 30000);
  const file = path.join(server.dir, 'release');
  const slow = Array.from({ length: 8 }, () => call(server, 'tools__slow', { file }));
  let answered = 0;
  for (const one of slow) one.then(() => answered++, () => answered++);
  await waitFor(async () => sumOf(parseMetrics((await server.request('/metrics')).text), 'parley_turns_live') === 8, 'calls under way', 30000);
  await reload(server);
  for (let i = 0; i < 8; i++) assert.ok(!old.has(await where()));
  assert.equal(answered, 0);
  fs.writeFileSync(file, '');
  for (const text of await Promise.all(slow)) assert.equal(text, 'at last');
  await waitFor(() => [...old].every((pid) => !is_alive(pid)), 'the old processes to end', 30000);
  for (let slot = 0; slot < 2; slot++) await server.replaced(slot, server.killWorker(slot));
  for (let i = 0; i < 8; i++) assert.ok(!old.has(await where()));
  assert.equal(impatient(server), 0);
});
