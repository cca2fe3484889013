// Webhooks: signed so that others can verify, at least once, in order, again when they fail, dead letters in the end; and one
// endpoint that fails in every way delays no other.
import assert from 'node:assert/strict';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { Webhook } from 'standardwebhooks';
import { parseMetrics, sumOf } from './lib/metrics.mjs';
import { freePort } from './lib/port.mjs';
import { how, startReceiver } from './lib/receiver.mjs';
import { change } from './lib/record.mjs';
import { keys, newSession, startServer, streamTurn } from './lib/server.mjs';
import { certificate } from './lib/tls.mjs';
import { waitFor } from './lib/wait.mjs';

const key = keys.admin;
const secret = `whsec_${Buffer.from('a secret of thirty-two bytes, so').toString('base64')}`;
const base = '/admin/v1/webhooks';

/** endpoints: {name: receiver or {url, ..}}; quick: everything that waits waits less. */
async function startHooks(t, endpoints, { webhooks = {}, ...options } = {}) {
  const list = Object.entries(endpoints).map(([name, one]) => ({ name, url: one.url, secret, ...(one.got ? {} : one) }));
  return startServer(t, {
    mock: false, ...options,
    config: { ...options.config, webhooks: { allow_private: true, backoff: '50ms', timeout: '5s', endpoints: list, ...webhooks } },
  });
}

const send = async (server, body) => {
  const { status, json, text } = await server.request(`${base}/test`, { key, body });
  assert.equal(status, 202, text);
  return json;
};
const deliveries = async (server, query = '') => (await server.request(`${base}/deliveries?limit=1000&${query}`, { key })).json.data;
const delivery = async (server, id) => (await server.request(`${base}/deliveries/${id}`, { key })).json;
const endpoint = async (server, id) => (await server.request(`${base}/endpoints`, { key })).json.data.find((one) => one.id === id);
const ended = (server, id, limit_ms = 15000) => waitFor(async () => {
  const one = await delivery(server, id);
  return one.state !== 'pending' && one;
}, `end of ${id}`, limit_ms);

test('a delivery is signed, has a stable id, and can be looked at', async (t) => {
  const receiver = await startReceiver(t, { secret });
  const server = await startHooks(t, { a: { url: receiver.url, headers: { 'X-Mine': 'yes' } } });
  const { id, endpoint: to } = await send(server, { endpoint: 'conf:a' });
  assert.equal(to, 'conf:a');
  const one = await ended(server, id);
  assert.equal(one.state, 'delivered');
  assert.equal(one.attempts, 1);
  assert.deepEqual([one.last.status, one.last.response, one.last.error], [200, 'ok', null]);
  const [got] = receiver.got;
  assert.equal(got.id, id);
  assert.ok(got.is_signed, 'standardwebhooks verifies it');
  assert.equal(got.headers['x-mine'], 'yes');
  assert.equal(got.headers['content-type'], 'application/json');
  assert.equal(got.json.type, 'webhook.test');
  assert.deepEqual(one.payload, got.json);
  const { breaker, statistics, last, url } = await endpoint(server, 'conf:a');
  assert.deepEqual([breaker.state, statistics.delivered, last.status, url], ['closed', 1, 200, receiver.url]);
  assert.ok(!JSON.stringify(await endpoint(server, 'conf:a')).includes('whsec'), 'no secret is shown');
  const families = parseMetrics((await server.request('/metrics')).text);
  assert.equal(sumOf(families, 'parley_webhooks_total', { outcome: 'delivered' }), 1);
});

