// Turns over HTTP: streamed and plain, idempotent, one at a time, followed from any worker, cancelled, broken.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { collect } from './lib/http.mjs';
import { is_last_event, keys, newSession, plainProvider, startMock, startServer, streamTurn } from './lib/server.mjs';
import { waitFor } from './lib/wait.mjs';

let server, mock;
before(async () => {
  mock = await startMock(null);
  server = await startServer(null, { mock, config: {
    turns: { retain_events: '4s' },
    providers: [plainProvider('mock', mock.url, { first_token_timeout: '4s', stall_timeout: '2s' })],
  } });
});
after(async () => {
  await server?.stop();
  await mock?.stop();
});

const post = (id, body, options = {}) => server.request(`/v1/sessions/${id}/turns`, { key: keys.client, body, ...options });
const turn_url = (id, turn, rest = '') => `/v1/sessions/${id}/turns/${turn}${rest}`;
const text_of = (events) => events.filter(({ event }) => event === 'text.delta').map(({ data }) => data.text).join('');
const mock_stats = async () => (await fetch(`http://${mock.address}/mock/stats`)).json();

/** Sequence numbers 1, 2, .. without a gap, of one turn. */
function check_ids(events, from = 1) {
  const turn = events[0].id.split('.')[0];
  events.forEach(({ id }, i) => assert.equal(id, `${turn}.${from + i}`));
  return turn;
}

async function follow(id, turn, after_seq = 0, use_header = false) {
  const events = await server.stream(turn_url(id, turn, `/events${use_header ? '' : `?after=${after_seq}`}`), {
    key: keys.client, headers: use_header ? { 'last-event-id': `${turn}.${after_seq}` } : {} });
  assert.equal(events.status, 200, events.text);
  return events;
}

test('a streamed turn: started, deltas with offsets, usage, completed', async () => {
  const { id } = await newSession(server);
  const events = await streamTurn(server, id, { input: 'Say hello [[mock tokens=20]]' });
  const turn = check_ids(events);
  assert.match(turn, /^turn_/);
  assert.equal(events[0].event, 'turn.started');
  const want = Array.from({ length: 20 }, (_, i) => `tok${i}`).join(' ');
  assert.equal(text_of(events).trim(), want);
  let offset = 0;
  for (const { data } of events.filter(({ event }) => event === 'text.delta')) {
    assert.equal(data.offset, offset);
    offset += data.text.length;
  }
  const last = events.at(-1);
  assert.equal(last.event, 'turn.completed');
  assert.equal(last.data.finish_reason, 'stop');
  assert.equal(last.data.message.role, 'assistant');
  assert.equal(last.data.message.content.trim(), want);
  assert.equal(last.data.usage.output_tokens, 20);
  assert.ok(events.some(({ event }) => event === 'usage'));
  const shown = await server.request(turn_url(id, turn), { key: keys.client });
  assert.equal(shown.json.state, 'completed');
  assert.equal(shown.json.message.content, last.data.message.content);
});

test('a plain turn answers once', async () => {
  const { id } = await newSession(server);
  const { status, json } = await post(id, { input: 'hi there', stream: false });
  assert.equal(status, 200);
  assert.equal(json.message.content, 'echo: hi there');
  assert.equal(json.finish_reason, 'stop');
  assert.equal(json.state, 'completed');
  assert.deepEqual(json.tool_calls, []);
  assert.ok(json.usage.input_tokens > 0);
});

test('the model sees the conversation and the system prompt', async () => {
  const { json: { id } } = await server.request('/v1/sessions', { key: keys.server, body: { system: 'Be brief.' } });
  await streamTurn(server, id, { input: 'first' }, keys.server);
  await streamTurn(server, id, { input: [{ type: 'text', text: 'second' }] }, keys.server);
  const { last } = await mock_stats();
  const { messages } = last.body;
  assert.deepEqual(messages.map(({ role }) => role), ['system', 'user', 'assistant', 'user']);
  assert.equal(messages[0].content, 'Be brief.');
  assert.equal(messages[2].content, 'echo: first');
});

test('request_id makes a turn idempotent', async () => {
  const { id } = await newSession(server);
  const body = { input: 'once [[mock tokens=5]]', request_id: 'r-1' };
  const first = await streamTurn(server, id, body);
  const before = (await mock_stats()).chats;
  for (let i = 0; i < 6; i++) assert.deepEqual(await streamTurn(server, id, body), first);
  const plain = await post(id, { ...body, stream: false });
  assert.equal(plain.json.turn_id, first[0].id.split('.')[0]);
  assert.equal((await mock_stats()).chats, before);
  const reused = await post(id, { ...body, input: 'other' });
  assert.equal(reused.status, 409);
  assert.equal(reused.json.error.code, 'request_id_reused');
});

