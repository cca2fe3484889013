// /ws/chat: opening and its refusals, every action, every form of frame, many sockets on one session, pressure, the ends.
import assert from 'node:assert/strict';
import { execFile, execFileSync } from 'node:child_process';
import crypto from 'node:crypto';
import fs from 'node:fs';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { promisify } from 'node:util';
import WebSocket from 'ws';
import { parseMetrics, sumOf } from './lib/metrics.mjs';
import { build } from './lib/process.mjs';
import { keys, newSession, startServer, streamTurn } from './lib/server.mjs';
import { holders } from './lib/sockets.mjs';
import { waitFor, within } from './lib/wait.mjs';
import { openChat, refused, text_of } from './lib/ws.mjs';

const tools = ['weather', 'clock'].map((name) => ({ type: 'function', function: { name, description: name, parameters: { type: 'object' } } }));
const is_slow_build = /asan|tsan|cover/.test(process.env.PARLEY_BUILD ?? '');
const limited_key = 'pc_test_limited_key_0123456789abc';
let server;
before(async () => {
  server = await startServer(null, { config: {
    keys: [
      { kind: 'client', app: 'demo', secret: keys.client },
      { kind: 'client', app: 'demo', secret: limited_key, rate: { limit: 3, window: '60s' } },
      { kind: 'server', app: 'demo', secret: keys.server },
      { kind: 'admin', secret: keys.admin },
    ],
  } });
  server.expectLog(/store write waits /); // the command line writes into the record beside it, as fast as the disk lets it
});
after(() => server?.stop());

const connections = async (of = server) => sumOf(parseMetrics((await of.request('/metrics')).text), 'parley_connections', { kind: 'websocket' });
const sequence = (frames) => frames.map(({ seq }) => seq);
const increases = (numbers) => numbers.every((n, i) => i === 0 || n > numbers[i - 1]);

/** A socket that another worker holds than `other` (or than the one with this pid). */
async function openElsewhere(t, from, other, options) {
  const where = (chat) => holders(from.port, from.workers()).get(chat.local_port);
  const not = typeof other === 'number' ? other : where(other);
  for (;;) {
    const chat = await openChat(t, from, options);
    if (where(chat) !== not) return chat;
    await chat.close();
  }
}

/* ---- opening ---- */

test('keys come by header, X-API-Key, query or subprotocol; only `parley` is chosen', async (t) => {
  for (const options of [
    {}, { key: null, headers: { 'x-api-key': keys.server } }, { key: null, query: `?access_token=${keys.client}` },
    { key: null, protocols: ['parley', `bearer.${keys.client}`] }, { key: null, protocols: [`bearer.${keys.client}`, 'parley'] },
  ]) {
    const chat = await openChat(t, server, options);
    assert.equal(chat.ws.protocol, options.protocols ? 'parley' : '');
    chat.send({ action: 'ping' });
    assert.deepEqual(await chat.frame({ status: 'pong' }), { status: 'pong' });
    assert.equal((await chat.close()).code, 1000);
  }
  assert.ok(!server.output().includes(keys.client));
});

test('refusals in their order: 401, 403 for the origin, 426', async (t) => {
  const own = await startServer(t, { mock: false, config: { workers: 2, cors: { allow_origins: ['https://app.example'] } } });
  const raw = (extra, method = 'GET') => own.request('/ws/chat', { method, headers: extra });
  const bad_origin = { origin: 'https://evil.example' };
  for (const options of [{ key: null }, { key: 'pc_nobody_has_this_key_0123456789' }, { key: null, headers: bad_origin },
    { key: null, protocols: ['parley', 'bearer.pc_nobody_has_this_key_0123456789'] }]) {
    const { status, headers, json } = await refused(own, options);
    assert.equal(status, 401);
    assert.equal(headers['www-authenticate'], 'Bearer');
    assert.equal(json.error.code, 'unauthorized');
  }
  assert.equal((await raw({})).status, 401);
  assert.equal((await refused(own, { key: keys.admin })).status, 403);
  const origin = await refused(own, { headers: bad_origin });
  assert.equal(origin.status, 403);
  assert.equal(origin.json.error.code, 'forbidden');
  const authorization = `Bearer ${keys.client}`;
  assert.equal((await raw({ authorization, ...bad_origin })).status, 403);
  for (const headers of [{}, { connection: 'upgrade', upgrade: 'websocket', 'sec-websocket-version': '8', 'sec-websocket-key': 'dGhlIHNhbXBsZSBub25jZQ==' }]) {
    const { status, headers: answered, json } = await raw({ authorization, ...headers });
    assert.equal(status, 426);
    assert.equal(answered['sec-websocket-version'], '13');
    assert.equal(answered.upgrade, 'websocket');
    assert.equal(json.error.code, 'upgrade_required');
  }
  const broken = await raw({ authorization, connection: 'upgrade', upgrade: 'websocket', 'sec-websocket-version': '13', 'sec-websocket-key': 'short' });
  assert.equal(broken.status, 400);
  assert.equal((await raw({ authorization }, 'POST')).status, 405);
  (await openChat(t, own, { headers: { origin: 'https://app.example' } })).cut();
  (await openChat(t, own)).cut();
  const families = parseMetrics((await own.request('/metrics')).text);
  assert.equal(sumOf(families, 'parley_connections_rejected_total', { reason: 'origin' }), 2);
  assert.ok(sumOf(families, 'parley_connections_rejected_total', { reason: 'unauthorized' }) >= 5);
});

test('an open socket is counted and logged, and given back', async (t) => {
  const before_it = await connections();
  const chat = await openChat(t, server);
  assert.equal(await connections(), before_it + 1);
  await server.line(/websocket open active=\d+ max=1000/);
  await chat.close();
  await waitFor(async () => (await connections()) === before_it, 'the place given back');
});

