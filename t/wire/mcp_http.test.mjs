// Tool servers over HTTP in turns: each era of the protocol, with servers made with the official SDKs; 4 workers.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { startModern, startOldStream, startSessions } from './lib/mcp.mjs';
import { of, ready, run } from './lib/programs.mjs';
import { keys, newSession, startServer } from './lib/server.mjs';
import { waitFor } from './lib/wait.mjs';

for (const [era, start, revision] of [['modern', startModern, '2026-07-28'], ['sessions', startSessions, '2025-11-25'], ['old', startOldStream, '2024-11-05']]) {
  describe(era, () => {
    let server, tools;
    before(async () => {
      tools = await start();
      server = await startServer(null, { config: { mcp: { backoff: '100ms', backoff_max: '200ms', servers: [{ name: 'web', url: tools.url, headers: { 'X-Token': 't0' } }] }, tools: { server_timeout: '2s' } } });
      await ready(server, 'web');
    });
    after(async () => { await server?.stop(); await tools?.stop(); });

    test('its tools run in turns, on every worker', async () => {
      assert.match(server.output(), new RegExp(`mcp server ready server=web revision=${revision} tools=5`));
      for (let i = 0; i < 8; i++) {
        const events = await run(server, 'How much? [[mock tool=web__add args={"a":2,"b":3}]]');
        const [call] = of(events, 'tool.call');
        assert.deepEqual([call.name, call.run_by, call.server, call.arguments], ['web__add', 'server', 'web', { a: 2, b: 3 }]);
        assert.equal(of(events, 'tool.result')[0].output, 'sum 5');
        assert.match(events.at(-1).data.message.content, /sum 5/);
      }
      assert.ok(tools.requests.every(({ headers }) => headers['x-token'] === 't0'));
    });

    test('several run at once, what fails is told to the model', async () => {
      const events = await run(server, '[[mock tool=web__add args={"a":1,"b":1} tool=web__fail args={} tool=web__numbers args={} tool=web__nothing args={}]]');
      assert.equal(of(events, 'tool.call').length, 3);
      const results = Object.fromEntries(of(events, 'tool.result').map((data) => [data.name, data.output ?? data.error]));
      assert.deepEqual(results, { web__add: 'sum 2', web__fail: 'the disk is full', web__numbers: { n: 7 } });
      assert.equal(events.at(-1).event, 'turn.completed');
      assert.match(events.at(-1).data.message.content, /the disk is full/);
    });

    test('arguments that do not match are not sent', async () => {
      const before_count = tools.calls.length;
      const events = await run(server, '[[mock tool=web__add args={"a":"x","b":1}]]');
      assert.match(of(events, 'tool.result')[0].error, /schema: a: expected a number\./);
      assert.equal(tools.calls.length, before_count);
    });

    test('a picture is shown to the model', async () => {
      const events = await run(server, '[[mock tool=web__picture args={}]]');
      const [{ output }] = of(events, 'tool.result');
      assert.equal(output[1].mimeType, 'image/png');
      assert.equal(events.at(-1).event, 'turn.completed');
    });

    test('one that takes too long is given up, and the server is told', async () => {
      const events = await run(server, '[[mock tool=web__slow args={}]]');
      assert.match(of(events, 'tool.result')[0].error, /did not answer in time/);
      assert.equal(events.at(-1).event, 'turn.completed');
      await waitFor(() => tools.aborted > 0, 'the call to be aborted');
      tools.release();
    });

    test('a client cannot answer for a server', async () => {
      const { id } = await newSession(server);
      const events = await server.stream(`/v1/sessions/${id}/turns`, { key: keys.client, body: { input: '[[mock tool=web__slow args={}]]', stream: true } });
      for await (const { event, data } of events) {
        if (event === 'tool.call') {
          const { status } = await server.request(`/v1/sessions/${id}/tool-results`, { key: keys.client, body: { tool_call_id: data.tool_call_id, output: 'mine' } });
          assert.equal(status, 404);
          await waitFor(() => tools.waiting.length > 0, 'the call to arrive');
          tools.release();
        }
        if (event === 'turn.completed') { assert.match(data.message.content, /at last/); break; }
      }
    });
  });
}

