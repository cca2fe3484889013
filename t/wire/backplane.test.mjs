// The backplane: two hosts with one record and one Redis act as one; and what becomes of a host whose Redis fails.
import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { execFile, execFileSync } from 'node:child_process';
import path from 'node:path';
import { promisify } from 'node:util';
import { after, before, test } from 'node:test';
import { backplane, isAlone, isTold, isUp, outages } from './lib/hosts.mjs';
import { collect } from './lib/http.mjs';
import { parseMetrics, sumOf } from './lib/metrics.mjs';
import { freePort } from './lib/port.mjs';
import { build } from './lib/process.mjs';
import { sharedPostgres, startPostgres } from './lib/postgres.mjs';
import { startRedis } from './lib/redis.mjs';
import { is_last_event, keys, newSession, plainProvider, startMock, startServer, streamTurn } from './lib/server.mjs';
import { certificate } from './lib/tls.mjs';
import { waitFor } from './lib/wait.mjs';
import { openChat, text_of } from './lib/ws.mjs';

const tools = ['weather', 'clock'].map((name) => ({ type: 'function', function: { name, description: name, parameters: { type: 'object' } } }));
const limited_key = 'pc_test_limited_key_0123456789abcdef';
// What is counted exactly, and asked of the other host, is so while everybody answers in time, also on a machine that has much else to do.
const patient = { command_timeout: '5s', call_timeout: '5s' };
let redis, mock, hosts;

async function startHost(t, config, mine = mock) {
  const host = await startServer(t, { mock: mine, config });
  return host;
}

/** A turn that has begun: its id, and its stream. */
async function beginTurn(host, id, body) {
  const events = await host.stream(`/v1/sessions/${id}/turns`, { key: keys.client, body: { stream: true, ...body } });
  assert.equal(events.status, 200, events.text);
  return { turn: events.headers['x-parley-turn'], events };
}

/** Keys of the default config, and a client key with a limit. */
const keys_with = (limit, window = '60s') => [
  { kind: 'client', app: 'demo', secret: keys.client, rate: { limit: 0, window: '60s' } },
  { kind: 'server', app: 'demo', secret: keys.server },
  { kind: 'admin', secret: keys.admin },
  { kind: 'client', app: 'demo', secret: limited_key, rate: { limit, window } },
];

/** Both hosts may do what the sample of an account allows, and no more. */
function accountFile(dir) {
  const file = path.join(dir, 'users.acl');
  writeFileSync(file, readFileSync(new URL('../../etc/redis.acl', import.meta.url), 'utf8').replaceAll('parley:*', 'two:*'));
  return ['--aclfile', file];
}

before(async () => {
  [redis, mock] = await Promise.all([startRedis(null, accountFile), startMock(null)]);
  const url = await (await sharedPostgres()).newDatabase();
  hosts = [];
  for (let i = 0; i < 2; i++) {
    hosts.push(await startHost(null, {
      backplane: { url: redis.url.replace('//', '//parley:change-me@'), key_prefix: 'two:', ...patient }, store: { url, pool_size: 2 }, keys: keys_with(50),
    }));
  }
  await Promise.all(hosts.map(isUp));
});
after(async () => {
  for (const host of hosts ?? []) await host.stop();
  await redis?.stop();
  await mock?.stop();
});

// ---- two hosts ----

test('every worker of both hosts is registered, and a scrape says that it is up', async () => {
  await waitFor(async () => (await redis.command('ZCARD', 'two:workers')) === '8', 'eight workers in the registry');
  for (const host of hosts) {
    assert.equal(sumOf(parseMetrics((await host.request('/metrics')).text), 'parley_backplane_up'), 1);
    await waitFor(async () => sumOf(parseMetrics((await host.request('/metrics')).text), 'parley_backplane_connections') === 8, 'two connections of each worker');
  }
});

test('a turn is followed from the other host, live and from where a reader was', async () => {
  const [a, b] = hosts;
  for (let i = 0; i < 6; i++) {
    const { id } = await newSession(a);
    const { turn, events } = await beginTurn(a, id, { input: 'go [[mock tokens=40 interval=10]]' });
    const far = await b.stream(`/v1/sessions/${id}/turns/${turn}/events`, { key: keys.client });
    assert.equal(far.status, 200, far.text);
    const [here, seen] = await Promise.all([collect(events, is_last_event), collect(far, is_last_event)]);
    assert.equal(here.at(-1).event, 'turn.completed');
    assert.equal(seen.at(-1).id, here.at(-1).id);
    assert.deepEqual(seen.at(-1).data, here.at(-1).data);
    const again = await b.stream(`/v1/sessions/${id}/turns/${turn}/events`, { key: keys.client, headers: { 'last-event-id': here.at(-3).id } });
    assert.deepEqual((await collect(again, is_last_event)).map((e) => e.id), here.slice(-2).map((e) => e.id));
  }
});

