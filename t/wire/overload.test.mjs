// Overload: the core runs out before the places do. Pressure is real: /metrics, which is never refused, asked without end.
import assert from 'node:assert/strict';
import path from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { raw } from './lib/http.mjs';
import { parseMetrics, sumOf } from './lib/metrics.mjs';
import { Child } from './lib/process.mjs';
import { keys, newSession, startServer } from './lib/server.mjs';
import { waitFor } from './lib/wait.mjs';
import { openChat, refused } from './lib/ws.mjs';

const running = 12;
const is_slow_build = /asan|tsan|cover/.test(process.env.PARLEY_BUILD ?? '');
const flood_script = path.join(path.dirname(fileURLToPath(import.meta.url)), 'lib', 'flood.mjs');

function startFlood(t, server) {
  const flood = new Child(process.execPath, [flood_script, String(server.port), is_slow_build ? '8' : '64']);
  t.after(() => flood.stop('SIGKILL'));
  return flood;
}

const overloadServer = (t, config = {}) => startServer(t, { config: {
  workers: 1, http: { max_keepalive_requests: 0 }, overload: { target: '1ms', interval: '200ms' }, ...config,
} });

const workMax = async (server) => sumOf(parseMetrics((await server.request('/metrics')).text), 'parley_work_max');

/** A session with a turn that lasts longer than the test: {id, turn, stream, events[]}. */
async function longTurn(server) {
  const { id } = await newSession(server);
  const stream = await server.stream(`/v1/sessions/${id}/turns`, { key: keys.client, body: { input: '[[mock tokens=1000 interval=100]]', stream: true } });
  assert.equal(stream.status, 200, stream.text);
  const events = [];
  (async () => { for await (const event of stream) events.push(event); })().catch(() => {});
  return { id, turn: stream.headers['x-parley-turn'], stream, events };
}

/** Or the server would wait for them when it stops. */
async function endTurns(server, turns) {
  await Promise.all(turns.map(async ({ id, turn, stream }) => {
    await server.request(`/v1/sessions/${id}/turns/${turn}/cancel`, { key: keys.client, method: 'POST' });
    stream.close();
  }));
}

/** Asks until it is refused: while the load is being built up something may still be admitted. */
const untilRefused = (ask, what) => waitFor(async () => {
  const answer = await ask();
  return answer.status === 503 && answer;
}, `${what} to be refused`, 30000);

