// /ws/chat from a real browser: what it offers by itself and cannot be told (extensions, Origin, no headers), and what it makes of our ends.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { browser_path, startBrowser, startSite } from './lib/browser.mjs';
import { parseMetrics, sumOf } from './lib/metrics.mjs';
import { keys, startServer } from './lib/server.mjs';
import { holders } from './lib/sockets.mjs';
import { waitFor } from './lib/wait.mjs';
import { text_of } from './lib/ws.mjs';

const skip = browser_path ? false : 'no chromium';
const pair = ['parley', `bearer.${keys.client}`];
let server, browser, dir, wss;
before(async () => {
  if (skip) return;
  dir = fs.mkdtempSync(path.join(os.tmpdir(), 'parley-wss-'));
  const [certificate, key] = ['s.crt', 's.key'].map((name) => path.join(dir, name));
  execFileSync('openssl', ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '2', '-subj', '/CN=localhost',
    '-keyout', key, '-out', certificate], { stdio: 'pipe' });
  server = await startServer(null, { config: { tls: { certificate, key, listen: ['127.0.0.1:0'], http2: true } } });
  wss = `wss://${(await server.line(/listening address=(\S+) kind=(?:https|tls)/))[1]}/ws/chat`;
  browser = await startBrowser();
});
after(async () => {
  await browser?.stop();
  await server?.stop();
  if (dir) fs.rmSync(dir, { recursive: true, force: true });
});

const url_of = (of = server) => `ws://${of.address}/ws/chat`;
const connect = (page, name, url, protocols = []) => page.run((n, u, p) => globalThis.connect(n, u, p), name, url, protocols);
const say = (page, name, message) => page.run((n, m) => globalThis.say(n, m), name, message);
const closed = (page, name) => page.run((n) => until(`end of ${n}`, () => sockets[n].closed), name);
const frames_of = (page, name) => page.run((n) => sockets[n].frames, name);
/** All frames of a chat to its end. */
const answer = (page, name, request_id) => page.run((n, id) => until(`end of ${id}`, () => {
  const mine = sockets[n].frames.filter((frame) => frame.request_id === id);
  return ['complete', 'error'].includes(mine.at(-1)?.status) && mine;
}), name, request_id);
const chat = async (page, name, request_id, payload) => {
  await say(page, name, { action: 'chat', request_id, payload });
  return answer(page, name, request_id);
};
const has_chunk = (page, name, request_id) => page.run((n, id) => until('chunk', () =>
  sockets[n].frames.some((frame) => frame.request_id === id && frame.status === 'chunk')), name, request_id);
const words = (n) => Array.from({ length: n }, (_, i) => `tok${i}`).join(' ');

for (const kind of ['ws', 'wss']) {
  test(`${kind}: the subprotocol pair, no extension although one is offered, a turn in chunks, a clean end`, { skip }, async (t) => {
    const page = await browser.open(await startSite(t));
    const opened = await connect(page, 'a', kind === 'ws' ? url_of() : wss, pair);
    assert.deepEqual(opened, { opened: true, protocol: 'parley', extensions: '' });
    const frames = await chat(page, 'a', 'r1', { text: '[[mock tokens=30 interval=5]]' });
    assert.equal(frames[0].status, 'processing');
    assert.ok(frames.filter(({ status }) => status === 'chunk').length > 5);
    assert.equal(text_of(frames), words(30));
    assert.equal(frames.at(-1).status, 'complete');
    const big = 'ü'.repeat(200000);
    assert.equal(text_of(await chat(page, 'a', 'r2', { text: big })), `echo: ${big}`);
    await page.run(() => sockets.a.ws.close(3000, 'enough'));
    // Our answer repeats the code, without a reason.
    assert.deepEqual(await closed(page, 'a'), { code: 3000, reason: '', wasClean: true });
  });
}

test('access_token in the address, without a subprotocol', { skip }, async (t) => {
  const page = await browser.open(await startSite(t));
  assert.deepEqual(await connect(page, 'a', `${url_of()}?access_token=${keys.client}`), { opened: true, protocol: '', extensions: '' });
  assert.equal(text_of(await chat(page, 'a', 'r', { text: 'hi' })), 'echo: hi');
});

