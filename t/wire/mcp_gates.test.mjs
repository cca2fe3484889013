// What a key's rights were looked up for is what the tool server gets: members of params that stand twice, in escapes or in other letters; 4 workers.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import http from 'node:http';
import { after, before, describe, test } from 'node:test';
import { ready, sdk } from './lib/programs.mjs';
import { keys, startServer } from './lib/server.mjs';

const gated = 'ps_test_gated_key_0123456789abcdef';
const meta = '"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}';

/** A modern tool server that keeps what it got (asked), and says which item it was asked for. */
async function startPlain() {
  const asked = [];
  const lists = {
    tools: ['good', 'bad'].map((name) => ({ name, inputSchema: { type: 'object', properties: { city: { type: 'string', 'x-mcp-header': 'City' } } } })),
    prompts: ['good', 'bad'].map((name) => ({ name })),
    resources: ['good', 'bad'].map((name) => ({ name, uri: `x://${name}` })),
  };
  const web = http.createServer(async (req, res) => {
    const parts = [];
    for await (const part of req) parts.push(part);
    const { id, method, params } = JSON.parse(Buffer.concat(parts));
    const [kind, verb] = method.split('/');
    const results = {
      discover: () => ({ supportedVersions: ['2026-07-28'], capabilities: { tools: {}, prompts: {}, resources: {}, completions: {} } }),
      list: () => ({ [kind]: lists[kind] ?? [] }),
      templates: () => ({ resourceTemplates: [] }),
      call: () => ({ content: [{ type: 'text', text: `ran ${params.name}` }] }),
      get: () => ({ messages: [], description: `got ${params.name}` }),
      read: () => ({ contents: [{ uri: params.uri, text: `read ${params.uri}` }] }),
      complete: () => ({ completion: { values: [JSON.stringify(params.ref)] } }),
    };
    if (['call', 'get', 'read', 'complete'].includes(verb)) asked.push({ method, text: Buffer.concat(parts).toString(), params, headers: req.headers });
    if (results[verb] === undefined) { res.writeHead(404, { 'content-type': 'application/json' }).end(JSON.stringify({ jsonrpc: '2.0', id, error: { code: -32601, message: 'no such method' } })); return; }
    res.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify({ jsonrpc: '2.0', id, result: { resultType: 'complete', ttlMs: 60000, cacheScope: 'public', ...results[verb]() } }));
  });
  web.listen(0, '127.0.0.1');
  await once(web, 'listening');
  return { asked, url: `http://127.0.0.1:${web.address().port}/mcp`, stop: () => { web.close(); web.closeAllConnections(); } };
}

/** Ways to name a second thing beside the first. */
const beside = (member, value) => {
  const escaped = `\\u00${member.charCodeAt(0).toString(16)}${member.slice(1)}`;
  return [`"${member}":"${value}"`, `"${escaped}":"${value}"`, `"${member.toUpperCase()}":"${value}"`, `"${escaped.toUpperCase().replace('\\U', '\\u')}":"${value}"`];
};

