// A request that really kills whoever parses it: the bug is in a library, put before the real one (lib/poison_shim.c).
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { before, after, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { keys, newSession, startServer, streamTurn } from './lib/server.mjs';
import { waitFor } from './lib/wait.mjs';
import { openChat } from './lib/ws.mjs';

const key = keys.client;
// A sanitizer's library wants to be the first.
const skip = /asan|tsan/.test(process.env.PARLEY_BUILD ?? '');
let dir, env;

before(() => {
  dir = fs.mkdtempSync(path.join(os.tmpdir(), 'parley-poison-'));
  const shim = path.join(dir, 'shim.so');
  execFileSync('gcc', ['-shared', '-fPIC', '-O1', '-o', shim, path.join(path.dirname(fileURLToPath(import.meta.url)), 'lib/poison_shim.c'), '-ldl']);
  env = { LD_PRELOAD: shim };
});
after(() => fs.rmSync(dir, { recursive: true, force: true }));

const deaths = (server) => server.lines.map((line) => /worker died at slot=(\d+) pid=\d+ request=(.*) fingerprint=([0-9a-f]{16}) under_way=(yes|no)/.exec(line))
  .filter(Boolean).map(([, slot, request, fingerprint, under_way]) => ({ slot: Number(slot), request, fingerprint, under_way }));

async function start(t) {
  const server = await startServer(t, { env, config: { workers: 2, watchdog: { backoff: '300ms' } } });
  server.expectLog(/worker died|worker dies again and again|worker crashed|parleyd\(|shim|\.so|\[0x/);
  return server;
}

/** Its connection is reset, and whoever had it dies. */
async function give(server, text, secret = key) {
  const count = deaths(server).length;
  await assert.rejects(server.request('/v1/sessions', { key: secret, body: { metadata: { text } } }), /ECONNRESET|hang up|EPIPE/);
  await waitFor(() => deaths(server).length > count, 'a death');
}

test('a request that kills: who dies of it waits longer and longer, the same fingerprint each time', { skip }, async (t) => {
  const server = await start(t);
  await newSession(server);
  // Sent again and again, as clients do, to whichever worker gets it.
  const again = (line) => /worker dies again and again slot=(\d) deaths=(\d+) backoff_ms=(\d+)/.exec(line);
  while (!server.lines.some((line) => Number(again(line)?.[2]) >= 4)) await give(server, 'boom');
  const waits = server.lines.map(again).filter(Boolean);
  for (const [, , count, backoff] of waits) assert.equal(Number(backoff), 300 * 2 ** (Number(count) - 3), `after death ${count}`);
  const { json } = await server.request('/health');
  assert.equal(json.status, 'degraded');
  assert.ok(json.checks.workers.crashing >= 1, JSON.stringify(json.checks.workers));
  assert.equal((await server.request('/health/ready')).status, 200);

  const seen = deaths(server);
  assert.ok(seen.length >= 4, 'all of one worker, or some of the other, too');
  for (const { request, under_way } of seen) assert.deepEqual([request, under_way], ['/v1/sessions', 'yes']);
  assert.equal(new Set(seen.map(({ fingerprint }) => fingerprint)).size, 1, 'the same input');
  assert.ok(!server.lines.some((line) => line.includes('boom')), 'not what is in it');
  await give(server, 'another boom');
  assert.notEqual(deaths(server).at(-1).fingerprint, seen[0].fingerprint, 'another input');

  // The first of the trace's frames that is ours parses a request.
  assert.ok(server.lines.some((line) => /shim\.so.*json_loadb/.test(line)), 'the trace names the place');

  // What is not poison is served, and when nobody sends it any more all is well.
  const session = await newSession(server);
  assert.equal((await streamTurn(server, session.id, { input: 'hello' })).at(-1).event, 'turn.completed');
  await waitFor(async () => (await server.request('/health')).json.checks.workers.status === 'ok', 'health', 30000);
  await server.line(/worker lives slot=/);
});

test('a request that has to wait for its key first is told as well', { skip }, async (t) => {
  const server = await start(t);
  const { status, json } = await server.request('/admin/v1/keys', { key: keys.admin, body: { kind: 'client', app_id: 'demo' } });
  assert.equal(status, 201, JSON.stringify(json));
  // Each worker that gets it is new, and has to ask the record.
  assert.match(json.key, /^pc_/);
  for (let i = 0; i < 3; i++) await give(server, 'boom', json.key);
  for (const { request, under_way } of deaths(server)) assert.deepEqual([request, under_way], ['/v1/sessions', 'yes']);
  assert.equal(new Set(deaths(server).map(({ fingerprint }) => fingerprint)).size, 1);
});

test('a message over a WebSocket that kills is told the same way', { skip }, async (t) => {
  const server = await start(t);
  for (let i = 0; i < 2; i++) {
    const chat = await openChat(t, server);
    chat.send({ action: 'chat', text: 'boom' });
    await waitFor(() => deaths(server).length > i, 'a death');
    await waitFor(() => chat.closed, 'the end of the socket');
  }
  const [first, second] = deaths(server);
  assert.deepEqual([first.request, first.under_way], ['"message of /ws/chat"', 'yes']);
  assert.equal(first.fingerprint, second.fingerprint);
  await newSession(server);
});
