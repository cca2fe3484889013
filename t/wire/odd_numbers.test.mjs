// Numbers that nobody means, from clients and from providers: limits hold all the same, and nothing gets stuck over them.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { usageRows } from './lib/record.mjs';
import { keys, newSession, plainProvider, startServer, streamTurn } from './lib/server.mjs';
import { startUpstream } from './lib/upstream.mjs';
import { waitFor, within } from './lib/wait.mjs';

const tokened = 'ps_test_tokened_key_0123456789abcdef';
const user = [{ role: 'user', content: 'hi' }];
const nonsense = '{"prompt_tokens":9223372036854775807,"completion_tokens":9223372036854775807}';
const config_of = (upstream, http_client = {}) => ({
  providers: [plainProvider('odd', upstream.url, http_client)],
  models: [{ name: 'default', targets: [{ provider: 'odd', model: 'm' }], price: { input: 1, output: 2 } }],
  keys: [
    { kind: 'client', app: 'demo', secret: keys.client },
    { kind: 'server', app: 'demo', secret: keys.server },
    { kind: 'server', app: 'demo', secret: tokened, tpm: 1000 },
    { kind: 'admin', secret: keys.admin },
  ],
});
const answer = (response, usage) => {
  response.writeHead(200, { 'content-type': 'application/json' });
  response.end(`{"choices":[{"message":{"content":"x"},"finish_reason":"stop"}],"usage":${usage}}`);
};

for (const store of ['sqlite', 'postgres']) {
  test(`${store}: a provider that tells nonsense of its usage stops nobody's accounts`, { timeout: 120000 }, async (t) => {
    process.env.PARLEY_TEST_STORE = store;
    let usage = nonsense;
    const upstream = await startUpstream(t, (request, response) => {
      if (!JSON.parse(request.text).stream) return answer(response, usage);
      response.writeHead(200, { 'content-type': 'text/event-stream' });
      response.end(`data: {"choices":[{"index":0,"delta":{"content":"x"},"finish_reason":"stop"}]}\n\ndata: {"choices":[],"usage":${usage}}\n\ndata: [DONE]\n\n`);
    });
    const server = await startServer(t, { mock: false, config: config_of(upstream) });
    const chat = () => server.request('/v1/chat/completions', { key: keys.server, body: { messages: user } });
    for (let i = 0; i < 4; i++) assert.equal((await chat()).status, 200);
    for (let i = 0; i < 4; i++) {
      const session = await newSession(server);
      const events = await streamTurn(server, session.id, { input: 'hi' });
      assert.equal(events.at(-1).event, 'turn.completed', JSON.stringify(events));
      assert.ok(events.at(-1).data.usage.input_tokens > 0);
    }
    usage = '{"prompt_tokens":7,"completion_tokens":1}';
    assert.equal((await chat()).status, 200);
    await waitFor(() => usageRows(server).length === 9, 'all rows of usage', 30000);
    assert.equal(usageRows(server, 'WHERE input_tokens = 7').length, 1);
    const told = await server.request('/admin/v1/usage', { key: keys.admin });
    assert.equal(told.status, 200, told.text);
    assert.equal(told.json.data.reduce((all, row) => all + row.calls, 0), 9);
    await server.stop();
  });
}

for (const store of ['sqlite', 'postgres']) {
  test(`${store}: numbers of metadata come back as they were given`, { timeout: 60000 }, async (t) => {
    process.env.PARLEY_TEST_STORE = store;
    const server = await startServer(t);
    const metadata = { b: 1e300, a: 1e21, c: [-1e-300, 9007199254740993, 0.1], d: { z: 1, y: 2.5 } };
    const session = await newSession(server, { metadata }, keys.server);
    assert.deepEqual(session.metadata, metadata);
    const shown = await server.request(`/v1/sessions/${session.id}`, { key: keys.server });
    assert.deepEqual(shown.json.metadata, metadata, shown.text);
    await server.stop();
  });
}

test('max_tokens beyond all bounds reserves all of the tokens per minute, not next to none', { timeout: 60000 }, async (t) => {
  const held = [];
  const upstream = await startUpstream(t, (request, response) => { held.push(response); });
  const server = await startServer(t, { mock: false, config: config_of(upstream) });
  let refused = 0;
  const calls = Array.from({ length: 8 }, () => server.request('/v1/chat/completions', {
    key: tokened, body: `{"messages":[{"role":"user","content":"hi"}],"max_tokens":18446744073709551615}`, headers: { 'content-type': 'application/json' }, limit_ms: 50000,
  }));
  for (const call of calls) call.then(({ status }) => { refused += status === 429; });
  await waitFor(() => held.length + refused === 8, 'eight calls at the provider or refused', 30000);
  for (const response of held) answer(response, '{"prompt_tokens":7,"completion_tokens":1}');
  await Promise.all(calls);
  assert.deepEqual([held.length, refused], [1, 7]);
});