test('capacity: 1013 and its reason, what is connected goes on, places come back; 503 where too many linger', async (t) => {
  const small = await startServer(t, { config: { workers: 1, max_connections: 3, websocket: { max_refused: 2, close_timeout: '60s' } } });
  small.expectLog(/connection refused reason=capacity active=3 max=3/);
  const held = [];
  for (let i = 0; i < 3; i++) held.push(await openChat(t, small));
  assert.equal(await connections(small), 3);
  const full = await openChat(t, small);
  assert.deepEqual(await full.end(), { code: 1013, reason: 'Server at maximum capacity' });
  assert.equal((await small.request('/health/ready')).status, 503);
  assert.equal((await small.request('/v1/sessions', { key: keys.client, body: {} })).status, 503);
  assert.equal((await refused(small, { key: null })).status, 401);
  held[0].send({ action: 'ping' });
  await held[0].frame({ status: 'pong' });
  // Two that do not answer the close frame linger.
  const linger = () => new Promise((resolve, reject) => {
    const socket = net.connect(small.port, '127.0.0.1');
    t.after(() => socket.destroy());
    let text = '';
    socket.on('error', reject).on('data', (part) => {
      text += part.toString('latin1');
      if (text.includes('Server at maximum capacity')) resolve(text);
    });
    socket.write(`GET /ws/chat HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${keys.client}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n` +
      'Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n');
  });
  for (let i = 0; i < 2; i++) assert.match(await within(linger()), /^HTTP\/1.1 101 [^]*sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK\+xOo=/i);
  const { status, headers, json } = await refused(small);
  assert.equal(status, 503);
  assert.equal(headers['retry-after'], '5');
  assert.equal(json.active_connections, 3);
  assert.equal(sumOf(parseMetrics((await small.request('/metrics')).text), 'parley_connections_rejected_total', { reason: 'capacity' }), 5);
  await held[0].close();
  await waitFor(async () => (await connections(small)) === 2, 'a free place');
  const again = await openChat(t, small);
  again.send({ action: 'ping' });
  await again.frame({ status: 'pong' });
});

/* ---- chat ---- */

test('chat: processing, chunks in order, complete; the conversation goes on', async (t) => {
  const chat = await openChat(t, server);
  const frames = await chat.answer(chat.chat('Say hello [[mock tokens=20 interval=10]]'));
  assert.equal(frames[0].status, 'processing');
  assert.equal(frames[0].seq, 1);
  assert.equal(frames[0].chunk.metadata.processing, true);
  const session_id = frames[0].chunk.metadata.session_id;
  assert.match(session_id, /^sess_/);
  for (const frame of frames) assert.equal(frame.turn_id, frames[0].turn_id);
  assert.ok(increases(sequence(frames)));
  const chunks = frames.filter(({ status }) => status === 'chunk');
  assert.ok(chunks.length > 1);
  let offset = 0;
  for (const { chunk } of chunks) {
    assert.equal(chunk.type, 'text');
    assert.equal(chunk.metadata.type, 'delta');
    assert.equal(chunk.metadata.hop, 0);
    assert.equal(chunk.metadata.offset, offset);
    offset += chunk.data.length;
  }
  assert.equal(text_of(frames), Array.from({ length: 20 }, (_, i) => `tok${i}`).join(' '));
  const last = frames.at(-1);
  assert.equal(last.status, 'complete');
  assert.deepEqual(last.chunk, {});
  assert.equal(last.finish_reason, 'stop');
  assert.equal(last.usage.output_tokens, 20);
  const second = await chat.answer(chat.chat('And now?'));
  assert.equal(second[0].chunk.metadata.session_id, session_id);
  assert.equal(text_of(second), 'echo: And now?');
  const { json } = await server.request(`/v1/sessions/${session_id}/messages`, { key: keys.client });
  assert.deepEqual(json.data.map(({ role }) => role), ['user', 'assistant', 'user', 'assistant']);
});

test('streaming: false is one chunk, then complete', async (t) => {
  const chat = await openChat(t, server);
  const frames = await chat.answer(chat.chat({ text: '[[mock tokens=30 interval=1 reasoning=2]]', streaming: false }));
  assert.deepEqual(frames.map(({ status }) => status), ['processing', 'chunk', 'complete']);
  assert.equal(frames[1].chunk.type, 'text');
  assert.equal(frames[1].chunk.data, Array.from({ length: 30 }, (_, i) => `tok${i}`).join(' '));
  assert.ok(increases(sequence(frames)));
});

test('reasoning, failure of the provider, a second chat at once, queue', async (t) => {
  const chat = await openChat(t, server);
  const thinking = await chat.answer(chat.chat('[[mock tokens=2 reasoning=2]]'));
  assert.match(thinking.filter(({ chunk }) => chunk.type === 'reasoning').map(({ chunk }) => chunk.data).join(''), /why0.*why1/);
  const failed = (await chat.answer(chat.chat('[[mock fault=status:400 message="no"]]'))).at(-1);
  assert.equal(failed.status, 'error');
  assert.equal(failed.chunk.code, 'provider_refused');
  assert.equal(typeof failed.chunk.error, 'string');
  const slow = chat.chat('[[mock tokens=20 interval=20]]');
  await chat.frame((frame) => frame.request_id === slow && frame.status === 'chunk');
  const busy = (await chat.answer(chat.chat('now')))[0];
  assert.equal(busy.chunk.code, 'turn_in_progress');
  const queued = chat.chat({ text: 'later', queue: true });
  assert.equal((await chat.answer(slow)).at(-1).status, 'complete');
  assert.equal(text_of(await chat.answer(queued)), 'echo: later');
});

test('the first chat makes the row: metadata, model and tools go to it; chats that come meanwhile wait for it', async (t) => {
  const chat = await openChat(t, server, { key: keys.server });
  const first = chat.chat({ text: 'a', metadata: { plan: 'gold' }, model: 'default', tools });
  const second = chat.chat({ text: 'b', queue: true });
  const frames = await chat.answer(first);
  await chat.answer(second);
  const session_id = frames[0].chunk.metadata.session_id;
  assert.equal((await chat.answer(second))[0].chunk.metadata.session_id, session_id);
  const { json } = await server.request(`/v1/sessions/${session_id}`, { key: keys.server });
  assert.deepEqual(json.metadata, { plan: 'gold' });
  assert.equal(json.model, 'default');
  assert.equal(json.tools.length, 2);
});

