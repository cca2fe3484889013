// Tools run by the client: call, result on any worker, twice posted, failed, late, too many hops.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { is_last_event, keys, newSession, startServer } from './lib/server.mjs';

const tools = ['weather', 'clock'].map((name) => ({ type: 'function', function: { name, description: name, parameters: { type: 'object' } } }));
let server;
before(async () => { server = await startServer(null, { config: { tools: { client_timeout: '2s' }, turns: { max_tool_hops: 3 } } }); });
after(() => server?.stop());

const result = (id, body) => server.request(`/v1/sessions/${id}/tool-results`, { key: keys.client, body });

/** Runs a turn, answering each tool call by `answer`; all its events. */
async function run(id, input, answer) {
  const events = await server.stream(`/v1/sessions/${id}/turns`, { key: keys.client, body: { input, stream: true, tools } });
  assert.equal(events.status, 200, events.text);
  const seen = [];
  for await (const event of events) {
    seen.push(event);
    if (event.event === 'tool.call') await answer?.(event.data);
    if (is_last_event(event)) break;
  }
  return seen;
}

const accept = (id) => async ({ tool_call_id, name }) => {
  const { status, text } = await result(id, { tool_call_id, output: `${name} done` });
  assert.equal(status, 202, text);
};

test('a tool call goes to the client and its result to the model, whichever worker gets it', async () => {
  for (let i = 0; i < 12; i++) {
    const { id } = await newSession(server);
    const events = await run(id, 'What is it like? [[mock tool=weather args={"city":"Paris"}]]', accept(id));
    const call = events.find(({ event }) => event === 'tool.call').data;
    assert.match(call.tool_call_id, /^call_[0-9a-hjkmnp-tv-z]{26}$/);
    assert.equal(call.name, 'weather');
    assert.equal(call.run_by, 'client');
    const args = typeof call.arguments === 'string' ? JSON.parse(call.arguments) : call.arguments;
    assert.deepEqual(args, { city: 'Paris' });
    assert.ok(events.some(({ event }) => event === 'tool.result'));
    assert.equal(events.at(-1).event, 'turn.completed');
    assert.match(events.at(-1).data.message.content, /weather done/);
  }
});

test('the calls are claimed by the connection that asked', async () => {
  const { id } = await newSession(server);
  const events = await server.stream(`/v1/sessions/${id}/turns`, { key: keys.client, body: { input: '[[mock tool=weather args={}]]', stream: true, tools } });
  const mine = events.headers['x-parley-connection'];
  assert.match(mine, /^[0-9a-f]{16}$/);
  for await (const { event, data } of events) {
    if (event !== 'tool.call') continue;
    assert.equal(data.claimed_by, mine);
    await accept(id)(data);
  }
});

test('several calls at once, answered out of order', async () => {
  const { id } = await newSession(server);
  const calls = [];
  const events = await run(id, '[[mock tool=weather args={"n":1} tool=clock args={"n":2}]]', async (call) => {
    calls.push(call);
    if (calls.length === 2) for (const each of calls.toReversed()) await accept(id)(each);
  });
  assert.equal(new Set(calls.map(({ tool_call_id }) => tool_call_id)).size, 2);
  assert.match(events.at(-1).data.message.content, /weather done.*clock done/);
});

test('a result posted many times counts once', async () => {
  const { id } = await newSession(server);
  await run(id, '[[mock tool=weather args={} tool=clock args={}]]', async ({ tool_call_id, name }) => {
    if (name === 'clock') return;
    const same = await Promise.all(Array.from({ length: 8 }, () => result(id, { tool_call_id, output: { t: 1 } })));
    assert.deepEqual(same.map(({ status }) => status).sort(), [202, 409, 409, 409, 409, 409, 409, 409]);
    for (const { status, json } of same) if (status === 409) {
      assert.equal(json.error.code, 'already_answered');
      assert.equal(json.same_output, true);
    }
    const other = await result(id, { tool_call_id, output: { t: 2 } });
    assert.equal(other.status, 409);
    assert.equal(other.json.same_output, false);
  });
});

