// What older tool servers ask of clients in the midst of a call: it reaches the client whose call it is, and its answer comes back
// from whichever of 4 workers it was posted to.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { ElicitRequestSchema } from '@modelcontextprotocol/sdk/types.js';
import { connect, transports } from './lib/asked.mjs';
import { parseMetrics, sumOf } from './lib/metrics.mjs';
import { startSessions } from './lib/mcp.mjs';
import { everything, hostile, ready, run } from './lib/programs.mjs';
import { keys, startServer } from './lib/server.mjs';
import { waitFor } from './lib/wait.mjs';

const say = async (client, name) => (await client.callTool({ name, arguments: {} })).content[0].text;

describe('questions', () => {
  let server, old;
  before(async () => {
    old = await startSessions(null, { asks: true });
    server = await startServer(null, { config: {
      mcp: { backoff: '50ms', backoff_max: '200ms', servers: [{ name: 'old', url: old.url }, { name: 'shy', url: old.url, may_ask: [] }, everything('all')] },
      tools: { server_timeout: '20s' },
    } });
    for (const name of ['old', 'shy', 'all']) await ready(server, name);
  });
  after(async () => { await server?.stop(); await old?.stop(); });

  for (const route of Object.keys(transports)) {
    test(`${route}: the client whose call it is is asked, and none else`, async () => {
      const clients = await Promise.all(['ann', 'bob', 'cid', 'dan'].map((name) => connect(server, route, name).then((client) => ({ name, client }))));
      for (let i = 0; i < 3; i++) {
        await Promise.all(clients.map(async ({ name, client }) => {
          assert.equal(JSON.parse(await say(client, 'old__ask_model')).content.text, `model of ${name}`);
          assert.deepEqual(JSON.parse(await say(client, 'old__ask_user')), { action: 'accept', content: { name } });
          assert.deepEqual(JSON.parse(await say(client, 'old__ask_roots')).roots, [{ uri: `file:///${name}` }]);
        }));
      }
      assert.deepEqual(clients.map(({ client }) => client.asked), [9, 9, 9, 9]);
      await Promise.all(clients.map(({ client }) => client.close()));
    });

    test(`${route}: who cannot be asked is not`, async () => {
      const mute = await connect(server, route, 'mute', {});
      for (const name of ['ask_model', 'ask_user', 'ask_roots']) assert.equal(await say(mute, `old__${name}`), 'refused -32601');
      const some = await connect(server, route, 'some', { elicitation: {} });
      assert.equal(await say(some, 'old__ask_model'), 'refused -32601');
      assert.equal(JSON.parse(await say(some, 'old__ask_user')).content.name, 'some');
      // The SDK's server does not even try where it was told of no capability.
      assert.match(await say(some, 'shy__ask_user'), /^refused /);
      assert.equal(some.asked, 1);
      await mute.close();
      await some.close();
    });

    test(`${route}: a question that the server withdraws is withdrawn from the client`, async () => {
      const client = await connect(server, route, 'hal');
      let is_aborted = false;
      client.setRequestHandler(ElicitRequestSchema, (_, { signal }) => new Promise((resolve) => { signal.addEventListener('abort', () => { is_aborted = true; resolve({ action: 'cancel' }); }); }));
      const answer = say(client, 'old__ask_user_briefly');
      await waitFor(() => old.waiting.length > 0, 'the server to think better of it', 30000);
      await waitFor(() => is_aborted, 'the client to hear of it', 30000);
      old.release();
      assert.equal(await answer, 'refused -32001');
      await client.close();
    });

    test(`${route}: a client's error and a long wait are passed on`, async () => {
      const client = await connect(server, route, 'eve');
      client.setRequestHandler(ElicitRequestSchema, () => { throw Object.assign(new Error('no'), { code: -32099 }); });
      assert.equal(await say(client, 'old__ask_user'), 'refused -32099');
      await client.close();
    });
  }

  test('on a stream that requests share it is asked as long as it is clear who is meant', async () => {
    const client = await connect(server, '/mcp', 'fay');
    await waitFor(async () => (await say(client, 'old__ask_user_beside')).includes('fay'), 'the upstream\'s own stream', 30000);
    // A program of the host, whichever worker speaks to it.
    for (let i = 0; i < 6; i++) {
      const { content } = await client.callTool({ name: 'all__trigger-sampling-request', arguments: { prompt: 'hello' } });
      assert.match(JSON.stringify(content), /model of fay/);
    }
    await client.close();
  });

  test('turns have nobody to ask', async () => {
    const events = await run(server, '[[mock tool=old__ask_user args={}]]');
    assert.match(JSON.stringify(events.filter(({ event }) => event === 'tool.result')), /refused -32601/);
  });

  test('answers that nobody asked for, or for somebody else, do nothing', async () => {
    const victim = await connect(server, '/mcp', 'gus');
    let resolve;
    victim.setRequestHandler(ElicitRequestSchema, (request, extra) => { victim.asked_id = extra.requestId; return new Promise((done) => { resolve = done; }); });
    const answer = say(victim, 'old__ask_user');
    await waitFor(() => victim.asked_id !== undefined, 'the question');
    const { headers: theirs } = await server.request('/mcp', { key: keys.server, body: { jsonrpc: '2.0', id: 1, method: 'initialize', params: { protocolVersion: '2025-11-25', capabilities: { elicitation: {} }, clientInfo: { name: 'x', version: '1' } } } });
    const forge = (id) => server.request('/mcp', { key: keys.server, headers: { 'mcp-session-id': theirs['mcp-session-id'] }, body: { jsonrpc: '2.0', id, result: { action: 'accept', content: { name: 'mallory' } } } });
    for (const id of [victim.asked_id, victim.asked_id, 'p.', 'p...', 'p.0.0.0.0', `p.${'f'.repeat(200)}`, `${victim.asked_id}.1`, 7, 'p.-1.-1.-1.-1', victim.asked_id.replace(/\.[^.]*$/, '.')]) {
      for (let i = 0; i < 4; i++) assert.equal((await forge(id)).status, 202);
    }
    resolve({ action: 'accept', content: { name: 'gus' } });
    assert.equal(JSON.parse(await answer).content.name, 'gus');
    await victim.close();
  });
});