test('a retry is in time, however many other endpoints wait', async (t) => {
  const receiver = await startReceiver(t, { secret });
  const server = await startHooks(t, { a: receiver }, { webhooks: { poll: '1h', backoff: '500ms', breaker: { failures: 0 } }, config: { workers: 1 } });
  server.expectLog(/webhook endpoint not usable|store write waits /); // who writes beside it may hold its writer up
  if (!server.config.store.url.startsWith('sqlite:')) return; // the rows are made by hand; what looks for them is the same
  // A look reads a thousand endpoints: these are more, behind that of the configuration, and due in an hour.
  const many = 'WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1100)', now = Date.now();
  change(server, `${many} INSERT INTO webhook_endpoints (id, app_id, url, batch, failures, delivered, failed, dead, created_at, used_at)
    SELECT printf('whe_%05d', i), 'demo', 'http://127.0.0.1:9/', 1, 0, 0, 0, 0, ${now}, ${now} FROM n;
    ${many} INSERT INTO webhooks (id, endpoint_id, app_id, order_key, position, event, body, state, attempts, claim, due_at, created_at)
    SELECT printf('wh_z%05d', i), printf('whe_%05d', i), 'demo', printf('o%d', i), 1, 'webhook.test', '{}', 'pending', 0, 0, ${now + 3600000}, ${now} FROM n`);
  receiver.respond = how.status(500);
  const { id } = await send(server, { endpoint: 'conf:a' });
  await waitFor(() => receiver.ids().length === 1, 'the first attempt', 30000);
  receiver.respond = (request, response) => response.end();
  const one = await ended(server, id, 30000);
  assert.deepEqual([one.state, one.attempts, receiver.ids().length], ['delivered', 2, 2]);
});

test('while secrets change both sign', async (t) => {
  const old = 'any text may be a secret';
  const receiver = await startReceiver(t, { secrets: [secret, old] });
  const server = await startHooks(t, { a: { url: receiver.url, old_secret: old } });
  await ended(server, (await send(server, { endpoint: 'conf:a' })).id);
  assert.equal(receiver.got[0].headers['webhook-signature'].split(' ').length, 2);
  assert.ok(receiver.got[0].is_signed, 'by either');
  assert.throws(() => new Webhook('another', { format: 'raw' }).verify(receiver.got[0].body, receiver.got[0].headers));
});

test('one that a task would name: signed, with its headers; nothing that is secret is shown', async (t) => {
  const receiver = await startReceiver(t, { secret });
  for (const encryption_key of ['', 'k'.repeat(32)]) {
    const server = await startHooks(t, {}, { webhooks: { encryption_key } });
    receiver.got.length = 0;
    const body = { url: receiver.url, app_id: 'demo', secret, headers: { authorization: 'Bearer their-token' } };
    const { id, endpoint: to } = await send(server, body);
    assert.match(to, /^whe_/);
    assert.equal((await send(server, body)).endpoint, to, 'the same is the same');
    assert.equal((await ended(server, id)).state, 'delivered');
    assert.ok(receiver.got[0].is_signed);
    assert.equal(receiver.got[0].headers.authorization, 'Bearer their-token');
    const shown = JSON.stringify([await endpoint(server, to), await deliveries(server)]) + server.output();
    assert.ok(!/their-token|whsec_/.test(shown));
    if (encryption_key && server.config.store.url.startsWith('sqlite:')) {
      const file = server.config.store.url.slice('sqlite:'.length);
      const bytes = [file, `${file}-wal`].filter(fs.existsSync).map((name) => fs.readFileSync(name, 'latin1')).join('');
      assert.ok(!/their-token|whsec_/.test(bytes), 'nor is it in the record');
    }
    // An app sees its own, and no other's.
    const own = await server.request(`/v1/webhooks/deliveries/${id}`, { key: keys.server });
    assert.equal(own.json.id, id);
    assert.ok((await server.request('/v1/webhooks/deliveries', { key: keys.server })).json.data.length >= 1);
    const other = await send(server, { ...body, app_id: 'other' });
    assert.equal((await server.request(`/v1/webhooks/deliveries/${other.id}`, { key: keys.server })).status, 404);
    await waitFor(async () => (await deliveries(server, 'state=pending')).length === 0, 'an empty outbox');
    await server.stop();
  }
});

