// Providers that show life for ever and never come to an end: each call has a limit as a whole, and gives its place back.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { collect } from './lib/http.mjs';
import { keys, newSession, plainProvider, startServer, streamTurn } from './lib/server.mjs';
import { startUpstream } from './lib/upstream.mjs';
import { waitFor } from './lib/wait.mjs';

const body = { messages: [{ role: 'user', content: 'hi' }] };
const whole = `data: {"choices":[{"index":0,"delta":{"content":"whole"},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n`;
const chunk = (text) => `data: {"choices":[{"index":0,"delta":{"content":"${text}"}}]}\n\n`;

/** Writes the first bytes, then one of the others every few milliseconds until the other side goes. */
const drip = (response, status, type, first, more) => {
  response.writeHead(status, { 'content-type': type });
  response.write(first);
  const timer = setInterval(() => response.write(more), 50);
  response.on('close', () => clearInterval(timer));
};

test('a provider that never comes to an end is given up, and its place is free again', { timeout: 120000 }, async (t) => {
  let respond;
  const upstream = await startUpstream(t, (request, response) => respond(request, response));
  const server = await startServer(t, { mock: false, config: {
    providers: [plainProvider('endless', upstream.url, { total_timeout: '1s', concurrent_requests: 1, pool_timeout: '60s' }), plainProvider('other', upstream.url)],
    models: [
      { name: 'default', targets: [{ provider: 'endless', model: 'm' }] },
      { name: 'chain', targets: [{ provider: 'endless', model: 'm' }, { provider: 'other', model: 'n' }] },
    ],
  } });
  server.expectLog(/provider call failed/);
  const given_up = () => waitFor(() => upstream.requests.every((request) => request.is_aborted !== undefined), 'the end of every call at the provider', 30000);
  const ask = (more = {}) => server.request('/v1/chat/completions', { key: keys.server, body: { ...body, ...more }, limit_ms: 60000 });

  respond = (request, response) => drip(response, 200, 'text/event-stream', ': alive\n\n', ': alive\n\n');
  const silent = await ask({ stream: true });
  assert.deepEqual([silent.status, silent.json?.error?.code], [504, 'provider_timeout'], silent.text);
  await given_up();

  respond = (request, response) => drip(response, 200, 'text/event-stream', chunk('a'), chunk('b'));
  const events = await server.stream('/v1/chat/completions', { key: keys.server, body: { ...body, stream: true } });
  const told = await collect(events, () => false, 60000);
  assert.equal(told.at(-1).data.error?.code, 'provider_timeout', JSON.stringify(told.at(-1)));
  await given_up();

  respond = (request, response) => drip(response, 200, 'application/json', '{', ' ');
  assert.equal((await ask()).status, 504);
  respond = (request, response) => drip(response, 400, 'application/json', '{', ' ');
  assert.equal((await ask()).status, 502, 'whose words are not whole');
  await given_up();

  // A turn goes on elsewhere.
  respond = (request, response) => {
    if (JSON.parse(request.text).model === 'm') return drip(response, 200, 'text/event-stream', chunk('wh'), ': alive\n\n');
    response.writeHead(200, { 'content-type': 'text/event-stream' });
    response.end(whole);
  };
  const session = await newSession(server, { model: 'chain' }, keys.server);
  const turn = await streamTurn(server, session.id, { input: 'hi' }, keys.server);
  assert.deepEqual([turn.at(-1).event, turn.at(-1).data.message?.content], ['turn.completed', 'whole'], JSON.stringify(turn.at(-1)));
  await given_up();
});
