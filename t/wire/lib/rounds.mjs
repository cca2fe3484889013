// rounds - a tool server of 2026-07-28, by hand, whose tools ask back: seen has what they were called with.
import { once } from 'node:events';
import http from 'node:http';

const said = (text) => ({ resultType: 'complete', content: [{ type: 'text', text }] });
const sampling = (text, more = {}) => ({ method: 'sampling/createMessage', params: { systemPrompt: 'You are terse.', maxTokens: 50, messages: [{ role: 'user', content: { type: 'text', text } }], ...more } });

/** What each tool answers by what it was given so far. */
const tools = {
  ask_model: ({ inputResponses, requestState }) => (inputResponses ? said(`${requestState} ${JSON.stringify(inputResponses.m)}`)
    : { resultType: 'input_required', inputRequests: { m: sampling('what is [[mock]] this') }, requestState: 'ünchanged "state"\\n' }),
  ask_two: ({ inputResponses }) => (inputResponses ? said(JSON.stringify([inputResponses.a.content.text, inputResponses.b.content.text, inputResponses.c]))
    : { resultType: 'input_required', inputRequests: { a: sampling('one'), b: sampling('two', { messages: [{ role: 'user', content: [{ type: 'text', text: 'a list' }] }, { role: 'assistant', content: { type: 'text', text: 'yes' } }, { role: 'user', content: { type: 'text', text: 'two' } }] }), c: { method: 'roots/list' } } }),
  wait: ({ requestState }) => (requestState === 'done' ? said('waited') : { resultType: 'input_required', requestState: requestState ? 'done' : 'once' }),
  ask_user: () => ({ resultType: 'input_required', inputRequests: { u: { method: 'elicitation/create', params: { message: 'Who?', requestedSchema: { type: 'object', properties: {} } } } } }),
  ask_three: ({ inputResponses, requestState }) => (inputResponses ? said(JSON.stringify({ requestState, ...inputResponses }))
    : { resultType: 'input_required', inputRequests: { m: sampling('hi'), 'ü "q"': { method: 'elicitation/create', params: { message: 'Who?', requestedSchema: { type: 'object', properties: { name: { type: 'string' } } } } }, r: { method: 'roots/list' } }, requestState: 'a\nb' }),
  ask_nothing_known: () => ({ resultType: 'input_required', inputRequests: { u: { method: '', params: {} } } }),
  ask_rubbish: () => ({ resultType: 'input_required', inputRequests: [7] }),
  a_task: () => ({ resultType: 'task', taskId: 't', status: 'working' }),
  ask_fault: () => ({ resultType: 'input_required', inputRequests: { m: sampling('[[mock fault=http500]]') } }),
  ask_slowly: () => ({ resultType: 'input_required', inputRequests: { m: sampling('[[mock tokens=5 interval=2000]]') } }),
  ask_much: () => ({ resultType: 'input_required', inputRequests: Object.fromEntries(Array.from({ length: 17 }, (_, i) => [`m${i}`, sampling('one of many')])) }),
  for_ever: () => ({ resultType: 'input_required', inputRequests: { m: sampling('again') } }),
};

export async function startRounds() {
  const seen = [];
  const server = http.createServer(async (req, res) => {
    const parts = [];
    for await (const part of req) parts.push(part);
    const { id, method, params } = JSON.parse(Buffer.concat(parts).toString() || '{}');
    const reply = (result) => res.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify({ jsonrpc: '2.0', id, result }));
    if (method === 'server/discover') return reply({ resultType: 'complete', supportedVersions: ['2026-07-28'], capabilities: { tools: {} }, ttlMs: 3600000, cacheScope: 'public' });
    if (method === 'tools/list') return reply({ resultType: 'complete', tools: Object.keys(tools).map((name) => ({ name, inputSchema: { type: 'object' } })), ttlMs: 3600000, cacheScope: 'public' });
    seen.push({ name: params.name, capabilities: params._meta['io.modelcontextprotocol/clientCapabilities'], id, params });
    return reply(tools[params.name](params));
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  return { seen, url: `http://127.0.0.1:${server.address().port}/mcp`, stop: () => { server.close(); server.closeAllConnections(); } };
}