test('cancel; reconnect to another worker, and resume: nothing lost, nothing doubled', { skip }, async (t) => {
  const page = await browser.open(await startSite(t));
  /** Connects; the pid of the worker that has it. */
  const connect_to = async (name) => {
    const before_it = holders(server.port, server.workers());
    assert.ok((await connect(page, name, url_of(), pair)).opened);
    const [, pid] = await waitFor(() => [...holders(server.port, server.workers())].find(([port]) => !before_it.has(port)), 'who has it');
    return pid;
  };
  const was_at = await connect_to('a');
  await say(page, 'a', { action: 'chat', request_id: 'long', payload: { text: '[[mock tokens=5000 interval=20]]' } });
  await has_chunk(page, 'a', 'long');
  await say(page, 'a', { action: 'cancel', request_id: 'long' });
  assert.equal((await answer(page, 'a', 'long')).at(-1).chunk.code, 'cancelled');

  await say(page, 'a', { action: 'chat', request_id: 'cut', payload: { text: '[[mock tokens=100 interval=10]]' } });
  await has_chunk(page, 'a', 'cut');
  await page.run(() => sockets.a.ws.close());
  await closed(page, 'a');
  const had = (await frames_of(page, 'a')).filter(({ request_id }) => request_id === 'cut');
  for (let i = 0; ; i++) {
    const name = `b${i}`;
    if (await connect_to(name) !== was_at) {
      const { turn_id, chunk: { metadata: { session_id } } } = had[0];
      await say(page, name, { action: 'resume', request_id: 'back', payload: { session_id, turn_id, after: had.at(-1).seq } });
      const rest = await answer(page, name, 'back');
      const numbers = [...had, ...rest].map(({ seq }) => seq);
      assert.ok(numbers.every((n, k) => k === 0 || n > numbers[k - 1]), String(numbers));
      assert.equal(text_of([...had, ...rest]), words(100));
      assert.equal(rest.at(-1).status, 'complete');
      return;
    }
    await page.run((n) => sockets[n].ws.close(), name);
    await closed(page, name);
  }
});

test('the Origin is the browser\'s word: one of the list is let in, another is refused', { skip }, async (t) => {
  const [good, bad] = [await startSite(t), await startSite(t)];
  const own = await startServer(t, { mock: false, config: { workers: 2, cors: { allow_origins: [good] } } });
  const [ours, foreign] = [await browser.open(good), await browser.open(bad)];
  assert.equal((await connect(ours, 'a', url_of(own), pair)).opened, true);
  assert.deepEqual(await connect(foreign, 'a', url_of(own), pair), { opened: false, code: 1006, reason: '', wasClean: false });
  assert.equal((await connect(ours, 'b', url_of(own), ['parley', 'bearer.pc_nobody_has_this_key_0123456789'])).opened, false);
  const families = parseMetrics((await own.request('/metrics')).text);
  assert.equal(sumOf(families, 'parley_connections_rejected_total', { reason: 'origin' }), 1);
  assert.equal(sumOf(families, 'parley_connections_rejected_total', { reason: 'unauthorized' }), 1);
});

test('our ends have their codes there: 1009, 1013, 1001', { skip }, async (t) => {
  const own = await startServer(t, { mock: false, config: { workers: 1, max_connections: 2, websocket: { max_message: '1KiB' } } });
  own.expectLog(/connection refused reason=capacity/);
  const page = await browser.open(await startSite(t));
  for (const name of ['a', 'b']) assert.ok((await connect(page, name, url_of(own), pair)).opened);
  assert.ok((await connect(page, 'c', url_of(own), pair)).opened);
  assert.deepEqual(await closed(page, 'c'), { code: 1013, reason: 'Server at maximum capacity', wasClean: true });
  await page.run(() => sockets.a.ws.send('x'.repeat(2000)));
  const { code, wasClean } = await closed(page, 'a');
  assert.deepEqual({ code, wasClean }, { code: 1009, wasClean: true });
  const stopped = own.stop();
  const { code: code_b, reason, wasClean: clean_b } = await closed(page, 'b');
  assert.match(reason, /^draining; retry_after_ms=\d+$/);
  assert.deepEqual({ code_b, clean_b }, { code_b: 1001, clean_b: true });
  await stopped;
});