test('session_id chooses the conversation; another one goes on beside it', async (t) => {
  const [a, b] = [await newSession(server), await newSession(server)];
  const chat = await openChat(t, server);
  const in_a = chat.chat({ text: 'in a [[mock tokens=10 interval=10]]', session_id: a.id });
  const in_b = chat.chat({ text: 'in b', session_id: b.id });
  assert.equal((await chat.answer(in_a))[0].chunk.metadata.session_id, a.id);
  assert.equal((await chat.answer(in_b))[0].chunk.metadata.session_id, b.id);
  assert.equal((await chat.answer(in_b)).at(-1).status, 'complete');
  const unknown = await chat.answer(chat.chat({ text: 'x', session_id: 'sess_01234567890123456789abcdef' }));
  assert.equal(unknown[0].chunk.code, 'not_found');
  await server.request(`/v1/sessions/${b.id}`, { key: keys.client, method: 'DELETE' });
  assert.equal((await chat.answer(chat.chat({ text: 'x', session_id: b.id })))[0].chunk.code, 'session_closed');
});

test('idempotency_key is the turn\'s request_id, on any worker and over HTTP', async (t) => {
  const { id } = await newSession(server);
  const chat = await openChat(t, server);
  const payload = { text: 'once [[mock tokens=5]]', session_id: id, idempotency_key: 'key-1' };
  const elsewhere = await openElsewhere(t, server, chat);
  const first = await chat.answer(chat.chat(payload, 'a'));
  const again = await elsewhere.answer(elsewhere.chat(payload, 'b'));
  assert.deepEqual(again.map(({ turn_id, seq }) => [turn_id, seq]), first.map(({ turn_id, seq }) => [turn_id, seq]));
  assert.ok(again.every(({ request_id }) => request_id === 'b'));
  const over_http = await streamTurn(server, id, { input: payload.text, request_id: 'key-1' });
  assert.equal(over_http[0].id.split('.')[0], first[0].turn_id);
  const reused = await chat.answer(chat.chat({ ...payload, text: 'other' }));
  assert.equal(reused[0].chunk.code, 'request_id_reused');
});

test('what is wrong is said, with the request_id or "unknown", and the socket stays open', async (t) => {
  const chat = await openChat(t, server);
  const bad = [
    ['no JSON', 'unknown', 'invalid_json'], ['[1]', 'unknown', 'invalid_json'], [Buffer.from('{"action":"ping"}'), 'unknown', 'invalid_json'],
    [{ action: 'dance', request_id: 'd' }, 'd', 'invalid_request'], [{ request_id: 'n' }, 'n', 'invalid_request'],
    [{ action: 'chat', request_id: 'p' }, 'p', 'invalid_request'], [{ action: 'chat', payload: [] }, 'unknown', 'invalid_request'],
    [{ action: 'chat', request_id: 't', payload: {} }, 't', 'invalid_value'], [{ action: 'chat', request_id: 't', payload: { text: '' } }, 't', 'invalid_value'],
    [{ action: 'chat', request_id: 's', payload: { text: 'x', streaming: 'yes' } }, 's', 'invalid_value'],
    [{ action: 'chat', request_id: 'm', payload: { text: 'x', model: 'default' } }, 'm', 'forbidden'],
    [{ action: 'chat', request_id: 'md', payload: { text: 'x', metadata: { a: 'x'.repeat(17000) } } }, 'md', 'invalid_value'],
    [{ action: 'join', request_id: 'j', payload: {} }, 'j', 'invalid_request'], [{ action: 'join', request_id: 'j', payload: { session_id: 'x' } }, 'j', 'not_found'],
    [{ action: 'resume', request_id: 'r', payload: { session_id: 'sess_01234567890123456789abcdef' } }, 'r', 'invalid_request'],
    [{ action: 'cancel', request_id: 'c' }, 'c', 'not_found'], [{ action: 'cancel' }, 'unknown', 'not_found'],
    [{ action: 'tool_result', request_id: 'tr', payload: { tool_call_id: 'call_x', output: 1 } }, 'tr', 'unknown_tool_call'],
    [{ action: 'tool_result', request_id: 'tr', payload: { tool_call_id: 'call_x' } }, 'tr', 'invalid_request'],
    [{ action: 'tool_result', request_id: 'tr', payload: { tool_call_id: 'call_x', output: 1, error: 'x' } }, 'tr', 'invalid_request'],
  ];
  for (const [message, request_id, code] of bad) {
    const from = chat.frames.length;
    if (Buffer.isBuffer(message)) chat.ws.send(message, { binary: true });
    else chat.send(message);
    const frame = await chat.frame(() => true, JSON.stringify(message), 5000, from);
    assert.equal(frame.status, 'error', JSON.stringify(message));
    assert.equal(frame.request_id, request_id, JSON.stringify(frame));
    assert.equal(frame.chunk.code, code, JSON.stringify(frame));
    assert.equal(typeof frame.chunk.error, 'string');
  }
  chat.send({ action: 'ping', request_id: 'still' });
  assert.deepEqual(await chat.frame({ status: 'pong' }), { status: 'pong', request_id: 'still' });
});

test('a client key\'s rate limit holds for chats, not for messages', async (t) => {
  const chat = await openChat(t, server, { key: limited_key });
  for (let i = 0; i < 5; i++) chat.send({ action: 'ping' });
  for (let i = 0; i < 3; i++) assert.equal((await chat.answer(chat.chat(`${i}`))).at(-1).status, 'complete');
  const [refusal] = await chat.answer(chat.chat('one more'));
  assert.equal(refusal.chunk.code, 'rate_limited');
  assert.match(refusal.chunk.error, /it has \d+ requests in its window; try again in \d+ s/);
  assert.ok(refusal.chunk.retry_after >= 1 && refusal.chunk.retry_after <= 60);
});

/* ---- tools, cancel ---- */