test('lists are followed when they change', async (t) => {
  const [modern, sessions] = [await startModern(t), await startSessions(t)];
  const server = await startServer(t, { config: { mcp: { servers: [{ name: 'm', url: modern.url }, { name: 's', url: sessions.url }] } } });
  await ready(server, 'm');
  await ready(server, 's');
  // The streams on which it is said are open on every worker.
  await waitFor(() => sessions.requests.filter(({ method }) => method === 'GET').length >= 4, 'GET streams');
  await waitFor(() => modern.requests.filter(({ headers }) => headers['mcp-method'] === 'subscriptions/listen').length >= 4, 'listen streams');
  modern.addTool('later');
  sessions.addTool('later');
  for (const name of ['m__later', 's__later']) {
    await waitFor(async () => {
      const seen = [];
      for (let i = 0; i < 6; i++) seen.push(...of(await run(server, `[[mock tool=${name} args={}]]`), 'tool.result'));
      return seen.filter(({ output }) => output === 'later here').length === 6;
    }, `${name} everywhere`);
  }
});

test('a server that forgets its sessions is greeted anew, and the call is made once', async (t) => {
  const tools = await startSessions(t);
  const server = await startServer(t, { config: { mcp: { servers: [{ name: 'web', url: tools.url }] } } });
  await ready(server, 'web');
  for (let i = 0; i < 4; i++) {
    tools.forgetSessions();
    tools.calls.length = 0;
    const events = await run(server, '[[mock tool=web__add args={"a":1,"b":2} tool=web__add args={"a":3,"b":4}]]');
    assert.deepEqual(of(events, 'tool.result').map(({ output }) => output).sort(), ['sum 3', 'sum 7']);
    assert.equal(tools.calls.length, 2);
  }
});

test('its sessions are ended with the workers: at a reload, and at the end; one that does not answer holds nobody up', async (t) => {
  const tools = await startSessions(null);
  const server = await startServer(t, { config: { mcp: { servers: [{ name: 'web', url: tools.url }] } } });
  t.after(() => tools.stop());
  await ready(server, 'web');
  const ended = () => tools.requests.filter(({ method }) => method === 'DELETE').map(({ headers }) => headers['mcp-session-id']);
  const first = [...tools.sessions.keys()];
  assert.equal(first.length, 4);
  server.changeConfig({ mcp: { refresh: '10m' } });
  server.kill('SIGHUP');
  await server.line(/reload done/);
  await waitFor(() => ended().length === 4, 'the sessions of the old workers to be ended', 30000);
  assert.deepEqual(ended().sort(), [...first].sort());
  const others = () => [...tools.sessions.keys()].filter((id) => !first.includes(id));
  const second = await waitFor(() => others().length === 4 && others(), 'the sessions of the new workers', 30000);
  await ready(server, 'web', 8);
  assert.equal(of(await run(server, '[[mock tool=web__add args={"a":1,"b":1}]]'), 'tool.result')[0].output, 'sum 2');
  const held = [];
  tools.http.prependListener('request', (req) => { if (req.method === 'DELETE') held.push(req.headers['mcp-session-id']); });
  tools.holds_delete = true;
  await server.stop();
  await waitFor(() => held.length >= second.length, 'what was sent to be read');
  assert.deepEqual(held.sort(), [...second].sort());
});

