// Idle WebSockets go from worker to worker by descriptor: over a reload, a new binary, and crashes in the midst of it.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseMetrics, sumOf } from './lib/metrics.mjs';
import { isGone } from './lib/process.mjs';
import { keys, newSession, startServer, streamTurn } from './lib/server.mjs';
import { holders } from './lib/sockets.mjs';
import { startTls } from './lib/tls.mjs';
import { waitFor } from './lib/wait.mjs';
import { is_last, openChat, text_of } from './lib/ws.mjs';

const key = keys.client;
const taken = async (server) => sumOf(parseMetrics((await server.request('/metrics')).text), 'parley_websocket_taken_total');
const expected = Array.from({ length: 20 }, (_, i) => `tok${i}`).join(' ');

/** A socket that has joined a session: it only listens. */
async function openListener(t, server) {
  const { id } = await newSession(server);
  const chat = await openChat(t, server);
  chat.send({ action: 'join', request_id: 'j', payload: { session_id: id } });
  chat.send({ action: 'ping' });
  await chat.frame({ status: 'pong' });
  chat.session_id = id;
  chat.from = chat.frames.length;
  return chat;
}

/** A turn begun elsewhere in its session is told to it, each event once and in order. */
async function expectTold(server, chat) {
  const events = await streamTurn(server, chat.session_id, { input: '[[mock tokens=20 interval=1]]' });
  const turn_id = events[0].id.split('.')[0];
  const frames = await chat.turn(turn_id);
  assert.equal(text_of(frames), expected);
  assert.deepEqual(frames.map(({ seq }) => seq), [...new Set(frames.map(({ seq }) => seq))], 'no event twice');
  assert.equal(frames.filter(is_last).length, 1);
}

for (const [name, change] of [
  ['a reload', async (server) => {
    const from = server.lines.length;
    server.kill('SIGHUP');
    await server.line(/reload done/, 20000, from);
  }],
  ['a new binary', (server) => server.upgrade()],
]) {
  test(`${name}: who only listens notices nothing, and gets the next turn`, async (t) => {
    const server = await startServer(t, { config: { drain: { timeout: '20s', spread: '10s' } } });
    const chats = await Promise.all(Array.from({ length: 120 }, () => openListener(t, server)));
    for (let round = 1; round <= 3; round++) {
      const before = server.workers();
      await change(server);
      await waitFor(() => before.every(isGone), 'end of the old workers');
      assert.equal(await taken(server), 120 * round);
      const held = holders(server.port, server.workers());
      for (const chat of chats) assert.ok(held.has(chat.local_port), 'a new worker has it');
    }
    assert.deepEqual(chats.filter(({ closed }) => closed), []);
    await Promise.all(chats.slice(0, 40).map((chat) => expectTold(server, chat)));
    // They speak as before: in the same conversation, and under the same key.
    for (const chat of chats.slice(0, 10)) {
      const frames = await chat.answer(chat.chat({ text: 'again', session_id: chat.session_id }));
      assert.equal(frames.at(-1).status, 'complete');
      chat.send({ action: 'ping' });
    }
    // The streams of the turns above have ended for their clients a moment before their places are free.
    const active = async () => (await server.request('/health')).json.connections.active;
    await waitFor(async () => await active() === 120, 'a place for each socket, and no other');
    await Promise.all(chats.map((chat) => chat.close()));
    await waitFor(async () => await active() === 0, 'places given back');
  });
}

test('turns begin while sockets are on their way: each is told whole, once', async (t) => {
  const server = await startServer(t, { config: { drain: { timeout: '20s' } } });
  const chats = await Promise.all(Array.from({ length: 40 }, () => openListener(t, server)));
  let is_over = false, told = 0;
  const talk = async (chat) => {
    while (!is_over) {
      await expectTold(server, chat);
      told++;
    }
  };
  const all = Promise.all(chats.map(talk));
  all.catch(() => {});
  for (let i = 0; i < 4; i++) {
    const then = told;
    if (i % 2) await server.upgrade();
    else {
      const from = server.lines.length;
      server.kill('SIGHUP');
      await server.line(/reload done/, 20000, from);
    }
    await Promise.race([all, waitFor(() => told >= then + 80, 'turns', 30000)]);
  }
  is_over = true;
  await all;
  assert.deepEqual(chats.filter(({ closed }) => closed), []);
  assert.ok(await taken(server) >= 80);
});