test('tools of the client: called, answered, answered twice, failed; the model goes on', async (t) => {
  const chat = await openChat(t, server);
  const id = chat.chat({ text: '[[mock tool=weather args={"city":"Paris"}]]', tools });
  const call = await chat.frame({ status: 'tool_call', request_id: id });
  assert.match(call.chunk.tool_call_id, /^call_/);
  assert.equal(call.chunk.name, 'weather');
  assert.deepEqual(call.chunk.arguments, { city: 'Paris' });
  assert.equal(call.chunk.claimed_by, chat.frames[0].chunk.metadata.connection);
  chat.send({ action: 'tool_result', request_id: 'result', payload: { tool_call_id: call.chunk.tool_call_id, output: { sunny: true } } });
  const frames = await chat.answer(id);
  assert.equal(frames.at(-1).status, 'complete');
  const result = frames.find(({ chunk }) => chunk.type === 'tool_result');
  assert.deepEqual(result.chunk.data.output, { sunny: true });
  assert.match(text_of(frames), /sunny/);
  assert.ok(!chat.frames.some(({ request_id }) => request_id === 'result'));

  const two = chat.chat({ text: '[[mock tool=weather args={} tool=clock args={}]]', tools });
  await waitFor(() => chat.frames.filter(({ status, request_id }) => status === 'tool_call' && request_id === two).length === 2, 'both calls');
  const [weather, clock] = chat.frames.filter(({ status, request_id }) => status === 'tool_call' && request_id === two).map(({ chunk }) => chunk);
  const answer = (request_id, body) => chat.send({ action: 'tool_result', request_id, payload: body });
  answer('first', { tool_call_id: weather.tool_call_id, output: 1 });
  // What one socket asks at once is looked up at once: only who has heard of the first comes after it.
  await waitFor(() => chat.frames.some(({ request_id, chunk }) => request_id === two && chunk?.type === 'tool_result'), 'the first result');
  answer('same', { tool_call_id: weather.tool_call_id, output: 1 });
  answer('other', { tool_call_id: weather.tool_call_id, output: 2 });
  for (const [request_id, same] of [['same', true], ['other', false]]) {
    const { chunk } = await chat.frame({ request_id });
    assert.equal(chunk.code, 'already_answered');
    assert.equal(chunk.same_output, same);
  }
  answer('failed', { tool_call_id: clock.tool_call_id, error: 'no such clock' });
  assert.match(text_of(await chat.answer(two)), /no such clock/);
});

test('a tool result may come over any socket that follows, or over HTTP', async (t) => {
  const chat = await openChat(t, server);
  const id = chat.chat({ text: '[[mock tool=weather args={} hops=2]]', tools });
  const call = await chat.frame({ status: 'tool_call', request_id: id });
  const session_id = chat.frames[0].chunk.metadata.session_id;
  const other = await openElsewhere(t, server, chat);
  other.send({ action: 'join', payload: { session_id } });
  await other.frame({ status: 'tool_call' });
  other.send({ action: 'tool_result', payload: { tool_call_id: call.chunk.tool_call_id, output: 'from elsewhere' } });
  const next = await chat.frame((frame) => frame.status === 'tool_call' && frame.chunk.tool_call_id !== call.chunk.tool_call_id);
  const { status } = await server.request(`/v1/sessions/${session_id}/tool-results`, { key: keys.client, body: { tool_call_id: next.chunk.tool_call_id, output: 'by http' } });
  assert.equal(status, 202);
  const frames = await chat.answer(id);
  assert.equal(frames.at(-1).status, 'complete');
  const seen = await other.turn(call.turn_id);
  assert.deepEqual(sequence(seen), sequence(frames));
});

test('cancel: by the chat\'s request_id, by turn_id, the conversation\'s; also before the turn has begun', async (t) => {
  const chat = await openChat(t, server);
  const long = '[[mock tokens=2000 interval=20]]';
  for (const cancel of [
    (id) => ({ action: 'cancel', request_id: id }),
    (id, turn_id) => ({ action: 'cancel', request_id: 'x', payload: { turn_id } }),
    () => ({ action: 'cancel' }),
  ]) {
    const id = chat.chat(long);
    const { turn_id } = await chat.frame((frame) => frame.request_id === id && frame.status === 'chunk');
    chat.send(cancel(id, turn_id));
    const last = (await chat.answer(id)).at(-1);
    assert.equal(last.status, 'error');
    assert.equal(last.chunk.code, 'cancelled');
  }
  const fresh = await openChat(t, server);
  const id = fresh.chat(long, 'quick');
  fresh.send({ action: 'cancel', request_id: 'quick' });
  assert.equal((await fresh.answer(id)).at(-1).chunk.code, 'cancelled');
});

/* ---- many sockets, resume ---- */

test('several sockets on one session see the same turns, whoever begins them and wherever they run', async (t) => {
  const { id } = await newSession(server);
  const sockets = [await openChat(t, server)];
  sockets.push(await openElsewhere(t, server, sockets[0]));
  for (let i = 0; i < 4; i++) sockets.push(await openChat(t, server));
  for (const chat of sockets) chat.send({ action: 'join', request_id: 'join', payload: { session_id: id } });
  for (const chat of sockets) assert.deepEqual(await chat.frame({ status: 'joined' }), { status: 'joined', request_id: 'join', chunk: { metadata: { session_id: id } } });
  const compare = async (turn_id) => {
    const seen = await Promise.all(sockets.map((chat) => chat.turn(turn_id)));
    const plain = seen.map((frames) => frames.map(({ request_id, chunk, ...frame }) => ({ ...frame, chunk: { ...chunk, metadata: { ...chunk.metadata, connection: undefined } } })));
    for (const frames of plain) assert.deepEqual(frames, plain[0]);
    assert.equal(seen[0].at(-1).status, 'complete');
  };
  for (const by of [0, 1]) {
    const request = sockets[by].chat({ text: `by ${by} [[mock tokens=30 interval=5]]`, session_id: id });
    const [{ turn_id }] = await sockets[by].answer(request);
    await compare(turn_id);
    assert.ok(sockets.every((chat, i) => chat.frames.every((frame) => frame.turn_id !== turn_id || (frame.request_id === request) === (i === by))));
  }
  for (let i = 0; i < 4; i++) {
    const events = await streamTurn(server, id, { input: `over HTTP ${i} [[mock tokens=10 interval=2]]` });
    await compare(events[0].id.split('.')[0]);
  }
});