test('who is left is not asked what one was to be asked whose call was given up', async (t) => {
  const server = await startServer(t, { config: { mcp: { servers: [hostile('nosy')] }, tools: { server_timeout: '60s' } } });
  await ready(server, 'nosy');
  const [ann, bob] = [await connect(server, '/mcp', 'ann'), await connect(server, '/mcp', 'bob')];
  const given_up = new AbortController();
  const gone = ann.callTool({ name: 'nosy__echo', arguments: {} }, undefined, { signal: given_up.signal });
  const stays = say(bob, 'nosy__echo');
  await waitFor(async () => sumOf(parseMetrics((await server.request('/metrics')).text), 'parley_mcp_calls') === 2, 'both calls', 30000);
  given_up.abort();
  await assert.rejects(gone);
  assert.equal(await stays, 'refused -32601');
  assert.deepEqual([ann.asked, bob.asked], [0, 0]);
  await Promise.all([ann.close(), bob.close()]);
});

test('a silent call is kept alive by comments', async (t) => {
  const old = await startSessions(t);
  const server = await startServer(t, { config: { sse: { keepalive_interval: '1s' }, mcp: { servers: [{ name: 'old', url: old.url }] } } });
  await ready(server, 'old');
  const initialize = { jsonrpc: '2.0', id: 1, method: 'initialize', params: { protocolVersion: '2025-11-25', capabilities: {}, clientInfo: { name: 'x', version: '1' } } };
  const { headers: { 'mcp-session-id': id } } = await server.request('/mcp', { key: keys.server, body: initialize });
  const meta = { 'io.modelcontextprotocol/protocolVersion': '2026-07-28', 'io.modelcontextprotocol/clientCapabilities': {} };
  const call = { jsonrpc: '2.0', id: 2, method: 'tools/call', params: { name: 'old__slow', arguments: {} } };
  const asks = [
    server.stream('/mcp', { key: keys.server, body: call, headers: { accept: 'application/json, text/event-stream', 'mcp-session-id': id } }),
    server.stream('/mcp', { key: keys.server, body: { ...call, params: { ...call.params, _meta: meta } }, headers: { accept: 'application/json, text/event-stream', 'mcp-protocol-version': '2026-07-28', 'mcp-method': 'tools/call', 'mcp-name': 'old__slow' } }),
  ];
  // The head of the answer comes long before it.
  const streams = await Promise.all(asks);
  assert.deepEqual(streams.map(({ status, headers }) => [status, headers['content-type'].split(';')[0]]), [[200, 'text/event-stream'], [200, 'text/event-stream']]);
  await waitFor(() => old.waiting.length === 2, 'both calls to arrive', 30000);
  old.release();
  for (const stream of streams) for await (const { data } of stream) assert.equal(data.result.content[0].text, 'at last ');
  await server.stop();
});
