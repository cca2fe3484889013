// What a key's rights were looked up for is what the tool server gets: members of params that stand twice, in escapes or in other letters; 4 workers.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import http from 'node:http';
import { after, before, describe, test } from 'node:test';
import { ready, sdk } from './lib/programs.mjs';
import { keys, startServer } from './lib/server.mjs';
import { waitFor } from './lib/wait.mjs';

const gated = 'ps_test_gated_key_0123456789abcdef', reader = 'ps_test_reader_key_0123456789abcde', denied = 'ps_test_denied_key_0123456789abcde';
const meta = '"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}';

/** A modern tool server that keeps what it got (asked), and says which item it was asked for. */
async function startPlain() {
  const asked = [];
  const lists = {
    tools: ['good', 'bad'].map((name) => ({ name, annotations: { readOnlyHint: name === 'good' }, inputSchema: { type: 'object', properties: { city: { type: 'string', 'x-mcp-header': 'City' } } } })),
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
        { kind: 'server', app: 'demo', secret: gated, tools: ['web__good', 'prog__add', 'older__add'] },
        { kind: 'server', app: 'demo', secret: reader, read_only_tools: true }, { kind: 'server', app: 'demo', secret: denied, denied_tools: ['web__bad', 'prog__grow', 'older__grow'] }],
    } });
    for (const name of ['web', 'prog', 'older']) await ready(server, name);
    const { headers, status } = await server.request('/mcp', { key: gated, body: { jsonrpc: '2.0', id: 1, method: 'initialize', params: initialize } });
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

  const initialize = { protocolVersion: '2025-03-26', capabilities: {}, clientInfo: { name: 'test', version: '1' } };

  /** How a key's client may call a tool: ways[route](name, arguments) gives what it is answered. */
  async function open_ways(t, key) {
    const rpc = (method, params, id = 1) => ({ jsonrpc: '2.0', id, method, params });
    const { headers: { 'mcp-session-id': id } } = await server.request('/mcp', { key, body: rpc('initialize', initialize) });
    const stream = await server.stream('/sse', { key });
    t.after(() => stream.close());
    const events = stream[Symbol.asyncIterator](), { value: { data: endpoint } } = await events.next();
    let last = 0;
    const paired = async (method, params) => {
      const mine = ++last;
      assert.equal((await server.request(endpoint, { key, body: rpc(method, params, mine) })).status, 202);
      for (;;) {
        const { value, done } = await events.next();
        assert.ok(!done, 'the stream has ended');
        if (value.data.id === mine) return value.data;
      }
    };
    await paired('initialize', initialize);
    const post = async (body, headers) => (await server.request('/mcp', { key, headers: { ...json, ...headers }, body })).json;
    const call = (name, args, more = {}) => rpc('tools/call', { name, arguments: args, ...more });
    const head = (name) => ({ 'mcp-protocol-version': '2026-07-28', 'mcp-method': 'tools/call', 'mcp-name': name });
    const stamp = { _meta: JSON.parse(`{${meta}}`) };
    return {
      modern: (name, args) => post(call(name, args, stamp), head(name)),
      encoded: (name, args) => post(call(name, args, stamp), head(`=?base64?${Buffer.from(name).toString('base64')}?=`)),
      older: (name, args) => post(call(name, args), { 'mcp-session-id': id }),
      batch: async (name, args) => (await post([call(name, args)], { 'mcp-session-id': id }))[0],
      paired: (name, args) => paired('tools/call', { name, arguments: args }),
    };
  }

  test('a tool that a key may not use is not executed, however it is asked for: its server says so', async (t) => {
    const ran = (name) => web.asked.filter(({ method, params }) => method === 'tools/call' && params.name === name).length;
    assert.equal(ran('bad'), 0);
    const grown = (name) => ['prog', 'older'].map((program) => `${program}__${name}`);
    for (const [who, key] of Object.entries({ gated, reader, denied })) {
      for (const [way, call] of Object.entries(await open_ways(t, key))) {
        const before_good = ran('good');
        for (const name of ['web__bad', 'bad', 'WEB__bad', 'web__web__bad', 'web/bad', 'web__good/../bad', 'web__bad ']) {
          const answer = await call(name, {});
          assert.ok([-32602, -32020].includes(answer.error?.code), `${who} ${way} ${name}: ${JSON.stringify(answer)}`);
        }
        for (const name of ['prog__grow', 'older__grow']) assert.equal((await call(name, { name: 'never' })).error?.code, -32602, `${who} ${way} ${name}`);
        // The same way leads to what the key may use.
        assert.equal((await call('web__good', {})).result?.content[0].text, 'ran good', `${who} ${way}`);
        assert.equal(ran('good'), before_good + 1);
      }
    }
    // What was refused had come first: had it been done it would be seen now.
    const full = await open_ways(t, keys.server);
    for (const name of ['prog__grow', 'older__grow']) assert.equal((await full.modern(name, { name: 'later' })).result?.content[0].text, 'grown');
    const names = async () => (await server.request('/mcp', { key: keys.server, headers: { ...json, 'mcp-protocol-version': '2026-07-28', 'mcp-method': 'tools/list' }, body: `{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{"_meta":{${meta}}}}` })).json.result.tools.map(({ name }) => name);
    const listed = await waitFor(async () => { const all = await names(); return grown('later').every((name) => all.includes(name)) && all; }, 'the tools that were to grow', 30000);
    for (const name of grown('never')) assert.ok(!listed.includes(name), name);
    assert.equal(ran('bad'), 0);
    assert.equal((await full.modern('web__bad', {})).result?.content[0].text, 'ran bad');
    assert.equal(ran('bad'), 1);
    // Nobody's key has gone on to the server.
    assert.ok(web.asked.every(({ headers }) => headers.authorization === undefined));
    web.asked.length = 0; // others look for it, too
  });

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
