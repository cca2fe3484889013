// Knowledge bases: what they say reaches the model, what they do wrong does not reach the turn.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseMetrics, sumOf } from './lib/metrics.mjs';
import { keys, newSession, startServer, streamTurn } from './lib/server.mjs';
import { startUpstream } from './lib/upstream.mjs';

const json = (response, body, status = 200) => {
  response.writeHead(status, { 'content-type': 'application/json' });
  response.end(typeof body === 'string' ? body : JSON.stringify(body));
};
const results = [
  { text: 'Rayleigh scattering.', source: 'sky.md', title: 'Sky', url: 'https://kb/sky', score: 0.9 },
  { text: 'Water absorbs red.', source: 'sea.md' },
  { text: 'Not asked for.' },
];

test('passages, and bases that fail in every way', { timeout: 60000 }, async (t) => {
  const base = await startUpstream(t, (request, response) => json(response, { results }));
  const model = await startUpstream(t, (request, response) => {
    response.writeHead(200, { 'content-type': 'text/event-stream' });
    response.end('data: {"choices":[{"index":0,"delta":{"content":"Blue [1]."},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n');
  });
  const server = await startServer(t, { mock: false, config: {
    providers: [{ name: 'mock', base_url: model.url }],
    apps: [{ id: 'demo', org: 'demo', system_prompt: 'Be kind.', client_may: ['tools'], knowledge: { url: `${base.url}/search`, top_k: 2 } }],
    knowledge: { timeout: '2s', max_response: '4KiB' }, // those that answer have time to, also on a busy machine
  } });
  const turn = async (input = 'Why is the sky blue?') => {
    const session = await newSession(server);
    const events = await streamTurn(server, session.id, { input });
    const last = events.at(-1);
    assert.equal(last.event, 'turn.completed', JSON.stringify(last));
    const told = events.filter(({ event }) => event === 'knowledge');
    assert.ok(told.length <= 1);
    return { session, told: told[0]?.data, sources: last.data.sources, asked: JSON.parse(model.requests.at(-1).text).messages, last };
  };

  const good = await turn();
  const sources = [{ number: 1, source: 'sky.md', title: 'Sky', url: 'https://kb/sky', score: 0.9 }, { number: 2, source: 'sea.md' }];
  assert.deepEqual(good.told, { sources });
  assert.deepEqual(good.sources, sources);
  const question = JSON.parse(base.requests[0].text);
  assert.deepEqual(question, { query: 'Why is the sky blue?', session: good.session.id, top_k: 2 });
  assert.equal(base.requests[0].url, '/v1/search');
  assert.equal(good.asked[0].role, 'system');
  assert.match(good.asked[0].content, /^Be kind\.\n\nPassages[^]*\[1\] Sky, sky\.md\nRayleigh scattering\.[^]*\[2\] sea\.md\nWater absorbs red\.$/);
  // Also to who asks later, from the record.
  const state = await server.request(`/v1/sessions/${good.session.id}/turns/${good.last.id.split('.')[0]}`, { key: keys.client });
  assert.deepEqual(state.json.sources, sources);
  assert.deepEqual((await turn([{ type: 'text', text: 'a' }, { type: 'image_url', image_url: { url: 'data:,' } }, { type: 'text', text: 'b' }])).told, { sources });
  assert.equal(JSON.parse(base.requests.at(-1).text).query, 'a\nb');
  base.respond = (request, response) => json(response, { results: [] });
  const nothing = await turn();
  assert.deepEqual(nothing.told, { sources: [] });
  assert.equal(nothing.asked[0].content, 'Be kind.');

  const faults = {
    'an error': [(request, response) => json(response, { error: 'no' }, 500), 'knowledge_error'],
    'no JSON': [(request, response) => json(response, '<html>'), 'knowledge_error'],
    'another shape': [(request, response) => json(response, { passages: [] }), 'knowledge_error'],
    'too much': [(request, response) => json(response, { results: [{ text: 'x'.repeat(10000) }] }), 'knowledge_error'],
    'a cut': [(request, response) => { response.writeHead(200, { 'content-length': 100 }); response.write('{'); response.socket.destroy(); }, 'knowledge_error'],
    'silence': [() => {}, 'knowledge_timeout'],
    'half an answer': [(request, response) => { response.writeHead(200); response.write('{"results":['); }, 'knowledge_timeout'],
  };
  for (const [name, [respond, code]] of Object.entries(faults)) {
    base.respond = respond;
    const poor = await turn();
    assert.equal(poor.told.error.code, code, name);
    assert.deepEqual(poor.sources, [], name);
    assert.equal(poor.asked[0].content, 'Be kind.', name);
  }
  const metrics = parseMetrics((await server.request('/metrics')).text);
  assert.equal(sumOf(metrics, 'parley_knowledge_requests_total', { outcome: 'ok' }), 3);
  assert.equal(sumOf(metrics, 'parley_knowledge_requests_total', { outcome: 'error' }), 5);
  assert.equal(sumOf(metrics, 'parley_knowledge_requests_total', { outcome: 'timeout' }), 2);
});
