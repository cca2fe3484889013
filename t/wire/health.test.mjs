// The ops routes of a server that has just started, on all of its workers.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { startServer } from './lib/server.mjs';
import { parseMetrics } from './lib/metrics.mjs';
import { waitFor } from './lib/wait.mjs';

let server;
before(async () => { server = await startServer(null, { config: { log: { access: true } } }); });
after(() => server?.stop());

test('/health says ok and counts the workers', async () => {
  const { status, json } = await server.request('/health');
  assert.equal(status, 200);
  assert.match(json.status, /^(ok|degraded)$/);
  assert.deepEqual((await server.request('/health-check')).json.workers, json.workers);
});

test('/health/live, /health/ready and / answer', async () => {
  for (const route of ['/health/live', '/health/ready', '/']) {
    const { status, headers } = await server.request(route);
    assert.equal(status, 200, route);
    assert.ok(headers['x-request-id'], route);
  }
});

test('fresh connections reach all four workers', async () => {
  const reached = () => new Set(server.lines.map((line) => /ACCESS .* worker=(\d)/.exec(line)?.[1]).filter(Boolean));
  await waitFor(async () => {
    await server.request('/health/live');
    return reached().size === 4;
  }, 'request on every worker');
});

test('/metrics passes a Prometheus parser and knows the whole host', async () => {
  const { status, headers, text } = await server.request('/metrics');
  assert.equal(status, 200);
  assert.match(headers['content-type'], /^text\/plain/);
  const families = parseMetrics(text);
  for (const name of ['parley_build_info', 'parley_connections', 'parley_connections_max', 'parley_http_requests_total']) {
    assert.ok(families[name], name);
  }
});

test('an unknown route is 404 in the error shape', async () => {
  const { status, json, headers } = await server.request('/nowhere');
  assert.equal(status, 404);
  assert.equal(json.error.type, 'not_found');
  assert.equal(json.request_id, headers['x-request-id']);
});