test('simultaneous posts of one request_id run one turn', async () => {
  const { id } = await newSession(server);
  const body = { input: 'race [[mock tokens=10 interval=5]]', request_id: 'r-race' };
  const all = await Promise.all(Array.from({ length: 8 }, () => streamTurn(server, id, body)));
  for (const events of all) assert.deepEqual(events, all[0]);
  assert.equal(all[0].at(-1).event, 'turn.completed');
});

test('one live turn per session; queue waits', async () => {
  const { id } = await newSession(server);
  const slow = server.stream(`/v1/sessions/${id}/turns`, { key: keys.client, body: { input: 'slow [[mock tokens=40 interval=40]]', stream: true } });
  const events = await slow;
  const busy = await post(id, { input: 'now' });
  assert.equal(busy.status, 409);
  assert.equal(busy.json.error.code, 'turn_in_progress');
  const queued = post(id, { input: 'later', queue: true, stream: false });
  assert.equal((await collect(events, is_last_event)).at(-1).event, 'turn.completed');
  assert.equal((await queued).json.message.content, 'echo: later');
});

test('a live turn is followed from any worker: nothing lost, doubled or reordered', async () => {
  const { id } = await newSession(server);
  const origin = await server.stream(`/v1/sessions/${id}/turns`, { key: keys.client, body: { input: '[[mock tokens=60 interval=10]]', stream: true } });
  const iterator = origin[Symbol.asyncIterator]();
  const first = (await iterator.next()).value;
  const turn = first.id.split('.')[0];
  const more = [(await iterator.next()).value, (await iterator.next()).value];
  const followers = await Promise.all(Array.from({ length: 12 }, (_, i) => follow(id, turn, i % 4, i % 2 === 1)));
  const seen = await Promise.all(followers.map((events) => collect(events, is_last_event)));
  const whole = [first, ...more];
  for (let next = await iterator.next(); !next.done; next = await iterator.next()) whole.push(next.value);
  check_ids(whole);
  assert.equal(whole.at(-1).event, 'turn.completed');
  seen.forEach((events, i) => assert.deepEqual(events, whole.slice(i % 4)));
});

test('a finished turn is replayed exactly, later as a snapshot', async () => {
  const { id } = await newSession(server);
  const events = await streamTurn(server, id, { input: '[[mock tokens=10]]' });
  const turn = check_ids(events);
  for (const from of [0, 1, 2, events.length - 1]) {
    assert.deepEqual(await collect(await follow(id, turn, from)), events.slice(from));
  }
  const snapshot = await waitFor(async () => {
    const again = await collect(await follow(id, turn, 1));
    return again[0].event === 'turn.snapshot' && again;
  }, 'snapshot after the retention');
  assert.deepEqual(snapshot.map(({ event }) => event), ['turn.snapshot', 'turn.completed']);
  assert.equal(snapshot[0].data.text, text_of(events));
  assert.deepEqual(snapshot[1], events.at(-1));
});

test('Last-Event-ID of another turn, unknown turns', async () => {
  const { id } = await newSession(server);
  const other = await newSession(server);
  const turn = check_ids(await streamTurn(server, id, { input: 'x' }));
  // No event can follow the last number that there is.
  for (const last of ['turn_x.1', `${turn}.${2n ** 63n}`, `${turn}.${2n ** 64n - 1n}`, `${turn}.${2n ** 64n}`, `${turn}.-1`]) {
    const bad = await server.request(turn_url(id, turn, '/events'), { key: keys.client, headers: { 'last-event-id': last } });
    assert.equal(bad.status, 400, last);
  }
  assert.equal((await server.request(turn_url(id, turn, '/events'), { key: keys.client, headers: { 'last-event-id': `${turn}.${2n ** 63n - 1n}` } })).status, 204);
  for (const url of [turn_url(id, 'turn_01234567890123456789abcdef', '/events'), turn_url(other.id, turn, '/events'), turn_url(other.id, turn), turn_url(id, 'nonsense')]) {
    assert.equal((await server.request(url, { key: keys.client })).status, 404, url);
  }
});

test('cancel from any worker stops the turn and the provider', async () => {
  for (let i = 0; i < 6; i++) {
    const { id } = await newSession(server);
    const aborted = (await mock_stats()).aborted;
    const events = await server.stream(`/v1/sessions/${id}/turns`, { key: keys.client, body: { input: '[[mock tokens=1000 interval=20]]', stream: true } });
    const iterator = events[Symbol.asyncIterator]();
    const turn = (await iterator.next()).value.id.split('.')[0];
    await iterator.next();
    const cancelled = await server.request(turn_url(id, turn, '/cancel'), { key: keys.client, method: 'POST' });
    assert.equal(cancelled.status, 200, cancelled.text);
    assert.equal(cancelled.json.state, 'cancelled');
    let last;
    for (let next = await iterator.next(); !next.done; next = await iterator.next()) last = next.value;
    assert.equal(last.event, 'turn.cancelled');
    await waitFor(async () => (await mock_stats()).aborted > aborted, 'upstream closed');
    assert.equal((await streamTurn(server, id, { input: 'next' })).at(-1).event, 'turn.completed');
  }
});