describe('what is judged is what is sent', () => {
  let server, web, session;
  before(async () => {
    web = await startPlain();
    server = await startServer(null, { config: {
      mcp: { backoff: '50ms', backoff_max: '200ms', servers: [{ name: 'web', url: web.url }, sdk('prog', 'modern'), sdk('older', 'legacy')] },
      keys: [{ kind: 'server', app: 'demo', secret: keys.server }, { kind: 'admin', secret: keys.admin },
        { kind: 'server', app: 'demo', secret: gated, tools: ['web__good', 'prog__add', 'older__add'] }],
    } });
    for (const name of ['web', 'prog', 'older']) await ready(server, name);
    const { headers, status } = await server.request('/mcp', { key: gated, body: { jsonrpc: '2.0', id: 1, method: 'initialize', params: { protocolVersion: '2025-03-26', capabilities: {}, clientInfo: { name: 'test', version: '1' } } } });
    assert.equal(status, 200);
    session = headers['mcp-session-id'];
  });
  after(async () => { await server?.stop(); web?.stop(); });

  const json = { 'content-type': 'application/json', accept: 'application/json' };
  /** params: text without braces. Gives the answer of a modern client, of an older one, of one in a batch. */
  const modern = (method, params, name, more = '', headers = {}) => server.request('/mcp', { key: gated,
    headers: { ...json, 'mcp-protocol-version': '2026-07-28', 'mcp-method': method, ...(name ? { 'mcp-name': name } : {}), ...headers },
    body: `{"jsonrpc":"2.0","id":1,"method":"${method}","params":{${params},"_meta":{${meta}${more}}}}` });
  const older = (method, params) => server.request('/mcp', { key: gated, headers: { ...json, 'mcp-session-id': session }, body: `{"jsonrpc":"2.0","id":1,"method":"${method}","params":{${params}}}` });
  const batch = async (method, params) => {
    const answer = await server.request('/mcp', { key: gated, headers: { ...json, 'mcp-session-id': session }, body: `[{"jsonrpc":"2.0","id":1,"method":"${method}","params":{${params}}}]` });
    assert.equal(answer.json?.length, 1, answer.text);
    return { ...answer, json: answer.json[0] };
  };
  const all = (method, params, name) => Promise.all([modern(method, params, name), older(method, params), batch(method, params)]);

  for (const [method, member, good, bad] of [['tools/call', 'name', 'web__good', 'bad'], ['prompts/get', 'name', 'web__good', 'bad'], ['resources/read', 'uri', 'x://good', 'x://bad'], ['resources/subscribe', 'uri', 'x://good', 'x://bad']]) {
    test(`${method}: what names two is refused, and nothing is asked for`, async () => {
      const before_asked = web.asked.length;
      for (const second of beside(member, bad)) {
        for (const params of [`"${member}":"${good}",${second}`, `${second},"${member}":"${good}"`]) {
          for (const { json: answer, text } of method === 'resources/subscribe' ? [await older(method, params), await batch(method, params)] : await all(method, params, good)) {
            assert.ok([-32600, -32602, -32020].includes(answer?.error?.code), `${params}: ${text}`);
          }
        }
      }
      assert.equal(web.asked.length, before_asked);
    });
  }

  test('programs get no other tool\'s name either', async () => {
    for (const name of ['prog__add', 'older__add']) {
      for (const second of beside('name', 'where')) {
        for (const { json: answer, text } of await all('tools/call', `"name":"${name}","arguments":{"a":1,"b":2},${second}`, name)) assert.ok(answer?.error !== undefined, text);
      }
      for (const { json: answer, text } of await all('tools/call', `"name":"${name}","arguments":{"a":1,"b":2}`, name)) assert.equal(answer.result?.content[0].text, 'sum 3', text);
    }
  });

  test('a name in escapes is that name', async () => {
    for (const { json: answer, text } of await all('tools/call', '"n\\u0061me":"web__\\u0067ood"', 'web__good')) assert.equal(answer.result?.content[0].text, 'ran good', text);
    for (const { json: answer, text } of await all('tools/call', '"n\\u0061me":"web__bad"', 'web__bad')) assert.equal(answer.error?.code, -32602, text);
    for (const { json: answer, text } of await all('tools/call', '"Name":"web__good"', 'web__good')) assert.ok([-32602, -32020].includes(answer.error?.code), text);
    for (const { json: answer, text } of await all('tools/call', '"name":"web__good","arguments":{},"argument\\u0073":{}', 'web__good')) assert.ok(answer.error !== undefined, text);
    for (const { params } of web.asked) assert.notEqual(params.name, 'bad');
  });

  test('of a ref only what was looked up is sent', async () => {
    const refs = ['"type":"ref/prompt","name":"web__good","name":"bad"', '"type":"ref/prompt","name":"web__good","N\\u0061me":"bad"', '"type":"ref/prompt","name":"web__good","typ\\u0065":"ref/resource","uri":"x://bad"'];
    for (const ref of refs) {
      for (const { json: answer, text } of await all('completion/complete', `"ref":{${ref}},"argument":{"name":"a","value":"b"}`)) assert.equal(answer.result?.completion.values[0], '{"type":"ref/prompt","name":"good"}', text);
    }
  });

  test('a token of progress of another call is not passed on, nor another _meta', async () => {
    for (const key of ['progressTok\\u0065n', 'ProgressToken', 'progre\u017fsto\u212aen', 'io.modelcontextprotocol\\/x', 'IO.modelcontextprotocol/x']) {
      const { json: answer, text } = await modern('tools/call', '"name":"web__good"', 'web__good', `,"mine":1,"${key}":424242`);
      assert.equal(answer.result?.content[0].text, 'ran good', text);
      const { text: sent, params } = web.asked.at(-1);
      assert.ok(!sent.includes('424242'), sent);
      assert.equal(params._meta.mine, 1);
    }
    for (const second of ['_m\\u0065ta', '_Meta', '_META']) {
      for (const { json: answer, text } of [await modern('tools/call', `"name":"web__good","${second}":{"progressToken":424242}`, 'web__good'), await older('tools/call', `"name":"web__good","_meta":{},"${second}":{"progressToken":424242}`)]) {
        assert.equal(answer.error?.code, -32600, text);
      }
      const { json: answer, text } = await older('tools/call', `"name":"web__good","${second}":{"progressToken":424242}`);
      assert.equal(answer.result?.content[0].text, 'ran good', text);
      assert.ok(!web.asked.at(-1).text.includes('424242'), web.asked.at(-1).text);
    }
  });

  test('an argument that a header repeats stands once', async () => {
    for (const second of beside('city', 'Bergen')) {
      const { status, json: answer, text } = await modern('tools/call', `"name":"web__good","arguments":{"city":"Oslo",${second}}`, 'web__good', '', { 'mcp-param-city': 'Oslo' });
      assert.deepEqual([status, answer.error?.code], [400, -32020], text);
    }
    const { json: answer } = await modern('tools/call', '"name":"web__good","arguments":{"c\\u0069ty":"Oslo"}', 'web__good', '', { 'mcp-param-city': 'Oslo' });
    assert.equal(answer.result.content[0].text, 'ran good');
    assert.equal(web.asked.at(-1).headers['mcp-param-city'], 'Oslo');
    // Mcp-Name is of what was asked for, whatever else is there.
    await modern('resources/read', '"uri":"x://good","name":"bad"', 'x://good');
    assert.equal(web.asked.at(-1).headers['mcp-name'], 'x://good');
  });
});