test('who joins in the middle of a turn gets all of it, once', async (t) => {
  const chat = await openChat(t, server);
  const late = await openElsewhere(t, server, chat); // which may take longer than a turn
  const request = chat.chat('[[mock tokens=60 interval=30]]');
  const { turn_id } = await chat.frame((frame) => frame.status === 'chunk' && frame.seq > 3);
  const session_id = chat.frames[0].chunk.metadata.session_id;
  late.send({ action: 'join', payload: { session_id } }).send({ action: 'join', payload: { session_id } });
  assert.equal((await late.frame({ status: 'joined' })).turn_id, turn_id);
  const frames = await chat.answer(request);
  assert.deepEqual(sequence(await late.turn(turn_id)), sequence(frames));
  assert.equal(text_of(await late.turn(turn_id)), text_of(frames));
});

test('resume on another worker after a cut: nothing lost, nothing doubled', async (t) => {
  for (let round = 0; round < 3; round++) {
    const chat = await openChat(t, server);
    chat.chat('[[mock tokens=80 interval=10]]');
    await chat.frame((frame) => frame.status === 'chunk' && frame.seq > 5 + round * 10);
    const { metadata: { session_id } } = chat.frames[0].chunk;
    const turn_id = chat.frames[0].turn_id;
    const was_at = holders(server.port, server.workers()).get(chat.local_port);
    chat.cut();
    const had = [...chat.frames];
    const again = await openElsewhere(t, server, was_at);
    again.send({ action: 'resume', request_id: 'back', payload: { session_id, turn_id, after: had.at(-1).seq } });
    const rest = await again.answer('back');
    const numbers = sequence([...had, ...rest]);
    assert.ok(increases(numbers), String(numbers));
    assert.equal(text_of([...had, ...rest]), Array.from({ length: 80 }, (_, i) => `tok${i}`).join(' '));
    assert.equal(rest.at(-1).status, 'complete');
    assert.equal(text_of(await again.answer(again.chat('go on'))), 'echo: go on');
  }
});

test('resume of a finished turn replays it, later as a snapshot; of an unknown one is an error', async (t) => {
  const own = await startServer(t, { config: { turns: { retain_events: '3s' } } });
  const chat = await openChat(t, own);
  const frames = await chat.answer(chat.chat('[[mock tokens=10]]'));
  const { turn_id, chunk: { metadata: { session_id } } } = frames[0];
  const resume = (request_id, after, turn = turn_id) => chat.send({ action: 'resume', request_id, payload: { session_id, turn_id: turn, after } });
  resume('all', 0);
  assert.deepEqual((await chat.answer('all')).map(({ seq, status }) => [seq, status]), frames.map(({ seq, status }) => [seq, status]));
  let n = 0;
  const snapshot = await waitFor(async () => {
    resume(`again-${++n}`, 1);
    const seen = await chat.answer(`again-${n}`);
    return seen[0].chunk.type === 'snapshot' && seen;
  }, 'a snapshot');
  assert.deepEqual(snapshot.map(({ status }) => status), ['chunk', 'complete']);
  assert.equal(snapshot[0].chunk.data, text_of(frames));
  resume('none', 0, 'turn_01234567890123456789abcdef');
  assert.equal((await chat.answer('none'))[0].chunk.code, 'not_found');
});

/* ---- pressure and limits ---- */

test('all sockets of a worker that follow a turn need one listener, also those that come late', async (t) => {
  const own = await startServer(t, { config: { workers: 2, turns: { max_listeners: 4 } } });
  const { id } = await newSession(own);
  const join = async () => {
    const chat = await openChat(t, own);
    chat.send({ action: 'join', payload: { session_id: id } });
    await chat.frame({ status: 'joined' });
    return chat;
  };
  const all = await Promise.all(Array.from({ length: 12 }, join));
  const turn = own.request(`/v1/sessions/${id}/turns`, { key: keys.client, body: { input: '[[mock tokens=100 interval=20]]', stream: false } });
  await all[0].frame({ status: 'chunk' });
  for (let i = 0; i < 4; i++) {
    const here = Math.max(...sequence(all[0].frames).filter(Boolean));
    const late = await join();
    await late.frame(({ seq, status }) => status === 'error' || seq >= here);
    all.push(late);
  }
  const { json } = await turn;
  const first = await all[0].turn(json.turn_id ?? json.id);
  assert.ok(first.length > 20);
  for (const chat of all) {
    const frames = await chat.turn(first[0].turn_id);
    assert.deepEqual(sequence(frames), sequence(first));
    assert.equal(text_of(frames), text_of(first));
    assert.deepEqual(chat.frames.filter(({ status }) => status === 'error'), []);
  }
});

test('a slow one among sockets that follow a turn is left behind alone, and loses nothing', async (t) => {
  const own = await startServer(t, { config: { workers: 1, websocket: { max_queue: '16KiB' } } });
  const { id } = await newSession(own);
  const [slow, ...quick] = await Promise.all(Array.from({ length: 4 }, async () => {
    const chat = await openChat(t, own);
    chat.send({ action: 'join', payload: { session_id: id } });
    await chat.frame({ status: 'joined' });
    return chat;
  }));
  slow.ws.pause();
  const big = 'x'.repeat(400000);
  const complete = (chat) => chat.frames.filter(({ status }) => status === 'complete');
  for (let i = 0; i < 20; i++) {
    await own.request(`/v1/sessions/${id}/turns`, { key: keys.client, body: { input: `${i} ${big}`, stream: false } });
    await waitFor(() => quick.every((chat) => complete(chat).length === i + 1), 'the end of the turn');
  }
  assert.ok(complete(slow).length < 20);
  slow.ws.resume();
  await waitFor(() => complete(slow).length === 20, 'all turns', 20000);
  for (const chat of [slow, ...quick]) {
    for (const { turn_id } of complete(chat)) {
      const frames = await chat.turn(turn_id);
      assert.match(text_of(frames), /^echo: \d+ x{400000}$/);
      assert.ok(increases(sequence(frames)));
    }
    assert.equal(chat.closed, null);
  }
});