test('a client that leaves: continue goes on, cancel stops', async () => {
  const { id } = await newSession(server);
  const start = async (on_disconnect, tokens) => {
    const events = await server.stream(`/v1/sessions/${id}/turns`, { key: keys.client, body: { input: `[[mock tokens=${tokens} interval=20]]`, stream: true, on_disconnect } });
    const turn = (await events[Symbol.asyncIterator]().next()).value.id.split('.')[0];
    events.close();
    return turn;
  };
  const state = async (turn) => (await server.request(turn_url(id, turn), { key: keys.client })).json.state;
  const going = await start(undefined, 20);
  await waitFor(async () => await state(going) === 'completed', 'end of the continued turn');
  const stopped = await start('cancel', 5000);
  await waitFor(async () => await state(stopped) === 'cancelled', 'end of the cancelled turn', 12000);
});

const broken = {
  cut_mid: 'provider_error', cut_fin: 'provider_error', cut_clean: 'provider_error', malformed: 'provider_error',
  error_event: 'provider_error', bad_utf8: 'provider_error', no_finish: 'provider_error', stall: 'provider_timeout',
};
for (const [fault, code] of Object.entries(broken)) {
  test(`an answer that breaks (${fault}) is never shown as success`, async () => {
    server.expectLog(/WARN .*provider/);
    const { id } = await newSession(server);
    const events = await streamTurn(server, id, { input: `[[mock tokens=10 fault=${fault} after=3]]` });
    check_ids(events);
    const last = events.at(-1);
    assert.equal(last.event, 'turn.failed', JSON.stringify(last));
    assert.equal(last.data.error.code, code);
    const { json } = await server.request(`/v1/sessions/${id}/messages`, { key: keys.client });
    const answer = json.data.find(({ role }) => role === 'assistant');
    assert.equal(answer.partial, true);
    assert.equal(answer.content, text_of(events));
    const plain = await post(id, { input: `[[mock tokens=10 fault=${fault} after=3]]`, stream: false });
    assert.ok(plain.status === 502 || plain.status === 504, `${plain.status}`);
  });
}

test('a refusal of the provider reaches the client with its reason', async () => {
  server.expectLog(/WARN .*provider/);
  const { id } = await newSession(server);
  for (const [status, want] of [[400, 502], [500, 502], [503, 502]]) {
    const { status: got, json } = await post(id, { input: `[[mock fault=status:${status}]]`, stream: false });
    assert.equal(got, want, JSON.stringify(json));
  }
  const limited = await post(id, { input: '[[mock fault=status:429 retry_after=7]]', stream: false });
  assert.equal(limited.status, 429);
  assert.equal(limited.headers['retry-after'], '7');
});

test('a stream that is whole but lacks [DONE] is a success', async () => {
  const { id } = await newSession(server);
  const events = await streamTurn(server, id, { input: '[[mock tokens=5 fault=no_done]]' });
  assert.equal(events.at(-1).event, 'turn.completed');
});

test('wrong input is named', async () => {
  const { id } = await newSession(server);
  const refused = async (body, param) => {
    const { status, json } = await post(id, body);
    assert.equal(status, 422, JSON.stringify(json));
    assert.equal(json.error.param, param);
  };
  await refused({}, 'input');
  await refused({ input: '' }, 'input');
  await refused({ input: [{}] }, 'input');
  await refused({ input: 'x', stream: 1 }, 'stream');
  await refused({ input: 'x', on_disconnect: 'maybe' }, 'on_disconnect');
  await refused({ input: 'x', request_id: '' }, 'request_id');
  assert.equal((await post(id, { input: 'x', model: 'default' })).status, 403);
  assert.equal((await post('sess_01234567890123456789abcdef', { input: 'x' })).status, 404);
});

test('numbers are written as short as they can be read back', async () => {
  const { id } = await newSession(server, { metadata: { share: 0.1 } });
  const { text } = await post(id, { input: 'hello', stream: false });
  assert.match(text, /"cost":/);
  assert.doesNotMatch(text, /"cost":[^,}]*\d{8}/);
  assert.match((await server.request(`/v1/sessions/${id}`, { key: keys.client })).text, /"share":0\.1[,}]/);
});
