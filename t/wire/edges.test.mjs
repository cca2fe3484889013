// What is larger, deeper or odder than usual: whole, refused with its reason, or gone, never a hang and never a crash.
import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { collect } from './lib/http.mjs';
import { is_last_event, keys, newSession, startMock, startServer, streamTurn } from './lib/server.mjs';
import { waitFor } from './lib/wait.mjs';

const tools = [{ type: 'function', function: { name: 'weather', parameters: { type: 'object' } } }];
let server, mock;
before(async () => {
  mock = await startMock(null);
  server = await startServer(null, { mock });
});
after(async () => {
  await server?.stop();
  await mock?.stop();
});

const post = (route, body, key = keys.client) => server.request(route, { key, body });
const turns = (id, rest = '') => `/v1/sessions/${id}/turns${rest}`;

async function replay(id, turn, after_seq = 0) {
  const events = await server.stream(turns(id, `/${turn}/events?after=${after_seq}`), { key: keys.client });
  assert.equal(events.status, 200, events.text);
  return collect(events, is_last_event);
}

test('an answer larger than a listener\'s queue is whole, live and replayed from any worker', async () => {
  const { id } = await newSession(server);
  const events = await streamTurn(server, id, { input: '[[mock tokens=60000 interval=0]]' });
  assert.equal(events.at(-1).event, 'turn.completed');
  const { content } = events.at(-1).data.message;
  assert.ok(content.length > 500000, `${content.length}`);
  const [turn] = events[0].id.split('.');
  for (let i = 0; i < 8; i++) {
    const again = await replay(id, turn);
    assert.equal(again.at(-1).event, 'turn.completed');
    assert.equal(again.at(-1).data.message.content, content);
  }
  const { json } = await server.request(turns(id, `/${turn}`), { key: keys.client });
  assert.equal(json.text, content);
});

test('arguments nested as deeply as a parser goes are refused to the model, and the turn can be shown', async () => {
  for (const depth of [100, 2040, 2046, 3000]) {
    const { id } = await newSession(server);
    const args = `${'{"a":'.repeat(depth)}1${'}'.repeat(depth)}`;
    const answered = [];
    const events = await server.stream(turns(id), { key: keys.client, body: { input: `[[mock tool=weather args=${JSON.stringify(args)}]]`, stream: true, tools } });
    const seen = await collect(events, (event) => {
      if (event.event === 'tool.call') answered.push(post(`/v1/sessions/${id}/tool-results`, { tool_call_id: event.data.tool_call_id, output: 'fine' }));
      return is_last_event(event);
    });
    assert.equal(answered.length, depth <= 256 ? 1 : 0);
    for (const { status, text } of await Promise.all(answered)) assert.equal(status, 202, text);
    assert.equal(seen.at(-1).event, 'turn.completed', JSON.stringify(seen.at(-1).data));
    const [turn] = seen[0].id.split('.');
    for (let i = 0; i < 8; i++) assert.equal((await server.request(turns(id, `/${turn}`), { key: keys.client })).json.state, 'completed');
  }
});

test('what was erased is shown by nobody any more', async () => {
  const { id } = await newSession(server);
  const events = await streamTurn(server, id, { input: 'my secret', request_id: 'r-1' });
  const [turn] = events[0].id.split('.');
  assert.equal((await server.request(`/v1/sessions/${id}?erase=true`, { method: 'DELETE', key: keys.client })).status, 403);
  assert.equal((await server.request(`/v1/sessions/${id}?erase=true`, { method: 'DELETE', key: keys.server })).status, 200);
  for (let i = 0; i < 8; i++) {
    for (const route of [turns(id, `/${turn}`), turns(id, `/${turn}/events`)]) {
      const { status, text } = await server.request(route, { key: keys.server });
      assert.equal(status, 404, text);
      assert.doesNotMatch(text, /my secret/);
    }
    assert.deepEqual((await server.request(`/v1/sessions/${id}/messages`, { key: keys.server })).json.data, []);
  }
  assert.equal((await post(turns(id), { input: 'my secret', request_id: 'r-1', stream: false })).status, 409);
  assert.equal((await server.request(`/v1/sessions/${id}`, { key: keys.client })).json.status, 'closed');
});