test('who is told a turn with others counts as there until the last of them is gone', async (t) => {
  const own = await startServer(t, { config: { workers: 1, turns: { disconnect_grace: '200ms' } } });
  const chat = await openChat(t, own);
  const request = chat.chat({ text: '[[mock tokens=2000 interval=20]]', on_disconnect: 'cancel' });
  const { turn_id, chunk } = await chat.frame({ request_id: request, status: 'processing' });
  const { session_id } = chunk.metadata;
  const others = await Promise.all(Array.from({ length: 3 }, async () => {
    const other = await openChat(t, own);
    other.send({ action: 'join', payload: { session_id } });
    await other.frame({ turn_id, status: 'chunk' });
    return other;
  }));
  const state = async () => (await own.request(`/v1/sessions/${session_id}/turns/${turn_id}`, { key: keys.client })).json.state;
  const last = others.pop();
  for (const gone of [chat, ...others]) await gone.close();
  const here = last.frames.length;
  await waitFor(() => last.frames.length > here + 20, 'it goes on for longer than the grace');
  await last.close();
  await waitFor(async () => await state() === 'cancelled', 'the end of the turn');
});

test('a slow reader is paused and loses nothing when it reads again', async (t) => {
  // As slow as the machine makes it: it is not to be given up, nor asked whether it is there.
  const own = await startServer(t, { config: { workers: 2, http: { send_timeout: '5m' }, websocket: { max_queue: '16KiB', ping_interval: '0s' } } });
  const { id } = await newSession(own);
  const chat = await openChat(t, own);
  chat.send({ action: 'join', payload: { session_id: id } });
  await chat.frame({ status: 'joined' });
  chat.ws.pause();
  const big = 'x'.repeat(400000);
  for (let i = 0; i < 20; i++) await own.request(`/v1/sessions/${id}/turns`, { key: keys.client, body: { input: `${i} ${big}`, stream: false } });
  chat.ws.resume();
  const complete = () => chat.frames.filter(({ status }) => status === 'complete');
  await waitFor(() => complete().length === 20, 'all turns', 20000);
  for (const { turn_id } of complete()) {
    const text = text_of(await chat.turn(turn_id));
    assert.match(text, /^echo: \d+ x{400000}$/);
  }
  assert.equal(chat.closed, null);
});

test('a reader that stays slow is closed with 1008 and a reason', async (t) => {
  const own = await startServer(t, { config: { workers: 1, http: { send_timeout: '1s' }, websocket: { max_queue: '16KiB', ping_interval: '0s' } } });
  const { id } = await newSession(own);
  const chat = await openChat(t, own);
  chat.send({ action: 'join', payload: { session_id: id } });
  await chat.frame({ status: 'joined' });
  chat.ws.pause();
  const big = 'x'.repeat(900000);
  const slow = async () => sumOf(parseMetrics((await own.request('/metrics')).text), 'parley_websocket_closed_total', { reason: 'slow' });
  for (let i = 0; i < 60 && await slow() === 0; i++) await own.request(`/v1/sessions/${id}/turns`, { key: keys.client, body: { input: `${i} ${big}`, stream: false } });
  await waitFor(async () => await slow() === 1, 'the close of the slow one', 5000);
  chat.ws.resume();
  assert.deepEqual(await chat.end(), { code: 1008, reason: 'reader is too slow' });
  await waitFor(async () => await connections(own) === 0, 'the place given back');
});

test('who asks without reading the answers is paused, then closed; memory stays flat', async (t) => {
  const own = await startServer(t, { mock: false, config: { workers: 1, http: { send_timeout: '1s' }, websocket: { max_queue: '16KiB', ping_interval: '0s' } } });
  const chat = await openChat(t, own);
  const rss = () => Number(/^VmRSS:\s+(\d+) kB/m.exec(fs.readFileSync(`/proc/${own.workers()[0]}/status`, 'utf8'))[1]) / 1024;
  const before_it = rss();
  chat.ws.pause();
  const ping = JSON.stringify({ action: 'ping', request_id: 'x'.repeat(200) });
  let sent = 0;
  chat.ws.on('error', () => {});
  while (sent < 200000 && chat.ws.bufferedAmount < 20e6) {
    for (let i = 0; i < 1000; i++) chat.ws.send(ping);
    sent += 1000;
    await new Promise(setImmediate);
  }
  assert.ok(sent >= 50000, `${sent}`);
  await waitFor(async () => await connections(own) === 0, 'the end of it', 20000);
  // A sanitizer keeps what was freed.
  if (!is_slow_build) assert.ok(rss() - before_it < 32, `grew by ${rss() - before_it} MiB`);
});

test('pings: sent when it is silent, answered; who does not answer is gone', async (t) => {
  const own = await startServer(t, { mock: false, config: { workers: 1, websocket: { ping_interval: '300ms', ping_timeout: '2s' } } });
  const good = await openChat(t, own), dead = await openChat(t, own, { autoPong: false });
  await waitFor(() => dead.pings === 1 && dead.closed, 'end of the dead one');
  assert.equal(dead.closed.code, 1006);
  await waitFor(() => good.pings >= 3, 'pings of the good one');
  assert.equal(good.closed, null);
  const pong = new Promise((resolve) => good.ws.on('pong', (data) => resolve(String(data))));
  good.ws.ping('are you there');
  assert.equal(await within(pong, 'pong'), 'are you there');
  assert.equal(await connections(own), 1);
  assert.equal(sumOf(parseMetrics((await own.request('/metrics')).text), 'parley_websocket_closed_total', { reason: 'no_pong' }), 1);
});

/** A masked frame as a client sends it. */
function frame_bytes(opcode, payload, { fin = true, mask = true, rsv = 0 } = {}) {
  const data = Buffer.from(payload);
  const key = mask ? crypto.randomBytes(4) : Buffer.alloc(0);
  const head = data.length < 126 ? Buffer.from([0, data.length]) : Buffer.from([0, 126, data.length >> 8, data.length & 255]);
  head[0] = (fin ? 0x80 : 0) | rsv | opcode;
  if (mask) {
    head[1] |= 0x80;
    for (let i = 0; i < data.length; i++) data[i] ^= key[i % 4];
  }
  return Buffer.concat([head, key, data]);
}

