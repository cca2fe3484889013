// Parley's own tools at our MCP endpoint: a model is asked, a session searched, a task looked at; 4 workers, real clients.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import { SSEClientTransport } from '@modelcontextprotocol/sdk/client/sse.js';
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js';
import { startModern } from './lib/mcp.mjs';
import { keys, newSession, startServer, streamTurn } from './lib/server.mjs';
import { waitFor } from './lib/wait.mjs';

const secrets = { poor: 'ps_test_poor_key_0123456789abcdefg', other: 'ps_test_other_key_0123456789abcdef', reader: 'ps_test_reader_key_0123456789abcde', few: 'ps_test_few_key_0123456789abcdefgh' };

async function connect(server, route, key = keys.server) {
  const client = new Client({ name: 'test', version: '1.0.0' });
  const headers = { authorization: `Bearer ${key}` };
  await client.connect(route === '/mcp' ? new StreamableHTTPClientTransport(new URL(`${server.url}/mcp`), { requestInit: { headers } })
    : new SSEClientTransport(new URL(`${server.url}/sse`), { requestInit: { headers }, eventSourceInit: { fetch: (url, init) => fetch(url, { ...init, headers: { ...init.headers, ...headers } }) } }));
  return client;
}

const call = async (client, name, args, options) => {
  const { content, isError } = await client.callTool({ name: `parley__${name}`, arguments: args }, undefined, options);
  return { text: content[0].text, failed: isError === true };
};