test('a session that is deleted takes no turn any more, also none that waited', async () => {
  for (let i = 0; i < 6; i++) {
    const { id } = await newSession(server);
    const live = await server.stream(turns(id), { key: keys.client, body: { input: '[[mock tokens=500 interval=20]]', stream: true } });
    const heard = collect(live, is_last_event);
    const waiting = Array.from({ length: 4 }, () => post(turns(id), { input: 'too late', stream: false, queue: true }));
    // They are in the queue when the record refuses a turn that does not wait.
    assert.equal((await post(turns(id), { input: 'x', stream: false })).json.error.code, 'turn_in_progress');
    const deleted = await server.request(`/v1/sessions/${id}${i % 2 ? '?erase=true' : ''}`, { method: 'DELETE', key: keys.server });
    assert.deepEqual(deleted.json, { id, status: 'closed' });
    assert.equal((await heard).at(-1).event, 'turn.cancelled');
    for (const { json } of await Promise.all(waiting)) assert.equal(json.error?.code, 'session_closed', JSON.stringify(json));
  }
});

test('HEAD of a stream has no body', async () => {
  const { id } = await newSession(server);
  const events = await streamTurn(server, id, { input: 'hello' });
  const [turn] = events[0].id.split('.');
  const answer = await server.raw(`HEAD ${turns(id, `/${turn}/events`)} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer ${keys.client}\r\n\r\n`);
  assert.match(answer, /^HTTP\/1.1 200 /);
  assert.match(answer, /text\/event-stream/);
  assert.ok(answer.endsWith('\r\n\r\n'), answer);
});

test('who has heard the end of a turn is told not to come again', async () => {
  const { id } = await newSession(server);
  const events = await streamTurn(server, id, { input: 'hello' });
  const [turn, last] = events.at(-1).id.split('.');
  for (let i = 0; i < 8; i++) {
    const none = await server.request(turns(id, `/${turn}/events`), { key: keys.client, headers: { 'last-event-id': `${turn}.${last}` } });
    assert.equal(none.status, 204);
    assert.equal(none.text, '');
    assert.deepEqual((await replay(id, turn, last - 1)).map(({ event }) => event), ['turn.completed']);
  }
});

test('clients that leave in the middle of the flow harm nobody', async () => {
  for (let round = 0; round < 3; round++) {
    const sessions = await Promise.all(Array.from({ length: 10 }, () => newSession(server)));
    await Promise.all(sessions.map(async ({ id }) => {
      const body = { input: '[[mock tokens=400 interval=2]]', stream: true };
      const first = await server.stream(turns(id), { key: keys.client, body });
      const turn = first.headers['x-parley-turn'];
      const others = await Promise.all(Array.from({ length: 16 }, () => server.stream(turns(id, `/${turn}/events`), { key: keys.client })));
      const left = others.map((events, i) => collect(events, ({ event }) => event === 'text.delta' && events.seen++ > i).catch(() => {}).then(() => events.close()));
      for (const events of others) events.seen = 0;
      await Promise.all(left);
      assert.equal((await collect(first, is_last_event)).at(-1).event, 'turn.completed');
    }));
  }
  // Nobody's place is kept.
  await waitFor(async () => (await server.request('/health')).json.connections.active === 0, 'end of all requests');
});

test('a database that is deleted under the server is an outage, not a loss that nobody sees', async (t) => {
  const own = await startServer(t, { mock, config: { store: { acquire_timeout: '500ms', grace: '1s' } } });
  for (const expected of [/store (write|read|slow read) (failed|waits)/, /store \w+ fail/, /store cannot be opened/, /turn (hop|end) not saved/, /session sweep failed/]) own.expectLog(expected);
  const { id } = await newSession(own);
  await streamTurn(own, id, { input: 'hello' });
  for (const end of ['', '-wal', '-shm']) fs.rmSync(path.join(own.dir, `parley.db${end}`), { force: true });
  await waitFor(async () => {
    const { status, json } = await own.request('/v1/sessions', { key: keys.client, body: {} });
    assert.ok(status === 201 || (status === 503 && json.error.code === 'store_unavailable'), `${status} ${JSON.stringify(json)}`);
    return status === 503;
  }, 'refusal');
  await waitFor(async () => (await own.request('/health/ready')).status === 503, 'not ready');
  const pid = own.killWorker(1);
  own.expectLog(/worker (not ready|exited|died)/);
  await waitFor(() => !fs.existsSync(`/proc/${pid}`), 'death');
  assert.equal(fs.existsSync(path.join(own.dir, 'parley.db')), false, 'a new, empty database was made');
});