test('tool results arrive at the other host; twice counts once', async () => {
  const [a, b] = hosts;
  const post = (id, body) => b.request(`/v1/sessions/${id}/tool-results`, { key: keys.client, body });
  for (let i = 0; i < 8; i++) {
    const { id } = await newSession(a);
    const { events } = await beginTurn(a, id, { input: '[[mock tool=weather args={} tool=clock args={}]]', tools });
    const calls = [];
    const seen = await collect((async function* answering() {
      for await (const event of events) {
        yield event;
        if (event.event === 'tool.call' && calls.push(event.data.tool_call_id) === 2) {
          const answers = await Promise.all([1, 2].map(() => post(id, { tool_call_id: calls[0], output: `weather of ${i}` })));
          assert.deepEqual(answers.map((r) => r.status).sort(), [202, 409], answers.map((r) => r.text).join());
          assert.equal((await post(id, { tool_call_id: calls[1], output: 'late' })).status, 202);
        }
      }
    })(), is_last_event);
    assert.equal(seen.at(-1).event, 'turn.completed');
    assert.match(seen.at(-1).data.message.content, new RegExp(`weather of ${i}.*late`));
  }
});

test('a cancel from the other host ends the turn', async () => {
  const [a, b] = hosts;
  const { id } = await newSession(a);
  const { turn, events } = await beginTurn(a, id, { input: 'go [[mock tokens=2000 interval=20]]' });
  const { status, text } = await b.request(`/v1/sessions/${id}/turns/${turn}/cancel`, { key: keys.client, method: 'POST' });
  assert.ok(status >= 200 && status < 300, `${status} ${text}`);
  assert.equal((await collect(events, is_last_event)).at(-1).event, 'turn.cancelled');
});

test('a socket on the other host sees the turns of its session', async (t) => {
  const [a, b] = hosts;
  const { id } = await newSession(a);
  for (let i = 0; i < 4; i++) { // sockets on several of its workers
    const chat = await openChat(t, b);
    chat.send({ action: 'join', request_id: 'join', payload: { session_id: id } });
    await chat.frame({ request_id: 'join' });
    const here = await streamTurn(a, id, { input: `Hello there ${i}` });
    const [turn] = here[0].id.split('.');
    assert.equal(text_of(await chat.turn(turn)), here.at(-1).data.message.content);
  }
});

test('a key that is revoked on one host is refused on the other within a second', async () => {
  const [a, b] = hosts;
  const open = (host, key) => host.request('/v1/sessions', { key, body: {} });
  const parleyd = (...args) => promisify(execFile)(path.join(build, 'parleyd'), ['--config', a.file, ...args], { cwd: a.dir });
  const { stdout } = await parleyd('key', 'create', '--kind', 'server', '--app', 'demo', '--name', 'two');
  const secret = /ps_\S{24,}/.exec(stdout)[0];
  await waitFor(async () => (await open(b, secret)).status === 201, 'the key on the other host');
  await parleyd('key', 'revoke', /key_[0-9a-z]{26}/.exec(stdout)[0]);
  const revoked_at = Date.now();
  await waitFor(async () => (await Promise.all(Array.from({ length: 12 }, () => open(b, secret)))).every(({ status }) => status === 401), 'its refusal there', 3000);
  assert.ok(Date.now() - revoked_at < 5000);
});

test('what an admin changes about a key on one host holds on the other', async () => {
  const [a, b] = hosts;
  const made = await a.request('/admin/v1/keys', { key: keys.admin, body: { kind: 'server', app_id: 'demo', models: ['default'] } });
  assert.equal(made.status, 201, made.text);
  // Of each of its workers, and each has the key in its cache by then.
  const models = async () => (await Promise.all(Array.from({ length: 12 }, () => b.request('/v1/models', { key: made.json.key })))).map(({ json }) => json.data.length);
  assert.ok((await models()).every((n) => n === 1));
  const changed = await a.request(`/admin/v1/keys/${made.json.id}`, { key: keys.admin, method: 'PATCH', body: { models: ['other'] } });
  assert.equal(changed.status, 200, changed.text);
  await waitFor(async () => (await models()).every((n) => n === 0), 'the change on the other host', 30000);
});