describe('own tools', () => {
  let server, web;
  before(async () => {
    web = await startModern();
    server = await startServer(null, { config: {
      mcp: { servers: [{ name: 'web', url: web.url }] },
      apps: [{ id: 'demo', name: 'Demo', org: 'demo', client_may: ['tools'] }, { id: 'elsewhere', name: 'Elsewhere', org: 'demo' }],
      keys: [
        { kind: 'client', app: 'demo', secret: keys.client }, { kind: 'server', app: 'demo', secret: keys.server }, { kind: 'admin', secret: keys.admin },
        { kind: 'server', app: 'demo', secret: secrets.poor, budget: { amount: 0.000001, period: 'total' } }, { kind: 'server', app: 'elsewhere', secret: secrets.other },
        { kind: 'server', app: 'demo', secret: secrets.reader, read_only_tools: true }, { kind: 'server', app: 'demo', secret: secrets.few, models: ['nothing-*'] },
      ],
    } });
    server.expectLog(/provider call failed .*status=[45]00/);
  });
  after(async () => { await server?.stop(); await web?.stop(); });

  for (const route of ['/mcp', '/sse']) {
    test(`${route}: who may see them`, async () => {
      const names = async (key) => {
        const client = await connect(server, route, key);
        const { tools } = await client.listTools();
        await client.close();
        return tools.map(({ name }) => name).filter((name) => name.startsWith('parley__'));
      };
      assert.deepEqual(await names(keys.server), ['parley__ask_model', 'parley__search_session', 'parley__task_status']);
      assert.deepEqual(await names(secrets.reader), ['parley__search_session', 'parley__task_status']);
      assert.deepEqual(await names(keys.admin), []); // no app's
      const reader = await connect(server, route, secrets.reader);
      await assert.rejects(reader.callTool({ name: 'parley__ask_model', arguments: { prompt: 'hi' } }), { code: -32602 });
      await reader.close();
    });

    test(`${route}: a model answers, with progress, and it is written down`, async () => {
      const rows = async () => JSON.stringify((await server.request('/admin/v1/usage', { key: keys.admin })).json.data);
      const before_calls = await rows();
      const client = await connect(server, route);
      const seen = [];
      const answer = await call(client, 'ask_model', { prompt: '[[mock tokens=40 interval=20]]', system: 'be brief', model: 'default' }, { onprogress: ({ progress }) => seen.push(progress) });
      assert.ok(!answer.failed && answer.text.length > 40, answer.text);
      assert.ok(seen.length >= 2 && seen.every((n, i) => i === 0 || n > seen[i - 1]), String(seen));
      const plain = await call(client, 'ask_model', { prompt: 'hello there', max_tokens: 5 });
      assert.ok(!plain.failed && plain.text.length > 0);
      await waitFor(async () => await rows() !== before_calls, 'the rows of usage');
      await client.close();
    });

    test(`${route}: what is refused is told to the model`, async () => {
      const ask = async (key, args) => { const client = await connect(server, route, key); const answer = await call(client, 'ask_model', args); await client.close(); assert.ok(answer.failed, answer.text); return answer.text; };
      assert.match(await ask(secrets.poor, { prompt: 'hi' }), /budget/i);
      assert.match(await ask(secrets.few, { prompt: 'hi' }), /no such model/);
      for (const args of [{}, { prompt: '' }, { prompt: 7 }, { prompt: 'hi', max_tokens: 0 }, { prompt: 'hi', max_tokens: 1.5 }, { prompt: 'hi', max_tokens: 1e300 }, { prompt: 'hi', model: {} }, { prompt: 'hi', model: 'x'.repeat(10000) }, { prompt: 'hi', system: [] }]) await ask(keys.server, args);
      assert.ok((await ask(keys.server, { prompt: '[[mock fault=status:500]]' })).length > 0);
    });

    test(`${route}: who takes it back frees the provider`, async () => {
      const stats = async () => (await fetch(`http://${server.mock.address}/mock/stats`)).json();
      const { aborted } = await stats();
      const client = await connect(server, route);
      const stop = new AbortController();
      const answer = call(client, 'ask_model', { prompt: '[[mock tokens=1000 interval=20]]' }, { signal: stop.signal, onprogress: () => stop.abort() });
      await assert.rejects(answer);
      await waitFor(async () => (await stats()).aborted > aborted, 'the end at the provider', 30000);
      await client.close();
    });

    test(`${route}: messages of a session are found, of one's own app only`, async () => {
      const { id } = await newSession(server);
      await streamTurn(server, id, { input: `Where is the Grüne Eule? ${'é'.repeat(300)} near the harbour ${'é'.repeat(300)}` });
      await streamTurn(server, id, { input: 'Nothing to see' });
      const client = await connect(server, route);
      const search = async (args) => call(client, 'search_session', { session_id: id, ...args });
      const found = JSON.parse((await search({ query: 'NEAR the Harbour' })).text);
      assert.deepEqual([found.messages[0].role, found.searched_all], ['user', true]);
      assert.match(found.messages[0].text, /^é+ near the harbour é+$/);
      assert.deepEqual(JSON.parse((await search({ query: 'no such text anywhere' })).text), { messages: [], searched_all: true });
      assert.equal(JSON.parse((await search({ query: 'e', limit: 1 })).text).messages.length, 1);
      for (let i = 0; i < 12; i++) await streamTurn(server, id, { input: `number <${i}>` }); // more than a page
      for (const i of [0, 9, 11]) assert.equal(JSON.parse((await search({ query: `NUMBER <${i}>`, limit: 1 })).text).messages[0].role, 'user');
      assert.equal(JSON.parse((await search({ query: 'number <', limit: 50 })).text).messages.filter(({ role }) => role === 'user').length, 12);
      for (const args of [{ query: '' }, { query: 7 }, { query: 'a\u0000b' }, { query: 'x'.repeat(2000) }, { query: 'e', limit: 51 }, { query: 'e', limit: 'all' }, { session_id: 'sess_nothing', query: 'e' }, { session_id: 7, query: 'e' }]) assert.ok((await search(args)).failed, JSON.stringify(args).slice(0, 100));
      const other = await connect(server, route, secrets.other);
      assert.deepEqual(await call(other, 'search_session', { session_id: id, query: 'harbour' }), { text: 'No such session.', failed: true });
      await other.close();
      assert.ok((await server.request(`/v1/sessions/${id}?erase=true`, { key: keys.server, method: 'DELETE' })).status < 300);
      assert.deepEqual(await search({ query: 'harbour' }), { text: 'No such session.', failed: true });
      await client.close();
    });

    test(`${route}: a task as its own route shows it, when it has ended or after a while, of one's own app only`, async () => {
      const order = async (content) => { const { json, status } = await server.request('/v1/tasks', { key: keys.server, body: { type: 'chat.completion', input: { messages: [{ role: 'user', content }] } } }); assert.equal(status, 202); return json.id; };
      const shown = async (id) => (await server.request(`/v1/tasks/${id}`, { key: keys.server })).json;
      const client = await connect(server, route, secrets.reader);
      await client.listTools(); // from here on the client holds what comes against the schema
      const look = async (args, of = client) => of.callTool({ name: 'parley__task_status', arguments: args });
      for (let i = 0; i < 4; i++) {
        const id = await order(`say ${i}`);
        const { content, structuredContent, isError } = await look({ id, wait: 60 });
        assert.ok(!isError && structuredContent.status === 'succeeded', content[0].text);
        assert.ok(structuredContent.result.choices[0].message.content.length > 0);
        assert.deepEqual(JSON.parse(content[0].text), structuredContent);
        assert.deepEqual((await look({ id })).structuredContent, await shown(id));
      }
      const slow = await order('[[mock tokens=1000 interval=100]]');
      for (const wait of [undefined, 0, 1]) {
        const { structuredContent } = await look({ id: slow, wait });
        assert.ok(['queued', 'running'].includes(structuredContent.status), structuredContent.status);
        assert.deepEqual([structuredContent.id, structuredContent.result, structuredContent.ended_at], [slow, null, null]);
      }
      const stop = new AbortController(), left = client.callTool({ name: 'parley__task_status', arguments: { id: slow, wait: 60 } }, undefined, { signal: stop.signal });
      stop.abort();
      await assert.rejects(left);
      const waiting = look({ id: slow, wait: 60 });
      assert.equal((await server.request(`/v1/tasks/${slow}/cancel`, { key: keys.server, method: 'POST' })).status, 200);
      assert.equal((await waiting).structuredContent.status, 'cancelled');
      const failed = await order('[[mock fault=status:400]]');
      const { structuredContent: { status, error, result } } = await look({ id: failed, wait: 60 });
      assert.deepEqual([status, typeof error.code, result], ['failed', 'string', null]);

      const other = await connect(server, route, secrets.other);
      for (const [args, why, who] of [[{ id: slow }, /^No such task/, other], [{ id: 'task_00000000000000000000000000' }, /^No such task/], [{ id: 'nothing' }, /^No such task/], [{ id: 7 }, /^No such task/], [{}, /^No such task/],
        ...[-1, 61, 1.5, '5', 1e300, null].map((wait) => [{ id: slow, wait }, /^wait is/])]) {
        const { content, isError } = await look(args, who);
        assert.ok(isError === true && why.test(content[0].text), `${JSON.stringify(args)}: ${content[0].text}`);
      }
      await other.close();
      await client.close();
    });
  }
});