test('a socket with a turn goes when that has ended; one over TLS is told to come back', async (t) => {
  const { secure, url, ca } = await startTls(t, {}, { mock: undefined, config: { workers: 4, drain: { timeout: '20s', spread: '0' } } });
  const busy = await openChat(t, secure);
  const request = busy.chat('[[mock tokens=80 interval=20]]');
  await busy.frame({ status: 'chunk' });
  const over_tls = await openChat(t, secure, { url: url.replace('https', 'wss'), ca: ca() });
  const before = secure.workers();
  secure.kill('SIGHUP');
  await secure.line(/reload done/);
  assert.match(JSON.stringify(await over_tls.end()), /"code":1001,"reason":"draining; retry_after_ms=/);
  assert.equal((await busy.answer(request)).at(-1).status, 'complete');
  await waitFor(() => before.every(isGone), 'end of the old workers');
  assert.equal(busy.closed, null);
  assert.ok(holders(secure.port, secure.workers()).has(busy.local_port));
  assert.equal((await busy.answer(busy.chat('and now'))).at(-1).status, 'complete');
});

test('who asks again the moment the answer is there goes between two turns, and is never refused', async (t) => {
  const server = await startServer(t, { config: { drain: { timeout: '25s' } } });
  const chats = await Promise.all(Array.from({ length: 24 }, () => openChat(t, server)));
  const ask = (chat) => chat.chat('[[mock tokens=10 interval=30]]');
  let is_over = false;
  for (const chat of chats) {
    chat.ws.on('message', (bytes) => { if (!is_over && is_last(JSON.parse(bytes))) ask(chat); });
    ask(chat);
  }
  const answered = () => chats.reduce((sum, { frames }) => sum + frames.filter(is_last).length, 0);
  for (const change of [() => server.kill('SIGHUP'), () => server.upgrade()]) {
    const before = server.workers();
    await change();
    await waitFor(() => before.every(isGone), 'end of the old workers');
    const then = answered();
    await waitFor(() => answered() >= then + 2 * chats.length, 'answers of the new ones');
  }
  is_over = true;
  assert.deepEqual(chats.flatMap(({ frames }) => frames.filter(({ status }) => status === 'error')).slice(0, 3), []);
  assert.deepEqual(chats.filter(({ closed }) => closed), []);
});

test('two changes while a turn runs: its socket goes on to the third generation', async (t) => {
  const server = await startServer(t, { config: { drain: { timeout: '30s' } } });
  const chat = await openChat(t, server);
  const request = chat.chat('[[mock tokens=100 interval=20]]');
  await chat.frame({ status: 'chunk' });
  const before = server.workers();
  const from = server.lines.length;
  server.kill('SIGHUP');
  await server.line(/reload done/, 20000, from);
  await server.upgrade();
  assert.equal((await chat.answer(request)).at(-1).status, 'complete');
  await waitFor(() => before.every(isGone), 'end of the first generation');
  await waitFor(() => holders(server.port, server.workers()).has(chat.local_port), 'the third to have it');
  assert.equal(chat.closed, null);
  assert.equal((await chat.answer(chat.chat('and now'))).at(-1).status, 'complete');
});

test('a revoked key, and a message that is half there', async (t) => {
  const server = await startServer(t, { config: { drain: { timeout: '3s' } } });
  const minted = await server.request('/v1/client-keys', { key: keys.server, body: { device_id: 'd', expires_in: 600 } });
  const own = await openChat(t, server, { key: minted.json.key });
  const half = await openChat(t, server);
  half.ws._socket.write(Buffer.from([0x81, 0xfe])); // a frame's head: text, masked, a length that is still to come
  const from = server.lines.length;
  server.kill('SIGHUP');
  await server.line(/reload done/, 20000, from);
  // It cannot be given in the midst of a frame, and is told to go.
  assert.equal((await half.end()).code, 1001);
  assert.equal((await own.answer(own.chat('hello'))).at(-1).status, 'complete');
});

/** What has become of a socket: it answers, its client knows that it is closed, or neither. */
function fateOf(chat) {
  if (chat.closed) return 'closed';
  const count = chat.frames.length;
  chat.send({ action: 'ping' });
  return waitFor(() => (chat.closed && 'closed') || (chat.frames.length > count && 'open'), 'pong', 8000).catch(() => 'silent');
}

test('a crash of either side in the midst of it loses no socket silently', { timeout: 120000 }, async (t) => {
  for (const victim of ['giver', 'taker']) {
    const server = await startServer(t, { config: { workers: 1, drain: { timeout: '10s' } } });
    server.expectLog(/worker died/);
    let is_hit = false;
    for (let attempt = 0; attempt < 8 && !is_hit; attempt++) { // it takes some milliseconds, which may be missed
      const chats = await Promise.all(Array.from({ length: 300 }, () => openListener(t, server)));
      const [old] = server.workers();
      const from = server.lines.length;
      server.kill('SIGHUP');
      const find = (regex) => server.lines.slice(from).map((line) => regex.exec(line)).find(Boolean);
      while (!find(/worker draining slot=0/)) await new Promise(setImmediate);
      try {
        process.kill(victim === 'giver' ? old : Number(find(/worker started slot=0 pid=(\d+)/)[1]), 'SIGKILL');
        is_hit = true;
      } catch (e) {
        assert.equal(e.code, 'ESRCH');
      }
      await waitFor(() => isGone(old), 'end of the old worker', 15000);
      const fates = await Promise.all(chats.map(fateOf));
      assert.ok(!fates.includes('silent'), `${victim}: ${fates.filter((fate) => fate === 'silent').length} hear nothing`);
      if (is_hit) t.diagnostic(`${victim} killed: ${fates.filter((fate) => fate === 'open').length} of 300 go on`);
      for (const chat of chats) chat.cut();
      await server.line(/reload (done|failed)/, 10000, from);
    }
    assert.ok(is_hit, victim);
  }
});