test('too big is 1009, not UTF-8 1007, a broken protocol 1002, each said before the end', async (t) => {
  const own = await startServer(t, { mock: false, config: { workers: 1, websocket: { max_message: '1KiB' } } });
  const big = await openChat(t, own);
  big.send('x'.repeat(100000));
  assert.equal((await big.end()).code, 1009);
  const parts = await openChat(t, own);
  for (let i = 0; i < 5; i++) parts.ws.send('x'.repeat(300), { fin: false });
  assert.equal((await parts.end()).code, 1009);
  for (const [bytes, code] of [
    [frame_bytes(1, Buffer.from([0x22, 0xff, 0x22])), 1007], [frame_bytes(1, '{}', { mask: false }), 1002], [frame_bytes(1, '{}', { rsv: 0x40 }), 1002],
    [frame_bytes(3, ''), 1002], [frame_bytes(9, 'x', { fin: false }), 1002], [frame_bytes(0, 'x'), 1002], [frame_bytes(8, Buffer.from([3, 237])), 1002],
  ]) {
    const chat = await openChat(t, own);
    chat.ws._socket.write(bytes);
    assert.equal((await chat.end()).code, code, bytes.toString('hex'));
  }
  await waitFor(async () => await connections(own) === 0, 'the places given back');
});

test('a message in fragments, with control frames between them; frames byte by byte, and together with the handshake', async (t) => {
  const chat = await openChat(t, server);
  const socket = chat.ws._socket;
  const text = JSON.stringify({ action: 'ping', request_id: 'ß€' });
  const bytes = Buffer.from(text);
  const cut = bytes.indexOf(Buffer.from('€')) + 1;
  socket.write(Buffer.concat([frame_bytes(1, bytes.subarray(0, cut), { fin: false }), frame_bytes(9, 'x'), frame_bytes(0, bytes.subarray(cut))]));
  assert.deepEqual(await chat.frame({ status: 'pong' }), { status: 'pong', request_id: 'ß€' });
  for (const byte of frame_bytes(1, JSON.stringify({ action: 'ping', request_id: 'slow' }))) {
    socket.write(Buffer.from([byte]));
    await new Promise(setImmediate);
  }
  await chat.frame({ request_id: 'slow' });
  const early = await server.raw([Buffer.concat([Buffer.from(`GET /ws/chat?access_token=${keys.client} HTTP/1.1\r\nHost: x\r\nConnection: keep-alive, Upgrade\r\n` +
    'Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n'), frame_bytes(1, '{"action":"ping","request_id":"early"}'),
    frame_bytes(8, Buffer.from([3, 232]))])]);
  assert.match(early, /^HTTP\/1.1 101 /);
  assert.match(early, /"request_id":"early"/);
  assert.ok(early.endsWith('\x88\x02\x03\xe8'), 'our close frame is the last');
});

test('too many messages in progress, too many sessions: refused, the socket stays', async (t) => {
  const own = await startServer(t, { config: { workers: 1, websocket: { max_pending: 2, max_sessions: 1 } } });
  const [a, b] = [await newSession(own), await newSession(own)];
  const chat = await openChat(t, own);
  chat.send({ action: 'join', request_id: 'a', payload: { session_id: a.id } });
  await chat.frame({ status: 'joined' });
  chat.send({ action: 'join', request_id: 'b', payload: { session_id: b.id } });
  assert.equal((await chat.frame({ request_id: 'b' })).chunk.code, 'busy');
  for (let i = 0; i < 4; i++) chat.chat({ text: 'x [[mock first=1500]]', queue: true }, `q${i}`);
  assert.equal((await chat.frame({ request_id: 'q3' })).chunk.code, 'busy');
});

/* ---- the ends ---- */

const parleyd = (...args) => promisify(execFile)(path.join(build, 'parleyd'), ['--config', server.file, ...args], { cwd: server.dir });

test('a revoked key closes its sockets with 1008 within a second or so; others stay', async (t) => {
  const { stdout } = await parleyd('key', 'create', '--kind', 'server', '--app', 'demo', '--name', 'ws');
  const secret = /ps_\S{24,}/.exec(stdout)[0], id = /key_[0-9a-z]{26}/.exec(stdout)[0];
  const other = await openChat(t, server);
  const first = await waitFor(() => openChat(t, server, { key: secret }).catch(() => null), 'the new key');
  const sockets = [first];
  for (let i = 0; i < 7; i++) sockets.push(await openChat(t, server, { key: secret }));
  await parleyd('key', 'revoke', id);
  const revoked_at = Date.now();
  for (const chat of sockets) assert.deepEqual(await chat.end(10000), { code: 1008, reason: 'key revoked' });
  assert.ok(Date.now() - revoked_at < 5000); // and what a busy machine adds
  assert.equal(other.closed, null);
  assert.equal((await refused(server, { key: secret })).status, 401);
});

const sumOfText = (text, pattern) => [...text.matchAll(pattern)].reduce((sum, [, n]) => sum + Number(n), 0);

test('every socket has a key of its own: another one minted is nothing to them, one revoked ends one, and they end together', async (t) => {
  const mint = async (n, expires_in) => (await server.request('/v1/client-keys', { key: keys.server, body: { device_id: `dev-many-${n}`, expires_in } })).json;
  const minted = await Promise.all(Array.from({ length: 100 }, (_, i) => mint(i, 12)));
  const sockets = await Promise.all(minted.map(({ key }) => openChat(t, server, { key })));
  const reads = async () => sumOfText((await server.request('/metrics')).text, /^parley_store_query_seconds_count\{[^}]*"read"[^}]*\} (\d+)/gm);
  for (const one of sockets) await one.send({ action: 'ping' }).frame({ status: 'pong' });
  const before_it = await reads();
  for (let i = 0; i < 10; i++) {
    const { key } = await mint(100 + i, 600);
    assert.equal((await server.request('/v1/sessions', { key, body: {} })).status, 201);
  }
  const grown = await reads() - before_it; // a few for each, and each worker looks twice a second whether keys have changed
  assert.ok(grown < 300, `${grown} reads for 10 new keys`);
  await parleyd('key', 'revoke', minted[50].id);
  assert.deepEqual(await sockets[50].end(3000), { code: 1008, reason: 'key revoked' });
  assert.equal(sockets.filter((one) => one.closed).length, 1);
  for (const one of sockets) assert.equal((await one.end(20000)).code, 1008);
});