test('a limit holds exactly over eight workers of two hosts', async () => {
  const statuses = await Promise.all(Array.from({ length: 100 }, (_, i) => hosts[i % 2].request('/v1/sessions/sess_01m7x2gjd8y1r50z4s26qtean5', { key: limited_key })
    .then((r) => { if (r.status === 429) assert.ok(Number(r.headers['retry-after']) >= 1); return r.status; })));
  assert.equal(statuses.filter((s) => s === 404).length, 50);
  assert.equal(statuses.filter((s) => s === 429).length, 50);
});

test('readers and sockets on the other host miss nothing when Redis is away for a while', async (t) => {
  const [a, b] = hosts;
  const { id } = await newSession(a);
  const { id: other } = await newSession(a);
  const { turn, events } = await beginTurn(a, id, { input: 'go [[mock tokens=600 interval=10]]' });
  const far = await b.stream(`/v1/sessions/${id}/turns/${turn}/events`, { key: keys.client });
  const chats = [];
  for (let i = 0; i < 4; i++) {
    const chat = await openChat(t, b);
    chat.send({ action: 'join', request_id: 'join', payload: { session_id: other } });
    await chat.frame({ request_id: 'join' });
    chats.push(chat);
  }
  let follows = false;
  const all = Promise.all([collect(events, is_last_event, 30000), collect(far, (event) => { follows = true; return is_last_event(event); }, 30000)]);
  await waitFor(() => follows, 'a reader on the other host');
  await redis.kill();
  await Promise.all(hosts.map((host) => isAlone(host)));
  // Begins while nobody can be told.
  const missed = await beginTurn(a, other, { input: 'go [[mock tokens=700 interval=10]]' });
  await redis.again();
  await Promise.all(hosts.map(isUp));
  const [here, there] = await all;
  assert.equal(here.at(-1).event, 'turn.completed');
  assert.deepEqual(there.at(-1), here.at(-1));
  const text = (seen) => seen.filter(({ event }) => event === 'text.delta').map(({ data }) => data.text).join('');
  assert.equal(text(there), text(here));
  const end = (await collect(missed.events, is_last_event, 30000)).at(-1);
  for (const chat of chats) assert.equal(text_of(await chat.turn(missed.turn, 30000)), end.data.message.content);
});

test("a provider's minute and a key's tokens hold exactly over both hosts", async (t) => {
  const server_key = 'ps_test_tokens_key_0123456789abcdef', turns_key = 'ps_test_turns_key_0123456789abcdef';
  const config = {
    backplane: { url: redis.url, key_prefix: 'minute:', ...patient },
    providers: [plainProvider('mock', mock.url, { requests_per_minute: 12, pool_timeout: '100ms' })],
    keys: [...keys_with(0), { kind: 'server', app: 'demo', secret: server_key, tpm: 5000 }, { kind: 'server', app: 'demo', secret: turns_key, tpm: 60 }],
  };
  const two = [await startHost(t, config), await startHost(t, config)];
  for (const host of two) host.expectLog(/provider call failed .*requests_per_minute is spent/);
  await Promise.all(two.map(isUp));
  const ask = (key, i, max_tokens) => two[i % 2].request('/v1/chat/completions', {
    key, body: { model: 'default', max_tokens, messages: [{ role: 'user', content: 'hi' }] } });
  // What a turn on one host has taken is missing on the other.
  const say = async (host) => {
    const { id } = await newSession(host, {}, turns_key);
    return host.request(`/v1/sessions/${id}/turns`, { key: turns_key, body: { input: 'x'.repeat(200) } });
  };
  assert.equal((await say(two[0])).status, 200);
  const over = await say(two[1]);
  assert.equal(over.status, 429, over.text);
  assert.deepEqual([over.json.limit.unit, over.json.limit.amount], ['tokens per minute', 60]);
  // Far more than fit: refused before the provider is asked.
  const large = await Promise.all(Array.from({ length: 8 }, (_, i) => ask(server_key, i, 2400)));
  const passed = large.filter(({ status }) => status === 200).length;
  assert.ok(passed >= 2 && passed < 8, large.map(({ status }) => status).join());
  for (const { status, json } of large) if (status !== 200) assert.equal(json.error.code, 'rate_limited');
  const answers = await Promise.all(Array.from({ length: 40 }, (_, i) => ask(keys.server, i)));
  assert.equal(answers.filter(({ status }) => status === 200).length, 11 - passed, answers.map(({ status }) => status).join());
  assert.equal(answers.filter(({ status }) => status === 429).length, 40 - 11 + passed);
});