test('what fails is sent again under its id, then it is a dead letter, and can be sent again', async (t) => {
  const receiver = await startReceiver(t, { secret });
  const server = await startHooks(t, { a: receiver }, { webhooks: { breaker: { failures: 0 } } });
  receiver.respond = how.status(500);
  const { id } = await send(server, { endpoint: 'conf:a' });
  const dead = await ended(server, id);
  assert.deepEqual([dead.state, dead.attempts, dead.last.status, dead.last.error, dead.last.response], ['dead', 4, 500, 'status', 'status 500']);
  assert.deepEqual(receiver.ids(), [id, id, id, id]);
  assert.ok(receiver.got.every(({ is_signed }) => is_signed));
  // 50, 100, 200 ms and up to a quarter more: never sooner.
  const gaps = receiver.got.slice(1).map(({ at }, i) => at - receiver.got[i].at);
  for (const [i, least] of [50, 100, 200].entries()) assert.ok(gaps[i] >= least - 2, `${gaps}`);
  assert.deepEqual((await deliveries(server, 'state=dead')).map((one) => one.id), [id]);
  receiver.respond = (request, response) => response.end();
  assert.equal((await server.request(`${base}/deliveries/${id}/resend`, { key, body: {} })).status, 200);
  const again = await ended(server, id);
  assert.deepEqual([again.state, again.attempts], ['delivered', 1]);
  receiver.respond = how.status(500);
  const more = await send(server, { endpoint: 'conf:a', count: 3 });
  await waitFor(async () => (await deliveries(server, 'state=dead')).length === 3, 'three dead ones', 20000);
  receiver.respond = (request, response) => response.end();
  assert.equal((await server.request(`${base}/endpoints/${more.endpoint}/resend`, { key, body: {} })).json.resent, 3);
  await waitFor(async () => (await deliveries(server, 'state=delivered')).length === 4, 'all delivered');
  for (const [route, status] of [[`deliveries/${id.slice(0, -3)}000/resend`, 404], ['endpoints/conf:none/enable', 404]]) {
    assert.equal((await server.request(`${base}/${route}`, { key, body: {} })).status, status, route);
  }
});

test('a receiver that fails in every way', async (t) => {
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'parley-hooks-'));
  t.after(() => fs.rmSync(dir, { recursive: true }));
  const files = certificate(dir, 'hooks');
  const tls = { cert: fs.readFileSync(files.certificate), key: fs.readFileSync(files.key) };
  const ways = {
    refuses: null, resets: how.reset, hangs: how.hang, drips: how.drip, garbage: how.garbage, cuts: how.cut,
    redirects: how.status(302, { location: 'http://127.0.0.1:9/' }), unavailable: how.status(503), huge: how.flood(500),
  };
  const receivers = {}, good = await startReceiver(t, { secret });
  for (const [name, respond] of Object.entries(ways)) {
    if (respond) (receivers[name] = await startReceiver(t)).respond = respond;
    else receivers[name] = { url: `http://127.0.0.1:${await freePort()}/` };
  }
  const untrusted = receivers.untrusted = await startReceiver(t, { tls });
  const server = await startHooks(t, { good, ...receivers }, { webhooks: { max_retries: 1, timeout: '1s', breaker: { failures: 0 } } });
  const ids = {};
  for (const name of Object.keys(receivers)) ids[name] = (await send(server, { endpoint: `conf:${name}` })).id;
  const { id } = await send(server, { endpoint: 'conf:good' });
  assert.equal((await ended(server, id)).state, 'delivered', 'while the others fail');
  const errors = {
    refuses: /connect_failed/, resets: /broken/, hangs: /timeout/, drips: /timeout/, garbage: /broken/, cuts: /broken/,
    redirects: /redirect_not_followed/, unavailable: /status/, huge: /status/, untrusted: /connect_failed/,
  };
  for (const [name, regex] of Object.entries(errors)) {
    const one = await ended(server, ids[name]);
    assert.equal(one.state, 'dead', name);
    assert.equal(one.attempts, 2, name);
    assert.match(one.last.error, regex, name);
  }
  assert.equal((await delivery(server, ids.huge)).last.response.length, 1024, 'so much is kept of it');
  assert.equal(untrusted.got.length, 0, 'nothing is sent to whom one does not know');
  assert.deepEqual((await delivery(server, ids.redirects)).last.status, 302);
});

test('an endless answer that says 200 is a success, and held to no end', async (t) => {
  const receiver = await startReceiver(t);
  receiver.respond = how.flood(200);
  const server = await startHooks(t, { a: receiver }, { webhooks: { timeout: '20s' } });
  const one = await ended(server, (await send(server, { endpoint: 'conf:a' })).id);
  assert.equal(one.state, 'delivered');
  assert.ok(one.last.total_ms < 19000);
});