test('a key that ends closes its sockets', async (t) => {
  const minted = await server.request('/v1/client-keys', { key: keys.server, body: { device_id: 'dev-1', expires_in: 3 } });
  const chat = await openChat(t, server, { key: minted.json.key });
  chat.send({ action: 'ping' });
  await chat.frame({ status: 'pong' });
  assert.deepEqual(await chat.end(), { code: 1008, reason: 'key expired' });
});

test('a client that goes: its place is given back, its turn goes on, or is cancelled', async (t) => {
  const before_it = await connections();
  for (const [on_disconnect, state] of [['continue', 'completed'], ['cancel', 'cancelled']]) {
    const chat = await openChat(t, server);
    chat.chat({ text: `[[mock tokens=${state === 'completed' ? 40 : 5000} interval=20]]`, on_disconnect });
    await chat.frame({ status: 'chunk' });
    const { turn_id, chunk: { metadata: { session_id } } } = chat.frames[0];
    chat.cut();
    await waitFor(async () => (await server.request(`/v1/sessions/${session_id}/turns/${turn_id}`, { key: keys.client })).json.state === state, state, 12000);
  }
  await waitFor(async () => await connections() <= before_it, 'the places given back');
});

test('a worker that dies: its turns are told as lost to sockets elsewhere', async (t) => {
  const own = await startServer(t);
  const chat = await openChat(t, own);
  chat.chat('[[mock tokens=500 interval=20]]');
  await chat.frame({ status: 'chunk' });
  const { turn_id, chunk: { metadata: { session_id } } } = chat.frames[0];
  const other = await openElsewhere(t, own, chat);
  other.send({ action: 'join', payload: { session_id } });
  await other.frame({ status: 'chunk' });
  own.killWorker(own.workers().indexOf(holders(own.port, own.workers()).get(chat.local_port)));
  const last = (await other.turn(turn_id)).at(-1);
  assert.equal(last.status, 'error');
  assert.equal(last.chunk.code, 'worker_lost');
  assert.equal((await chat.end()).code, 1006);
  assert.equal((await other.answer(other.chat('again'))).at(-1).status, 'complete');
});

const farewell = /"code":1001,"reason":"draining; retry_after_ms=\d+"/;

test('draining: idle sockets are closed with 1001 at once, one with a turn when that has ended', async (t) => {
  const own = await startServer(t, { config: { drain: { timeout: '20s' } } });
  const idle = [];
  for (let i = 0; i < 8; i++) idle.push(await openChat(t, own));
  const busy = await openChat(t, own);
  const request = busy.chat('[[mock tokens=100 interval=20]]');
  await busy.frame({ status: 'chunk' });
  const stopped = own.stop();
  for (const chat of idle) assert.match(JSON.stringify(await chat.end()), farewell);
  assert.equal(busy.closed, null);
  assert.equal((await busy.answer(request)).at(-1).status, 'complete');
  assert.match(JSON.stringify(await busy.end()), farewell);
  await stopped;
});

test('draining: when the time is up what runs is told so, and closed with 1001', async (t) => {
  const own = await startServer(t, { config: { drain: { timeout: '2s' } } });
  const chat = await openChat(t, own);
  const request = chat.chat('[[mock tokens=5000 interval=20]]');
  await chat.frame({ status: 'chunk' });
  const stopped = own.stop();
  assert.equal((await chat.answer(request)).at(-1).chunk.code, 'draining');
  assert.equal((await chat.end()).code, 1001);
  await stopped;
});

test('wss', async (t) => {
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'parley-wss-'));
  const [certificate, key] = ['s.crt', 's.key'].map((name) => path.join(dir, name));
  execFileSync('openssl', ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '2', '-subj', '/CN=localhost',
    '-addext', 'subjectAltName=DNS:localhost,IP:127.0.0.1', '-keyout', key, '-out', certificate], { stdio: 'pipe' });
  const own = await startServer(t, { config: { tls: { certificate, key, listen: ['127.0.0.1:0'], http2: true } } });
  t.after(() => fs.rmSync(dir, { recursive: true, force: true }));
  const url = `wss://${(await own.line(/listening address=(\S+) kind=(?:https|tls)/))[1]}`;
  const ca = fs.readFileSync(certificate);
  const sockets = [];
  for (let i = 0; i < 6; i++) sockets.push(await openChat(t, own, { url, ca }));
  for (const chat of sockets) {
    const frames = await chat.answer(chat.chat('[[mock tokens=50 interval=2]]'));
    assert.equal(text_of(frames), Array.from({ length: 50 }, (_, i) => `tok${i}`).join(' '));
  }
  const big = 'x'.repeat(900000);
  assert.equal(text_of(await sockets[0].answer(sockets[0].chat(big))), `echo: ${big}`);
  assert.equal((await sockets[0].close()).code, 1000);
  sockets[1].cut();
  await waitFor(async () => await connections(own) === 4, 'two places given back');
  const stopped = own.stop();
  for (const chat of sockets.slice(2)) assert.equal((await chat.end()).code, 1001);
  await stopped;
});

test('a Unix socket, and many at once', async (t) => {
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'parley-ws-unix-'));
  const own = await startServer(t, { mock: false, config: { listen: ['127.0.0.1:0', `unix:${path.join(dir, 's')}`] } });
  t.after(() => fs.rmSync(dir, { recursive: true, force: true }));
  const ws = new WebSocket(`ws+unix:${path.join(dir, 's')}:/ws/chat`, { headers: { authorization: `Bearer ${keys.client}` } });
  t.after(() => ws.terminate());
  await within(new Promise((resolve, reject) => ws.on('open', resolve).on('error', reject)));
  const many = await Promise.all(Array.from({ length: 300 }, () => openChat(t, own)));
  await waitFor(async () => await connections(own) === 301, 'all to be counted');
  for (const chat of many) chat.send({ action: 'ping' });
  await Promise.all(many.map((chat) => chat.frame({ status: 'pong' })));
  await Promise.all(many.map((chat, i) => (i % 2 ? chat.close() : chat.cut())));
  await waitFor(async () => await connections(own) === 1, 'all to be given back');
});