test('a host that ends signs off, and its workers are no members any more', async (t) => {
  const registry = (i) => redis.command('ZCARD', `off${i}:workers`);
  // Several: what Redis had not read was lost when the connection was closed, now and then.
  for (let i = 0; i < 6; i++) {
    const host = await startHost(null, { backplane: { url: redis.unix_url, key_prefix: `off${i}:` } });
    await isUp(host);
    await waitFor(async () => (await registry(i)) === '4', 'four workers in the registry');
    await host.stop();
    // Nobody else reads this registry, so no lease ends: what is gone has said so.
    assert.equal(await registry(i), '0');
  }
});

test('a host whose drain is over before its work is done signs off, too', { timeout: 120000 }, async (t) => {
  const postgres = await startPostgres(t);
  const host = await startHost(t, {
    backplane: { url: redis.unix_url, key_prefix: 'late:' }, drain: { pause: '0s', timeout: '1s' }, store: { url: postgres.url, acquire_timeout: '30s' },
  });
  host.expectLog(/store |sweep|turns? |keys |lease/);
  await isUp(host);
  await waitFor(async () => (await redis.command('ZCARD', 'late:workers')) === '4', 'four workers in the registry', 30000);
  postgres.signalAll('SIGSTOP');
  try {
    // They wait for the record, and with them each worker that has one.
    const asked = Array.from({ length: 16 }, () => host.request('/v1/sessions', { key: keys.client, body: {} }).catch(() => {}));
    await waitFor(async () => sumOf(parseMetrics((await host.request('/metrics')).text), 'parley_connections') >= 16, 'requests that wait', 30000);
    await host.stop();
    await Promise.all(asked);
  } finally {
    postgres.signalAll('SIGCONT');
  }
  assert.ok(host.lines.some((line) => /worker drain time is up .*busy=/.test(line)), host.lines.join('\n'));
  assert.equal(await redis.command('ZCARD', 'late:workers'), '0');
});

test('the sample of an account in Redis allows all that this took', async () => {
  await waitFor(async () => { // each says so now and then
    const { status, json } = await hosts[0].request('/admin/v1/stats', { key: keys.admin });
    assert.deepEqual([status, json.mode], [200, 'fleet']);
    return json.instances === 2;
  }, 'two instances', 30000);
  assert.equal(await redis.command('ACL', 'LOG'), '');
  assert.match(await redis.command('ACL', 'GETUSER', 'parley'), /-@all/);
});

test('without Redis: one warning at the start says what that means', async (t) => {
  const host = await startHost(t, {});
  await newSession(host);
  const warnings = host.lines.filter((line) => /(WARN|ERROR) /.test(line) && !/WARN +(worker starved|stats slow)/.test(line)); // the machine's doing
  assert.equal(warnings.length, 1, warnings.join('\n'));
  assert.match(warnings[0], /WARN +backplane is local reason="no backplane\.url: .*this host only"/);
  const { status, mode } = await backplane(host);
  assert.deepEqual([status, mode], ['ok', 'local']);
});

// ---- outages ----

const limit_of = (host, key) => host.request('/v1/sessions/sess_01m7x2gjd8y1r50z4s26qtean5', { key });