test('410 disables the endpoint, the admin enables it', async (t) => {
  const receiver = await startReceiver(t);
  receiver.respond = how.status(410);
  const server = await startHooks(t, { a: receiver }, { webhooks: { sweep_interval: '100ms' } });
  const { id } = await send(server, { endpoint: 'conf:a' });
  const one = await ended(server, id);
  assert.deepEqual([one.state, one.attempts, one.last.error], ['dead', 1, 'gone']);
  assert.ok((await endpoint(server, 'conf:a')).disabled_at);
  const next = await ended(server, (await send(server, { endpoint: 'conf:a' })).id, 30000);
  assert.deepEqual([next.state, next.last.error, receiver.got.length], ['dead', 'endpoint_disabled', 1]);
  receiver.respond = (request, response) => response.end();
  await server.request(`${base}/endpoints/conf:a/enable`, { key, body: {} });
  assert.equal((await endpoint(server, 'conf:a')).disabled_at, null);
  await server.request(`${base}/deliveries/${next.id}/resend`, { key, body: {} });
  assert.equal((await ended(server, next.id)).state, 'delivered');
});

test('Retry-After is honoured', async (t) => {
  const receiver = await startReceiver(t);
  let times = 0;
  receiver.respond = (request, response) => (times++ ? response.end() : how.status(429, { 'retry-after': '1' })(request, response));
  const server = await startHooks(t, { a: receiver });
  assert.equal((await ended(server, (await send(server, { endpoint: 'conf:a' })).id)).state, 'delivered');
  assert.ok(receiver.got[1].at - receiver.got[0].at >= 990);
});

test('the breaker: open, no attempt is used up; one tries; shared by the workers', async (t) => {
  const receiver = await startReceiver(t);
  receiver.respond = how.status(500);
  const server = await startHooks(t, { a: receiver }, { webhooks: { connections: 1, breaker: { failures: 3, recovery: '1s' }, max_retries: 20 } });
  await send(server, { endpoint: 'conf:a', count: 50 });
  await waitFor(async () => (await endpoint(server, 'conf:a')).breaker.state === 'open', 'an open breaker');
  const before = receiver.got.length;
  assert.ok(before >= 3 && before <= 3 * 4 + 4, `${before} attempts, one connection in each of 4 workers`);
  const tried = (await deliveries(server)).reduce((sum, one) => sum + one.attempts, 0);
  assert.ok(tried <= receiver.got.length, 'only what was sent counts');
  await waitFor(() => receiver.got.length > before, 'one that tries');
  receiver.respond = (request, response) => response.end();
  await waitFor(async () => (await deliveries(server, 'state=delivered')).length === 50, 'all of them', 20000);
  assert.equal((await endpoint(server, 'conf:a')).breaker.state, 'closed');
});

test('in order for each endpoint and task, also when some fail', async (t) => {
  const receiver = await startReceiver(t);
  const seen = new Set();
  // Every third fails the first time.
  receiver.respond = (request, response, { id, json }) => {
    const fails = json.data.number % 3 === 0 && !seen.has(id);
    seen.add(id);
    response.writeHead(fails ? 500 : 200).end();
  };
  const server = await startHooks(t, { a: receiver }, { webhooks: { backoff: '20ms', breaker: { failures: 0 } } });
  await send(server, { endpoint: 'conf:a', count: 100, streams: 10 });
  await waitFor(async () => (await deliveries(server, 'state=delivered')).length === 100, 'all delivered', 30000);
  const last = {};
  for (const { json: { data } } of receiver.got) {
    const before = last[data.stream] ?? -1;
    assert.ok(data.number >= before, `stream ${data.stream}: ${data.number} after ${before}`);
    last[data.stream] = data.number;
  }
  assert.equal(new Set(receiver.ids()).size, 100);
});

test('one slow endpoint, and one dead, delay no other', async (t) => {
  const good = await startReceiver(t), slow = await startReceiver(t);
  slow.respond = how.hang;
  const dead = { url: `http://127.0.0.1:${await freePort()}/` };
  const server = await startHooks(t, { good, slow, dead }, { webhooks: { timeout: '5s', connections: 4 } });
  for (const name of ['slow', 'dead']) await send(server, { endpoint: `conf:${name}`, count: 1000 });
  const started = Date.now();
  await send(server, { endpoint: 'conf:good', count: 200 });
  await waitFor(() => good.got.length >= 200, '200 deliveries', 5000);
  t.diagnostic(`200 deliveries beside a slow and a dead endpoint took ${Date.now() - started} ms`);
  assert.ok(slow.most <= 4, `${slow.most} at once, of 4`);
});