test('a failing tool is told to the model', async () => {
  const { id } = await newSession(server);
  const events = await run(id, '[[mock tool=weather args={}]]', async ({ tool_call_id }) => {
    assert.equal((await result(id, { tool_call_id, error: 'no such city' })).status, 202);
  });
  assert.equal(events.at(-1).event, 'turn.completed');
  assert.match(events.at(-1).data.message.content, /no such city/);
});

test('a tool that never answers times out and the turn goes on', async () => {
  const { id } = await newSession(server);
  const events = await run(id, '[[mock tool=weather args={}]]');
  assert.equal(events.at(-1).event, 'turn.completed');
  const { tool_call_id } = events.find(({ event }) => event === 'tool.call').data;
  const late = await result(id, { tool_call_id, output: 1 });
  assert.equal(late.status, 404);
  assert.equal(late.json.error.code, 'unknown_tool_call');
});

test('the tool loop ends at max_tool_hops', async () => {
  const { id } = await newSession(server);
  const events = await run(id, '[[mock tool=weather args={} hops=endless]]', accept(id));
  assert.equal(events.filter(({ event }) => event === 'tool.call').length, 3);
  assert.equal(events.at(-1).event, 'turn.completed');
  assert.equal(events.at(-1).data.finish_reason, 'tool_limit_reached');
});

test('a plain turn returns with its tool calls and is waited for', async () => {
  const { id } = await newSession(server);
  const first = await server.request(`/v1/sessions/${id}/turns`, { key: keys.client, body: { input: '[[mock tool=weather args={"a":1}]]', stream: false, tools } });
  assert.equal(first.status, 200);
  assert.equal(first.json.finish_reason, 'tool_calls');
  assert.equal(first.json.state, 'waiting_tools');
  assert.equal(first.json.tool_calls.length, 1);
  const [{ tool_call_id }] = first.json.tool_calls;
  const url = `/v1/sessions/${id}/turns/${first.json.turn_id}`;
  const shown = await server.request(url, { key: keys.client });
  assert.deepEqual(shown.json.pending_tool_calls.map((call) => call.tool_call_id), [tool_call_id]);
  assert.equal((await result(id, { tool_call_id, output: { sunny: true } })).status, 202);
  const { json } = await server.request(`${url}?wait=30`, { key: keys.client });
  assert.equal(json.state, 'completed');
  assert.match(json.message.content, /sunny/);
});

test('too many tools, too large metadata, a long life of a key: refused by name', async () => {
  const { id } = await newSession(server);
  const many = Array.from({ length: 129 }, (_, i) => ({ type: 'function', function: { name: `t${i}` } }));
  const refused = [
    [await server.request(`/v1/sessions/${id}/turns`, { key: keys.client, body: { input: 'x', tools: many } }), 'tools'],
    [await server.request('/v1/sessions', { key: keys.client, body: { metadata: { a: 'x'.repeat(17000) } } }), 'metadata'],
    [await server.request('/v1/client-keys', { key: keys.server, body: { expires_in: 90000 } }), 'expires_in'],
  ];
  for (const [{ status, json }, param] of refused) {
    assert.equal(status, 422, JSON.stringify(json));
    assert.equal(json.error.param, param);
  }
});

test('results are accepted only under their own session', async () => {
  const { id } = await newSession(server);
  const other = await newSession(server);
  await run(id, '[[mock tool=weather args={}]]', async ({ tool_call_id }) => {
    const wrong = await result(other.id, { tool_call_id, output: 1 });
    assert.equal(wrong.status, 404);
    assert.equal(wrong.json.error.code, 'unknown_tool_call');
    await accept(id)({ tool_call_id, name: 'weather' });
  });
  assert.equal((await result(id, { tool_call_id: 'call_01234567890123456789abcdef', output: 1 })).status, 404);
  assert.equal((await result(id, { tool_call_id: 'x', output: 1, error: 'y' })).status, 400);
  assert.equal((await result(id, { output: 1 })).status, 400);
});