test('Redis is killed, comes back empty, hangs for 3 s, is full, is cut off: the host serves, says so, and comes back', async (t) => {
  const mine = await startRedis(t);
  const host = await startHost(t, { backplane: { url: mine.url }, keys: keys_with(20) });
  host.expectLog(/stats not reported reason=.*OOM/); // where they meet it first
  const serves = async () => {
    const begin = Date.now();
    await newSession(host);
    const { status, text } = await host.request('/v1/chat/completions', { key: keys.server, body: { model: 'default', messages: [{ role: 'user', content: 'hi' }] } });
    assert.equal(status, 200, text);
    return Date.now() - begin;
  };
  await isUp(host);
  for (let i = 0; i < 12; i++) assert.equal((await limit_of(host, limited_key)).status, 404);

  await mine.kill();
  await isAlone(host);
  await waitFor(() => isTold(host), 'a warning');
  assert.ok(outages(host) >= 1);
  assert.equal(sumOf(parseMetrics((await host.request('/metrics')).text), 'parley_backplane_up'), 0);
  assert.equal((await host.request('/health/ready')).status, 200);
  await serves();
  // What it has given out itself still counts: 8 of the 20 are left.
  const left = await Promise.all(Array.from({ length: 16 }, () => limit_of(host, limited_key)));
  assert.equal(left.filter(({ status }) => status === 404).length, 8);
  await mine.again();
  await isUp(host);
  await waitFor(() => !isTold(host), 'the end of the outage in the log');
  // Redis knows of none of the 20 that this host has given out.
  assert.deepEqual((await Promise.all(Array.from({ length: 8 }, () => limit_of(host, limited_key)))).map(({ status }) => status), Array(8).fill(429));

  mine.child.kill('SIGSTOP');
  await serves(); // the first ones wait for command_timeout, then nobody does
  await isAlone(host);
  await waitFor(() => isTold(host), 'another warning');
  assert.ok(outages(host) >= 2);
  mine.child.kill('SIGCONT');
  await isUp(host);

  await mine.command('CONFIG', 'SET', 'maxmemory', '1');
  await waitFor(async () => {
    for (let i = 0; i < 8; i++) await limit_of(host, limited_key);
    return (await backplane(host)).redis === 'full';
  }, 'a full Redis noticed');
  assert.match((await waitFor(async () => { const b = await backplane(host); return b.reason && b; }, 'reason')).reason, /OOM/);
  await serves();
  await mine.command('CONFIG', 'SET', 'maxmemory', '0');
  await isUp(host);

  for (const kind of ['normal', 'pubsub', 'normal']) {
    await mine.command('CLIENT', 'KILL', 'TYPE', kind);
    await serves();
    await isUp(host);
  }
});

test('a name, a password, an account, a database, TLS', async (t) => {
  const tls_port = await freePort();
  const mine = await startRedis(t, (dir) => {
    const files = certificate(dir, 'redis');
    execFileSync('chmod', ['644', files.key]);
    return ['--requirepass', 's3cret/@', '--tls-port', String(tls_port), '--tls-cert-file', files.certificate,
      '--tls-key-file', files.key, '--tls-ca-cert-file', files.certificate, '--tls-auth-clients', 'no',
      '--user', 'parley', 'on', '>pa:ss', '~acl:*', '&acl:*', '+@all'];
  });
  const ca_file = path.join(mine.dir, 'redis.crt');
  const password = encodeURIComponent('s3cret/@');
  const good = [
    { url: `redis://:${password}@localhost:${mine.port}/3` },
    { url: `rediss://:${password}@localhost:${tls_port}`, ca_file },
    { url: `rediss://parley:pa%3ass@127.0.0.1:${tls_port}/1`, ca_file, key_prefix: 'acl:' },
    { url: `${mine.unix_url}?password=${password}&db=2` },
  ];
  for (const config of good) {
    const host = await startHost(null, { workers: 2, backplane: config });
    await isUp(host);
    await host.stop();
    assert.ok(!host.output().includes('s3cret') && !host.output().includes('pa:ss'));
  }
  const bad = [
    [{ url: `redis://:wrong@127.0.0.1:${mine.port}` }, /WRONGPASS/],
    [{ url: `redis://127.0.0.1:${mine.port}` }, /NOAUTH/],
    [{ url: `rediss://:${password}@127.0.0.1:${tls_port}` }, /TLS: .*self.signed|TLS: .*certificate/],
    [{ url: `redis://:${password}@127.0.0.1:${tls_port}` }, /closed|reset|not connected/i],
    [{ url: 'redis://no.such.name.invalid:6379', connect_timeout: '3s' }, /Name|name|resolution|not connected/],
    [{ url: `redis://parley:pa%3ass@127.0.0.1:${mine.port}`, key_prefix: 'elsewhere:' }, /NOPERM/],
  ];
  for (const [config, reason] of bad) {
    const host = await startHost(null, { workers: 2, backplane: config });
    await waitFor(async () => reason.test((await backplane(host)).reason ?? ''), `reason ${reason}`);
    assert.equal((await backplane(host)).status, 'degraded');
    await newSession(host);
    await host.stop();
    assert.equal(host.lines.filter((line) => /WARN +backplane/.test(line)).length, 1);
    assert.ok(!host.output().includes('s3cret'));
  }
});

test('an address that cannot be is refused at start, without a word of it', async (t) => {
  const host = await startServer(t, { mock: false, ready: false, config: { backplane: { url: 'redis://:topsecret@h:notaport' } } });
  assert.equal((await host.ended).code, 78);
  assert.match(host.output(), /backplane\.url/);
  assert.ok(!host.output().includes('topsecret'));
  host.expectLog(/backplane\.url: expected/);
  await host.stop({ code: 78 });
});