test('2025-03-26: in batches, answered and refused, alone and as the last', async (t) => {
  const server = await startServer(t, { config: { keys: [{ kind: 'server', app: 'demo', secret: keys.server }, { kind: 'admin', secret: keys.admin },
    { kind: 'server', app: 'demo', secret: secrets.poor, budget: { amount: 0.000001, period: 'total' } }, { kind: 'server', app: 'demo', secret: secrets.few, tpm: 20 }] } });
  const calls = async () => (await server.request('/admin/v1/usage', { key: keys.admin })).json.data.reduce((sum, { calls: n }) => sum + n, 0);
  const ask = (id, args, name = 'ask_model') => ({ jsonrpc: '2.0', id, method: 'tools/call', params: { name: `parley__${name}`, arguments: args } });
  const session = async (key) => {
    const { headers } = await server.request('/mcp', { key, body: { jsonrpc: '2.0', id: 1, method: 'initialize', params: { protocolVersion: '2025-03-26', capabilities: {}, clientInfo: { name: 'test', version: '1' } } } });
    return async (messages) => {
      const { json, status, text } = await server.request('/mcp', { key, body: messages, headers: { accept: 'application/json, text/event-stream', 'mcp-session-id': headers['mcp-session-id'] } });
      assert.equal(status, 200, text);
      assert.deepEqual(json.map(({ id }) => id).sort(), messages.map(({ id }) => id).sort());
      return json.map(({ result }) => ({ text: result.content[0].text, failed: result.isError === true }));
    };
  };
  const good = await session(keys.server);
  for (let i = 0; i < 8; i++) {
    for (const { text, failed } of await good([ask(1, { prompt: 'hello there' })])) assert.ok(!failed && text.length > 0, text);
  }
  const several = await good([ask(1, { prompt: '[[mock tokens=20 interval=10]]' }), ask(2, { prompt: 'hello' }), ask(3, { prompt: '' }), ask(4, { id: 'nothing' }, 'task_status'), ask(5, { session_id: 'sess_nothing', query: 'e' }, 'search_session')]);
  assert.equal(several.filter(({ failed }) => failed).length, 3);
  for (const { text, failed } of await (await session(secrets.poor))([ask(1, { prompt: 'hi' })])) assert.ok(failed && /budget/i.test(text), text);
  await waitFor(async () => await calls() === 10, 'a row of usage for each');
  const few = await session(secrets.few);
  await waitFor(async () => {
    const [{ failed, text }] = await few([ask(1, { prompt: 'x'.repeat(4000) })]);
    assert.ok(!failed || /token/i.test(text), text);
    return failed;
  }, 'the limit of tokens');
  for (let i = 0; i < 8; i++) await good([ask(1, { prompt: 'and again' })]);
});

test('they can be switched off', async (t) => {
  const server = await startServer(t, { config: { mcp: { own_tools: false } } });
  const client = await connect(server, '/mcp');
  assert.deepEqual((await client.listTools()).tools, []);
  await assert.rejects(client.callTool({ name: 'parley__ask_model', arguments: { prompt: 'hi' } }), { code: -32602 });
  await client.close();
});