test('one that goes is told to the model, and is there again when it comes back', async (t) => {
  const tools = await startModern(t);
  const server = await startServer(t, { config: { mcp: { backoff: '50ms', backoff_max: '100ms', servers: [{ name: 'web', url: tools.url }, { name: 'never', url: 'http://127.0.0.1:9/mcp' }] } } });
  server.expectLog(/mcp server away server=(web|never) /);
  await ready(server, 'web');
  await tools.stop();
  const away = await run(server, '[[mock tool=web__add args={"a":1,"b":2}]]');
  assert.match(of(away, 'tool.result')[0].error, /not reachable|went|broke/);
  assert.equal(away.at(-1).event, 'turn.completed');
  await tools.start();
  await waitFor(async () => {
    for (let i = 0; i < 6; i++) if (of(await run(server, '[[mock tool=web__add args={"a":1,"b":2}]]'), 'tool.result')[0]?.output !== 'sum 3') return false;
    return true;
  }, 'all workers to be connected again');
});

test('names that clash, which servers an app may use, which tools of a server', async (t) => {
  const [one, two] = [await startModern(t), await startSessions(t)];
  const server = await startServer(t, { config: {
    mcp: { prefix: false, servers: [{ name: 'one', url: one.url, tools: ['add', 'numbers'] }, { name: 'two', url: two.url }, { name: 'three', url: two.url }, { name: 'off', url: two.url, enabled: false }] },
    apps: [{ id: 'demo', name: 'Demo', org: 'demo', client_may: ['tools'], mcp_servers: ['one', 'two'] }],
  } });
  for (const name of ['one', 'two', 'three']) await ready(server, name);
  const mine = [{ type: 'function', function: { name: 'numbers', parameters: { type: 'object' } } }];
  const server_of = async (name, tools) => of(await run(server, `[[mock tool=${name} args={"a":1,"b":1}]]`, { tools }), 'tool.call')[0]?.server;
  assert.equal(await server_of('add'), 'one');
  assert.equal(await server_of('two__add'), 'two');
  assert.equal(await server_of('fail'), 'two');
  assert.equal(await server_of('one__numbers', mine), 'one');
  assert.equal(await server_of('three__add'), undefined);
  assert.equal(await server_of('off__add'), undefined);
});

test('a call goes on when the user has gone, if the turn does; else its server is told', async (t) => {
  const tools = await startModern(t);
  const server = await startServer(t, { config: { turns: { disconnect_grace: '100ms' }, mcp: { servers: [{ name: 'web', url: tools.url }] } } });
  await ready(server, 'web');
  const leave = async (on_disconnect) => {
    const { id } = await newSession(server);
    const events = await server.stream(`/v1/sessions/${id}/turns`, { key: keys.client, body: { input: '[[mock tool=web__slow args={"text":"done"}]]', stream: true, on_disconnect } });
    let turn;
    for await (const { event, data } of events) {
      if (event === 'turn.started') turn = data.turn_id;
      if (event === 'tool.call') break;
    }
    await waitFor(() => tools.waiting.length > 0, 'the call to arrive');
    events.close();
    return `/v1/sessions/${id}/turns/${turn}`;
  };
  const cancelled = await leave('cancel');
  await waitFor(() => tools.aborted === 1, 'the call to be aborted');
  assert.equal((await server.request(`${cancelled}?wait=10`, { key: keys.client })).json.state, 'cancelled');
  tools.release();
  const continued = await leave('continue');
  tools.release();
  const { json } = await server.request(`${continued}?wait=10`, { key: keys.client });
  assert.equal(json.state, 'completed');
  assert.match(json.message.content, /at last done/);
});

test('tools of servers count as hops', async (t) => {
  const tools = await startModern(t);
  const server = await startServer(t, { config: { turns: { max_tool_hops: 2 }, mcp: { servers: [{ name: 'web', url: tools.url }] } } });
  await ready(server, 'web');
  const events = await run(server, '[[mock tool=web__add args={"a":1,"b":2} hops=9]]');
  assert.equal(events.at(-1).data.finish_reason, 'tool_limit_reached');
  assert.equal(tools.calls.length, 2);
});