test('new work is refused and says why, what exists is served; it ends with the load', async (t) => {
  const server = await overloadServer(t);
  server.expectLog(/refused (reason=overload|repeated)/);
  const idle = await newSession(server);
  const chat = await openChat(t, server);
  const turns = await Promise.all(Array.from({ length: running }, () => longTurn(server)));
  const flood = startFlood(t, server);
  await server.line(/overload begins delay_us=\d+ live=\d+/, 30000);

  const post = (route, body) => () => server.request(route, { key: keys.client, body });
  for (const [what, route, body] of [
    ['a turn', `/v1/sessions/${idle.id}/turns`, { input: 'hello', stream: false }],
    ['a session', '/v1/sessions', {}],
    ['a chat completion', '/v1/chat/completions', { model: 'default', messages: [{ role: 'user', content: 'hello' }] }],
    ['a turn with a key that nobody has looked at', `/v1/sessions/${idle.id}/turns`, 'not even JSON'],
  ]) {
    const { headers, json } = await untilRefused(post(route, body), what);
    assert.equal(headers['retry-after'], '5');
    assert.equal(json.error.type, 'server_at_capacity');
    assert.equal(json.error.code, 'server_at_capacity');
    assert.equal(typeof json.request_id, 'string');
    assert.ok(json.active_connections >= running);
    assert.equal(json.max_connections, 1000);
  }
  const upgrade = await untilRefused(() => refused(server).catch((error) => error), 'a WebSocket');
  assert.equal(upgrade.json.error.code, 'server_at_capacity');
  await waitFor(async () => {
    const [frame] = await chat.answer(chat.chat('hello'));
    return frame.status === 'error' && frame.chunk.code === 'server_at_capacity' && frame.chunk.retry_after === 5;
  }, 'a chat to be refused', 30000);

  const [first, second] = turns;
  assert.equal((await server.request(`/v1/sessions/${idle.id}`, { key: keys.client })).status, 200);
  assert.equal((await server.request(`/v1/sessions/${first.id}/turns/${first.turn}`, { key: keys.client })).status, 200);
  const attached = await server.stream(`/v1/sessions/${first.id}/turns/${first.turn}/events`, { key: keys.client });
  assert.equal(attached.status, 200);
  attached.close();
  const result = await server.request(`/v1/sessions/${idle.id}/tool-results`, { key: keys.client, body: { tool_call_id: 'call_01234567890123456789abcdef', output: 1 } });
  assert.equal(result.json.error.code, 'unknown_tool_call');
  assert.equal((await server.request(`/v1/sessions/${second.id}/turns/${second.turn}/cancel`, { key: keys.client, method: 'POST' })).status, 200);
  await waitFor(() => second.events.at(-1)?.event === 'turn.cancelled', 'the end of the cancelled turn');
  chat.send({ action: 'ping' });
  await chat.frame({ status: 'pong' });
  const seen = first.events.length;
  await waitFor(() => first.events.length > seen + 2, 'running turns to go on');

  assert.equal((await server.request('/health/ready')).status, 200);
  const health = await waitFor(async () => {
    const answer = await server.request('/health');
    return answer.json.checks.load.status === 'degraded' && answer;
  }, '/health to say it');
  assert.equal(health.status, 200);
  assert.equal(health.json.status, 'degraded');
  assert.equal(health.json.checks.load.reason, 'overload');
  assert.equal(health.json.checks.load.workers_overloaded, 1);
  const families = parseMetrics((await server.request('/metrics')).text);
  assert.ok(sumOf(families, 'parley_connections_rejected_total', { reason: 'overload' }) >= 5);
  assert.ok(sumOf(families, 'parley_loop_delay_microseconds') > 0);

  await flood.stop('SIGKILL');
  await waitFor(async () => (await post('/v1/sessions', {})()).status === 201, 'work to be admitted again', 30000);
  await server.line(/overload is over/, 30000);
  // What else the machine does may begin another one, for a moment.
  await waitFor(async () => await workMax(server) === 0 && (await server.request('/health')).json.checks.load.status === 'ok', 'no limit, and /health to say so', 30000);
  await endTurns(server, turns);
});

test('who is refused may come again on the same connection, a few times', async (t) => {
  const server = await overloadServer(t);
  server.expectLog(/refused (reason=overload|repeated)/);
  const turns = await Promise.all(Array.from({ length: running }, () => longTurn(server)));
  const flood = startFlood(t, server);
  await server.line(/overload begins/, 30000);
  const open = 'POST /v1/sessions HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\ncontent-type: application/json\r\n\r\n{}';
  // Without a key an admitted one is 401: then the load was not there yet, and it is asked again.
  const text = await waitFor(async () => {
    const answer = String(await raw(server.port, [open.repeat(6)]));
    return !answer.includes('401') && answer;
  }, 'refusals only', 30000);
  const answers = text.split(/(?=HTTP\/1\.1 )/);
  assert.equal(answers.length, 4, text);
  assert.ok(answers.every((answer) => answer.startsWith('HTTP/1.1 503 ')), text);
  assert.deepEqual(answers.map((answer) => /connection: close/i.test(answer)), [false, false, false, true]);
  await flood.stop('SIGKILL');
  await endTurns(server, turns);
});

test('overload.target 0: never', async (t) => {
  const server = await overloadServer(t, { overload: { target: '0' } });
  const turns = await Promise.all(Array.from({ length: running }, () => longTurn(server)));
  const flood = startFlood(t, server);
  await waitFor(async () => sumOf(parseMetrics((await server.request('/metrics')).text), 'parley_http_requests_total', { route: '/metrics' }) > (is_slow_build ? 300 : 3000), 'the load', 30000);
  await newSession(server);
  assert.equal(await workMax(server), 0);
  await flood.stop('SIGKILL');
  await endTurns(server, turns);
});