test('connections are kept, and no more than allowed', async (t) => {
  const receiver = await startReceiver(t);
  receiver.respond = (request, response) => setTimeout(() => response.end(), 5);
  const server = await startHooks(t, { a: receiver }, { webhooks: { connections: 8 } });
  await send(server, { endpoint: 'conf:a', count: 400 });
  await waitFor(() => receiver.got.length >= 400, 'all of them', 20000);
  assert.ok(receiver.most <= 8, `${receiver.most} at once`);
  assert.ok(receiver.connections <= 8, `${receiver.connections} connections for 400 webhooks`);
});

test('several in one request, where the endpoint takes them', async (t) => {
  const receiver = await startReceiver(t, { secret });
  const server = await startHooks(t, { a: { url: receiver.url, batch: 25 } });
  await send(server, { endpoint: 'conf:a', count: 100 });
  await waitFor(async () => (await deliveries(server, 'state=delivered')).length === 100, 'all delivered');
  assert.ok(receiver.got.length < 50, `${receiver.got.length} requests`);
  const ids = receiver.got.flatMap(({ json, is_signed }) => {
    assert.ok(is_signed);
    assert.equal(json.type, 'webhook.batch');
    return json.webhooks.map(({ id, payload }) => {
      assert.equal(payload.type, 'webhook.test');
      return id;
    });
  });
  assert.equal(new Set(ids).size, 100);
  assert.deepEqual([...new Set(ids)].sort(), (await deliveries(server)).map(({ id }) => id).sort());
});

test('the inside is not reached: by address, by name, by another spelling', async (t) => {
  const receiver = await startReceiver(t);
  const { port } = receiver;
  const server = await startHooks(t, { a: receiver, name: { url: `http://localhost:${port}/` } }, { webhooks: { allow_private: false } });
  const urls = ['http://127.0.0.1', 'http://localhost', 'http://[::1]', 'http://[::ffff:127.0.0.1]', 'http://0.0.0.0', 'http://2130706433', 'http://0x7f.1',
    'http://169.254.169.254', 'http://10.0.0.1', 'http://192.168.1.1', 'http://100.64.0.1', 'http://[fe80::1]', 'http://[fd00::1]', 'http://224.0.0.1',
    'http://[64:ff9b::7f00:1]'];
  const ids = [];
  for (const url of urls) ids.push((await send(server, { url: `${url}:${port}/`, app_id: 'demo' })).id);
  for (const name of ['conf:a', 'conf:name']) ids.push((await send(server, { endpoint: name })).id);
  for (const [i, id] of ids.entries()) {
    const one = await ended(server, id);
    assert.deepEqual([one.state, one.attempts], ['dead', 1], urls[i]);
    assert.match(one.last.error, /refused_address/, urls[i]);
  }
  assert.equal(receiver.connections, 0);
  for (const [url, field] of [['ftp://example.com/', 'url'], ['http://user:pass@example.com/', 'url'], ['http://example.com:25/', 'url'], ['file:///etc/passwd', 'url'], ['x', 'url']]) {
    const { status, json } = await server.request(`${base}/test`, { key, body: { url, app_id: 'demo' } });
    assert.deepEqual([status, json.error.param], [422, field], url);
  }
  for (const headers of [{ 'webhook-id': 'x' }, { 'a b': 'x' }, { a: 'x\r\ny: z' }]) {
    const { status, json } = await server.request(`${base}/test`, { key, body: { url: 'http://example.com/', app_id: 'demo', headers } });
    assert.deepEqual([status, json.error.param], [422, 'headers']);
  }
  assert.equal((await server.request(`${base}/test`, { key: keys.server, body: { endpoint: 'conf:a' } })).status, 403);
});

