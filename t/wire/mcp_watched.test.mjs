// Tool servers as operators see them, in /health and /metrics; and programs that hang: found out, ended, started again, so many
// times in an hour. 4 workers.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseMetrics, sumOf } from './lib/metrics.mjs';
import { startModern } from './lib/mcp.mjs';
import { call, gives, hostile, is_alive, ready, sdk, start } from './lib/programs.mjs';
import { keys } from './lib/server.mjs';
import { waitFor } from './lib/wait.mjs';

const health = async (server) => (await server.request('/health')).json.checks.mcp;
const metrics = async (server) => parseMetrics((await server.request('/metrics')).text);
const rpc = (server, method, params, id = 1) => server.request('/mcp', {
  key: keys.server, limit_ms: 30000,
  headers: { accept: 'application/json, text/event-stream', 'mcp-protocol-version': '2026-07-28', 'mcp-method': method, ...(params.name && { 'mcp-name': params.name }) },
  body: { jsonrpc: '2.0', id, method, params: { ...params, _meta: { 'io.modelcontextprotocol/protocolVersion': '2026-07-28', 'io.modelcontextprotocol/clientCapabilities': {}, ...params._meta } } },
});
const started = (server, name) => server.lines.filter((line) => line.includes(`mcp server started server=${name} `)).length;

test('health and metrics tell of each tool server: up, calls by outcome, time', async (t) => {
  const web = await startModern(null);
  const server = await start(t, [{ name: 'web', url: web.url }, sdk('good', 'legacy'), { name: 'off', url: web.url, enabled: false }], { tools: { server_timeout: '3s' } });
  t.after(() => web.stop());
  for (const name of ['web', 'good']) await ready(server, name);
  const well = await health(server);
  assert.equal(well.status, 'ok');
  assert.deepEqual(Object.keys(well.servers), ['web', 'good']);
  assert.deepEqual(well.servers.web, { state: 'ready', workers_without: 0, revision: '2026-07-28', tools: 5 });
  for (let i = 0; i < 8; i++) {
    assert.equal((await rpc(server, 'tools/call', { name: 'good__add', arguments: { a: 1, b: i } })).json.result.content[0].text, `sum ${1 + i}`);
    assert.equal(await call(server, 'web__add', { a: 1, b: i }), `sum ${1 + i}`);
  }
  assert.equal((await rpc(server, 'tools/call', { name: 'web__slow', arguments: {} })).json.result.isError, true);
  web.release();
  const now = await metrics(server);
  const calls = (name, outcome) => sumOf(now, 'parley_mcp_calls_total', { server: name, outcome });
  assert.deepEqual([calls('web', 'ok'), calls('good', 'ok'), calls('web', 'timeout')], [8, 8, 1]);
  assert.equal(sumOf(now, 'parley_mcp_server_up', { server: 'web' }), 1);
  assert.equal(sumOf(now, 'parley_mcp_calls'), 0);
  const text = (await server.request('/metrics')).text;
  assert.match(text, /^parley_mcp_call_seconds_count\{server="good"\} 8$/m);

  server.expectLog(/mcp (server away|list not read) server=web/);
  await web.stop();
  await waitFor(async () => (await health(server)).servers.web.workers_without === 4, 'all workers to see that it is away', 30000);
  const ill = await health(server);
  assert.deepEqual([ill.status, ill.servers.good.state], ['degraded', 'ready']);
  assert.equal(sumOf(await metrics(server), 'parley_mcp_server_up', { server: 'web' }), 0);
  assert.equal((await rpc(server, 'tools/call', { name: 'web__add', arguments: { a: 1, b: 1 } })).json.result.isError, true);
  assert.equal(sumOf(await metrics(server), 'parley_mcp_calls_total', { server: 'web', outcome: 'away' }), 1);
  await web.start();
  await waitFor(async () => (await health(server)).status === 'ok', 'it to be well again', 30000);
});

for (const era of ['legacy', 'modern']) {
  test(`${era}: a program that hangs is ended and started again, whoever called it; the one beside it goes on`, async (t) => {
    const server = await start(t, [sdk('tools', era, { probe_timeout: '1s' }), sdk('good', era)], { tools: { server_timeout: '2s' } });
    server.expectLog(/mcp server (hangs|away) server=tools/);
    for (const name of ['tools', 'good']) await ready(server, name);
    const where = JSON.parse(await call(server, 'good__where')).pid;
    const { pid } = JSON.parse(await call(server, 'tools__where'));
    assert.match(await call(server, 'tools__hang'), /did not answer in time/);
    for (let i = 0; i < 4; i++) assert.equal(await call(server, 'good__add', { a: i, b: 1 }), `sum ${i + 1}`);
    await waitFor(() => !is_alive(pid), 'it to be ended', 30000);
    await gives(server, 'tools__add', { a: 1, b: 1 }, 'sum 2');
    assert.equal(JSON.parse(await call(server, 'good__where')).pid, where);
    assert.equal(sumOf(await metrics(server), 'parley_mcp_restarts_total', { server: 'tools', reason: 'hung' }), 1);
  });
}

test('one that is only slow is left alone: it answers what asks whether it lives', async (t) => {
  const server = await start(t, [sdk('tools', 'legacy', { probe_timeout: '10s' })], { tools: { server_timeout: '300ms' } });
  await ready(server, 'tools');
  for (let i = 0; i < 4; i++) assert.match(await call(server, 'tools__slow', { file: `${server.dir}/never` }), /did not answer in time/);
  await gives(server, 'tools__add', { a: 1, b: 1 }, 'sum 2');
  assert.equal(started(server, 'tools'), 1);
});

test('restarts have a limit: of one that never answers, and of one that ends at once', async (t) => {
  const server = await start(t, [hostile('mute', { probe_timeout: '200ms', connect_timeout: '300ms', max_restarts: 2 }), hostile('crash', { connect_timeout: '300ms', max_restarts: 3 }), sdk('good', 'modern')]);
  server.expectLog(/mcp server (away|hangs|ended|restarted too often) server=(mute|crash)/);
  await ready(server, 'good');
  for (const [name, count] of [['mute', 2], ['crash', 3]]) {
    await server.line(new RegExp(`mcp server restarted too often server=${name} max=${count}`), 60000);
    assert.equal(started(server, name), count + 1, name);
  }
  const now = await metrics(server);
  assert.equal(sumOf(now, 'parley_mcp_restarts_total', { server: 'mute', reason: 'hung' }), 2);
  assert.equal(sumOf(now, 'parley_mcp_restarts_total', { server: 'crash', reason: 'ended' }), 3);
  assert.equal(await call(server, 'good__add', { a: 1, b: 1 }), 'sum 2');
});
