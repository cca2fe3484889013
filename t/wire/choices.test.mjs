// Several choices in one stream: it is whole when each of them has ended, and not before.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { collect } from './lib/http.mjs';
import { keys, plainProvider, startServer } from './lib/server.mjs';
import { startUpstream } from './lib/upstream.mjs';

const chunk = (...choices) => `data: ${JSON.stringify({ choices: choices.map(([index, finish_reason]) => ({ index, delta: { content: 'x' }, finish_reason })) })}\n\n`;

test('an answer of two choices without [DONE]', { timeout: 60000 }, async (t) => {
  let pieces, is_open;
  const upstream = await startUpstream(t, (request, response) => {
    response.writeHead(200, { 'content-type': 'text/event-stream' });
    response.write(pieces.join(''));
    if (!is_open) response.end();
  });
  const server = await startServer(t, { mock: false, config: {
    providers: [plainProvider('two', upstream.url, { stall_timeout: '40s' })], models: [{ name: 'default', targets: [{ provider: 'two', model: 'm' }] }] } });
  server.expectLog(/provider call failed/);
  const ask = async (given, stays_open = false) => {
    pieces = given;
    is_open = stays_open;
    const events = await server.stream('/v1/chat/completions', { key: keys.server, body: { messages: [{ role: 'user', content: 'hi' }], n: 2, stream: true } });
    return collect(events, () => false, 30000);
  };
  const is_done = (told) => told.at(-1).data === '[DONE]';

  const cut = await ask([chunk([0, null], [1, null]), chunk([0, 'stop']), chunk([0, 'stop'])]);
  assert.ok(!is_done(cut) && cut.at(-1).data.error?.code === 'provider_error', `one has ended twice, the other was cut: ${JSON.stringify(cut)}`);
  const together = await ask([chunk([0, null], [1, null]), chunk([0, 'stop'], [1, 'length'])]);
  assert.ok(is_done(together), `both have ended in one event: ${JSON.stringify(together)}`);
  const one_by_one = await ask([chunk([0, 'stop']), chunk([1, 'stop'])], true);
  assert.ok(is_done(one_by_one), `both have ended, the connection has not: ${JSON.stringify(one_by_one)}`);
});