test('what is over is removed, what is too old is a dead letter', async (t) => {
  const receiver = await startReceiver(t);
  const dead = { url: `http://127.0.0.1:${await freePort()}/` };
  const server = await startHooks(t, { a: receiver, dead }, {
    webhooks: { sweep_interval: '100ms', retention: '2s', max_age: '2s', dead_retention: '4s', breaker: { failures: 1, recovery: '1h' } },
  });
  const { id } = await send(server, { endpoint: 'conf:a' });
  assert.equal((await ended(server, id)).state, 'delivered');
  await send(server, { endpoint: 'conf:dead', count: 3 });
  const old = await waitFor(async () => {
    const rows = await deliveries(server, 'state=dead');
    return rows.length === 3 && rows;
  }, 'three that are too old', 15000);
  assert.ok(old.every(({ last, endpoint: to }) => to === 'conf:dead' && last.error === 'expired'), JSON.stringify(old));
  await waitFor(async () => (await deliveries(server)).length === 0, 'an empty table', 20000);
  const families = parseMetrics((await server.request('/metrics')).text);
  assert.equal(sumOf(families, 'parley_webhooks_held'), 0);
  assert.equal(sumOf(families, 'parley_webhooks_pending'), 0);
});

test('the ends of turns are told, in the order of their session', async (t) => {
  const all = await startReceiver(t, { secret }), failures = await startReceiver(t), others = await startReceiver(t);
  const server = await startHooks(t, {
    all: { url: all.url }, failures: { url: failures.url, events: ['turn.failed'] }, others: { url: others.url, apps: ['another'] },
  }, { mock: undefined });
  const sessions = [await newSession(server), await newSession(server)];
  for (let i = 0; i < 5; i++) await Promise.all(sessions.map(({ id }) => streamTurn(server, id, { input: `turn ${i}` })));
  server.expectLog(/./);
  await waitFor(() => all.got.length >= 10, 'ten webhooks');
  for (const { id } of sessions) {
    const told = all.got.filter(({ json }) => json.data.session_id === id);
    assert.equal(told.length, 5);
    const turns = told.map(({ json }) => json.data.turn_id);
    assert.deepEqual(turns, [...turns].sort(), 'in order');
    for (const { json, is_signed } of told) {
      assert.ok(is_signed);
      assert.equal(json.type, 'turn.completed');
      assert.equal(json.data.app_id, 'demo');
      assert.ok(json.data.message.content.length > 0 && json.data.usage.output_tokens > 0, JSON.stringify(json));
    }
  }
  await server.mock.stop();
  const { json } = await server.request(`/v1/sessions/${sessions[0].id}/turns`, { key: keys.client, body: { input: 'x', stream: false } });
  assert.ok(json.error);
  await waitFor(() => failures.got.length === 1 && all.got.length === 11, 'the failure');
  const [{ json: told }] = failures.got;
  assert.equal(told.type, 'turn.failed');
  assert.equal(told.data.session_id, sessions[0].id);
  assert.ok(told.data.error.code, JSON.stringify(told));
  assert.equal(others.got.length, 0);
  // Five, and the failure twice.
  await waitFor(async () => (await deliveries(server, `about=${sessions[0].id}&state=delivered`)).length === 7, 'seven about one session');
});

test('what becomes of deliveries is an event for the app whose they are', async (t) => {
  const receiver = await startReceiver(t);
  receiver.respond = (request, response, { id }) => response.writeHead(receiver.ids().filter((one) => one === id).length > 1 ? 200 : 500).end();
  const server = await startHooks(t, {});
  const stream = await server.stream('/v1/events?topics=webhooks', { key: keys.server });
  assert.equal(stream.status, 200, stream.text);
  const told = [];
  let is_ready = false;
  const all = (async () => {
    for await (const event of stream) {
      is_ready = true;
      if (event.event.startsWith('webhook.')) told.push(event);
      if (told.length === 5) break;
    }
  })();
  await waitFor(() => is_ready, 'the beginning');
  const { id } = await send(server, { url: receiver.url, app_id: 'demo' });
  await send(server, { url: receiver.url, app_id: 'another' });
  await ended(server, id);
  await waitFor(() => told.length === 5, 'five events');
  await all;
  stream.close();
  assert.deepEqual(told.map(({ event }) => event).sort(), ['webhook.attempted', 'webhook.attempted', 'webhook.failed', 'webhook.retry_scheduled', 'webhook.succeeded']);
});
