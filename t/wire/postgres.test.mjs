// The record in PostgreSQL: the store's own suite over it, its migrations and indexes, and what clients see when it is
// killed, restarted, stopped or cut off: an answer in time, nothing acknowledged lost, and everything well again by itself.
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { promisify } from 'node:util';
import { startCutter } from './lib/cutter.mjs';
import { parseMetrics, sumOf } from './lib/metrics.mjs';
import { sharedPostgres, startPostgres } from './lib/postgres.mjs';
import { build, Child } from './lib/process.mjs';
import { keys, newSession, plainProvider, startServer } from './lib/server.mjs';
import { certificate } from './lib/tls.mjs';
import { startUpstream } from './lib/upstream.mjs';
import { waitFor, within } from './lib/wait.mjs';

const exec = promisify(execFile);
const key = keys.client;
// What a worker says of a database that is away.
const away = [/store connection (lost|failed) /, /store (reads|writes) fail/, /store operation (failed|given up)/, /store pool exhausted/,
  /session sweep failed/, /turns? .*(not recorded|not saved|not stored)/, /keys .*(fail|cannot)/];

process.setMaxListeners(50);
// One that stays up, and one that does not, with TLS and few connections.
let shared, victim, certificates;
before(async () => {
  const dir = fs.mkdtempSync('/tmp/parley-pg-tls-');
  process.on('exit', () => fs.rmSync(dir, { recursive: true, force: true }));
  fs.chmodSync(dir, 0o755);
  certificates = { good: certificate(dir, 'localhost'), other: certificate(dir, 'other') };
  certificates.ca = path.join(dir, 'ca.crt');
  fs.copyFileSync(certificates.good.certificate, certificates.ca);
  const settings = (account) => {
    for (const file of Object.values(certificates.good)) {
      fs.chmodSync(file, 0o600);
      if (account.uid !== undefined) fs.chownSync(file, account.uid, account.gid);
    }
    return { ssl: 'on', ssl_cert_file: certificates.good.certificate, ssl_key_file: certificates.good.key, max_connections: 60 };
  };
  [shared, victim] = await Promise.all([sharedPostgres(), startPostgres(null, settings)]);
});
after(() => victim.stop());

async function startOver(t, url, store = {}, config = {}) {
  const server = await startServer(t, { config: { workers: 2, ...config, store: { url, ...store } } });
  return server;
}

function expectAway(server) {
  for (const regex of away) server.expectLog(regex);
}

const plainTurn = async (server, session_id, input = 'hello', more = {}) =>
  server.request(`/v1/sessions/${session_id}/turns`, { key, body: { input, ...more }, limit_ms: 20000 });

const isUp = async (server) => (await server.request('/health/ready')).status === 200;
const serves = (server) => waitFor(async () => (await server.request('/v1/sessions', { key, body: {} })).status === 201, 'a session again', 15000);

for (const isolation of ['as installed', 'serializable']) test(`the suite of the store, over PostgreSQL, isolation ${isolation}`, async () => {
  for (const [name, least] of [['store/store_test', 19], ['store/hosts_ops_test', 4], ['store/budget_test', 7], ['store/answers_test', 4], ['store/webhooks_test', 9], ['store/tasks_test', 11], ['usage/holds_test', 5], ['store/pg_order_test', 1]]) {
    const url = await shared.newDatabase();
    const database = new URL(url).pathname.slice(1);
    if (isolation !== 'as installed') await shared.sql(`ALTER DATABASE ${database} SET default_transaction_isolation = '${isolation}'`, 'postgres');
    const { stdout } = await exec(path.join(build, `t/unit/worker/${name}`), {
      env: { ...process.env, PARLEY_TEST_STORE: url, CMOCKA_MESSAGE_OUTPUT: 'TAP' },
    }).catch((err) => assert.fail(`${name}: ${err.message}\n${err.stdout}`));
    const passed = stdout.split('\n').filter((line) => /^ok \d+ (?!.*SKIP)/.test(line));
    assert.ok(passed.length >= least, stdout);
  }
});

test('several that migrate at once migrate once', async (t) => {
  const dir = fs.mkdtempSync('/tmp/parley-migrate-');
  t.after(() => fs.rmSync(dir, { recursive: true }));
  const url = await shared.newDatabase();
  const file = path.join(dir, 'parley.yaml');
  fs.writeFileSync(file, JSON.stringify({ store: { url } }));
  const all = Array.from({ length: 4 }, () => new Child(path.join(build, 'parleyd'), ['--config', file, 'migrate']));
  for (const one of all) assert.equal((await one.ended).code, 0, one.output());
  const names = fs.readdirSync(new URL('../../sql/postgres/', import.meta.url)).filter((name) => name.endsWith('.sql'));
  const steps = all.flatMap((one) => one.lines.filter((line) => /store migrated version=/.test(line)));
  assert.equal(steps.length, names.length, steps.join('\n'));
  assert.equal(await shared.sql('SELECT count(*) FROM schema_migrations', new URL(url).pathname.slice(1)), String(names.length));
});

test('statements use their indexes', async () => {
  const database = new URL(await shared.newDatabase()).pathname.slice(1);
  const sql = (text) => shared.sql(text, database);
  for (const name of fs.readdirSync(new URL('../../sql/postgres/', import.meta.url)).sort()) {
    await sql(fs.readFileSync(new URL(`../../sql/postgres/${name}`, import.meta.url), 'utf8'));
  }
  await sql(`
    INSERT INTO chat_sessions (id, app_id, device_id, status, created_at, last_activity_at)
      SELECT 'sess_' || n, 'app' || n % 3, 'device' || n % 5000, CASE WHEN n % 10 = 0 THEN 'active' ELSE 'expired' END, now(),
        now() - n * interval '1 second' FROM generate_series(1, 30000) AS n;
    INSERT INTO turns (id, session_id, app_id, state, owner, fence, last_seq, created_at)
      SELECT 'turn_' || n, 'sess_' || n, 'app1', CASE WHEN n % 10 = 0 THEN 'live' ELSE 'completed' END, 'a.1.' || n % 50, 1, 1, now()
        FROM generate_series(1, 20000) AS n;
    INSERT INTO messages (id, session_id, position, role, body, is_partial, created_at)
      SELECT 'msg_' || n, 'sess_' || n % 300 + 1, n, 'user', '{}', false, now() FROM generate_series(1, 30000) AS n;
    ANALYZE`);
  const { stdout } = await exec(path.join(build, 't/unit/worker/store/ops_test'), ['--postgres']);
  // As the server runs them: prepared, with a plan for any values.
  const plan = async (name, args) => {
    const prepare = stdout.split('\n').find((line) => line.startsWith(`PREPARE ${name} `));
    return sql(`SET plan_cache_mode = force_generic_plan; ${prepare} EXPLAIN EXECUTE ${name}(${args})`);
  };
  const values = (count) => Array.from({ length: count }, () => 'NULL').join(', ');
  const wanted = {
    session_open_2: [7, /Index Scan (Backward )?using chat_sessions_reuse on chat_sessions .*\n.*Index Cond: \(\(app_id = \$\d\) AND \(device_id = \$\d\) AND \(last_activity_at >= /],
    session_expire_0: [3, /chat_sessions_idle/],
    session_list_0: [4, /chat_sessions_app|chat_sessions_pkey/],
    session_list_device_0: [5, /chat_sessions_device/],
    message_history_0: [3, /messages_position/],
    turn_live_0: [1, /turns_live|turns_request/],
    turn_lose_all_0: [1, /turns_owner/],
    turn_lose_all_2: [3, /turns_owner/],
  };
  for (const [name, [count, regex]] of Object.entries(wanted)) {
    const text = await plan(name, values(count));
    assert.match(text, regex, `${name}: ${text}`);
    assert.doesNotMatch(text, /Seq Scan/, `${name}: ${text}`);
  }
});

test('a killed server: 503 in time while it is away, then well by itself, and nothing acknowledged is lost', async (t) => {
  const url = await victim.newDatabase(), database = new URL(url).pathname.slice(1);
  const server = await startOver(t, url, { acquire_timeout: '1s', grace: '500ms' });
  expectAway(server);
  const acknowledged = [];
  let is_over = false, refused = 0;
  const client = async () => {
    while (!is_over) {
      const began = Date.now();
      const { status, json, headers } = await server.request('/v1/sessions', { key: keys.server, body: { device_id: `d${Math.random()}` }, limit_ms: 10000 });
      assert.ok(Date.now() - began < 6000, `answered after ${Date.now() - began} ms`);
      if (status === 201) acknowledged.push(json.id);
      else {
        assert.equal(status, 503);
        assert.equal(json.error.type, 'dependency_unavailable');
        assert.equal(json.error.code, 'store_unavailable');
        assert.ok(Number(headers['retry-after']) > 0);
        refused++;
      }
    }
  };
  const clients = Array.from({ length: 8 }, client);
  await waitFor(() => acknowledged.length > 50, 'some sessions');
  for (let round = 0; round < 2; round++) {
    const before_kill = acknowledged.length, refused_before = refused;
    await victim.kill(round === 0 ? 'SIGKILL' : 'SIGQUIT');
    await waitFor(() => refused > refused_before, 'a refusal');
    if (round === 0) {
      await waitFor(async () => !(await isUp(server)), 'not ready: away for longer than its grace');
      const { json } = await server.request('/health');
      assert.equal(json.checks.store.available, false);
      assert.ok(json.checks.store.away_ms > 0);
    }
    fs.rmSync(path.join(victim.dir, 'data', 'postmaster.pid'), { force: true });
    await waitFor(async () => victim.again().then(() => true, () => false), 'PostgreSQL again', 20000);
    await waitFor(() => acknowledged.length > before_kill + 50, 'sessions again');
    await waitFor(() => isUp(server), 'ready again');
  }
  is_over = true;
  await Promise.all(clients);
  const stored = new Set((await victim.sql('SELECT id FROM chat_sessions', database)).split('\n'));
  const lost = acknowledged.filter((id) => !stored.has(id));
  assert.deepEqual(lost, []);
  assert.equal(await victim.sql('SELECT count(*) - count(DISTINCT device_id) FROM chat_sessions', database), '0');
});

test('a connection cut in the middle costs nobody his request', async (t) => {
  const url = new URL(await shared.newDatabase());
  const cutter = await startCutter(t, shared);
  url.port = String(cutter.port);
  const server = await startOver(t, url.href, { acquire_timeout: '30s' });
  expectAway(server);
  let is_over = false, done = 0;
  const client = async (n) => {
    const { id } = await newSession(server);
    for (let i = 0; !is_over; i++) {
      const { status, text } = await plainTurn(server, id, `${n} ${i}`, { request_id: `r${i}` });
      assert.equal(status, 200, text);
      done++;
    }
  };
  const clients = Array.from({ length: 6 }, (_, n) => client(n));
  for (let round = 0; round < 5; round++) {
    const seen = done;
    await waitFor(() => done > seen + 12, 'turns');
    cutter.cut();
  }
  is_over = true;
  await Promise.all(clients);
  const database = url.pathname.slice(1);
  // Each is there once, with its question and its answer.
  assert.equal(await shared.sql('SELECT count(*) FROM turns', database), String(done));
  assert.equal(await shared.sql('SELECT count(*) FROM messages', database), String(2 * done));
  assert.equal(await shared.sql('SELECT count(*) FROM usage', database), String(done));
});

test('connections that a firewall has forgotten cost nobody his request, however many idle', async (t) => {
  const url = new URL(await shared.newDatabase());
  const cutter = await startCutter(t, shared);
  url.port = String(cutter.port);
  const server = await startOver(t, url.href, { acquire_timeout: '30s' }, { workers: 1 });
  expectAway(server); // at the end the relay goes first
  await waitFor(async () => {
    await Promise.all(Array.from({ length: 40 }, () => newSession(server)));
    return cutter.pairs.size >= 8;
  }, 'many connections');
  for (let round = 0; round < 3; round++) {
    cutter.forget();
    await newSession(server);
    const { json } = await server.request('/health');
    assert.equal(json.checks.store.available, true);
    await Promise.all(Array.from({ length: 40 }, () => newSession(server)));
  }
});

test('cut again and again at any moment: well by itself afterwards', async (t) => {
  const url = new URL(await shared.newDatabase());
  const cutter = await startCutter(t, shared);
  url.port = String(cutter.port);
  const server = await startOver(t, url.href, { acquire_timeout: '2s' }, { workers: 1 });
  expectAway(server);
  const open = () => server.request('/v1/sessions', { key, body: {}, limit_ms: 20000 });
  for (let round = 0; round < 12; round++) {
    let answered = 0;
    const asked = Array.from({ length: 20 }, () => open().then((answer) => { answered++; return answer; }));
    await waitFor(() => answered > round, 'some answers', 20000);
    cutter.cut();
    for (const { status } of await Promise.all(asked)) assert.ok(status === 201 || status === 503, `${status}`);
  }
  await waitFor(async () => (await Promise.all(Array.from({ length: 20 }, open))).every(({ status }) => status === 201), 'all served');
});

// What begins the write, and may be in the record before. Both sendings have the end of holds before them, and wait for it.
const sent_again = {
  'usage of a call': { begin: (server) => server.request('/v1/chat/completions', { key: keys.server, body: { messages: [{ role: 'user', content: 'hi' }] } }) },
  'what a dead worker had reserved': { before: `INSERT INTO budget_holds (id, app_id, key_id, model, day, input_tokens, output_tokens, cost_micros, created_at, lapses_at)
    VALUES ('use_dead', 'demo', 'k', 'default', 1, 1, 1, 1, now(), now() - interval '1 hour')` },
};
for (const [name, { begin, before: first }] of Object.entries(sent_again)) test(`a write that is sent again while its first sending has not ended yet counts once: ${name}`, async (t) => {
  const url = new URL(await shared.newDatabase());
  const database = url.pathname.slice(1);
  const cutter = await startCutter(t, shared);
  url.port = String(cutter.port);
  const server = await startOver(t, url.href, {}, { usage: { interval: '1ms' }, budgets: { lease: first ? '2s' : '1h' } });
  expectAway(server);
  server.expectLog(/usage not written/);
  const sql = (query) => shared.sql(query, database);
  const waiting = async () => Number(await sql('SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND cardinality(pg_blocking_pids(pid)) > 0'));
  if (first) await sql(first);
  const locker = sql('LOCK TABLE budget_holds IN SHARE MODE; SELECT pg_sleep(600)').catch(() => {});
  const locks = "FROM pg_locks WHERE relation = 'budget_holds'::regclass AND mode = 'ShareLock' AND granted";
  await waitFor(async () => await sql(`SELECT count(*) ${locks}`) === '1', 'the lock');
  if (begin) assert.equal((await begin(server)).status, 200);
  await waitFor(async () => await waiting() === 1, 'the write waits', 10000);
  cutter.cut();
  await waitFor(async () => await waiting() === 2, 'the second one waits', 10000);
  await sql(`SELECT pg_terminate_backend(pid) ${locks}`);
  await locker;
  await waitFor(async () => await sql("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() AND state <> 'idle'") === '0', 'their end');
  assert.equal(await sql('SELECT count(*) FROM usage'), '1');
  assert.equal(await sql('SELECT sum(calls) FROM usage_days'), '1');
  assert.equal(await sql('SELECT count(*) FROM budget_holds'), '0');
});

test('stopped for three seconds: requests wait, the loop does not', async (t) => {
  const server = await startOver(t, await victim.newDatabase());
  const { id } = await newSession(server);
  victim.signalAll('SIGSTOP');
  const began = Date.now();
  const waiting = Array.from({ length: 20 }, () => server.request('/v1/sessions', { key, body: {}, limit_ms: 15000 }));
  const read = server.request(`/v1/sessions/${id}`, { key, limit_ms: 15000 });
  let worst = 0;
  while (Date.now() - began < 3000) {
    const asked = Date.now();
    assert.equal((await server.request('/health/live')).status, 200);
    worst = Math.max(worst, Date.now() - asked);
  }
  victim.signalAll('SIGCONT');
  for (const answer of await Promise.all(waiting)) assert.equal(answer.status, 201, answer.text);
  assert.equal((await read).status, 200);
  assert.ok(worst < 2500, `a question about life took ${worst} ms`);
});

test('silent for longer than one may wait: refused in time, degraded, then well again', async (t) => {
  const url = new URL(await shared.newDatabase());
  const cutter = await startCutter(t, shared);
  url.port = String(cutter.port);
  const server = await startOver(t, url.href, { acquire_timeout: '700ms', connect_timeout: '500ms', grace: '1s' });
  expectAway(server);
  await newSession(server);
  cutter.hold();
  const began = Date.now();
  const answers = await Promise.all(Array.from({ length: 40 }, () => server.request('/v1/sessions', { key, body: {}, limit_ms: 10000 })));
  for (const { status, json } of answers) {
    assert.equal(status, 503);
    assert.equal(json.error.code, 'store_unavailable');
  }
  assert.ok(Date.now() - began < 5000, `${Date.now() - began} ms`);
  await waitFor(async () => !(await isUp(server)), 'not ready');
  cutter.open();
  await serves(server);
  await waitFor(() => isUp(server), 'ready again');
});

test('nobody listens: few attempts, and soon again when somebody does', async (t) => {
  const url = new URL(await shared.newDatabase());
  const cutter = await startCutter(t, shared);
  url.port = String(cutter.port);
  const server = await startOver(t, url.href, { acquire_timeout: '500ms' });
  expectAway(server);
  await newSession(server);
  cutter.refuse();
  const accepted = cutter.accepted, began = Date.now();
  while (Date.now() - began < 2500) {
    const answers = await Promise.all(Array.from({ length: 30 }, () => server.request('/v1/sessions', { key, body: {}, limit_ms: 10000 })));
    assert.ok(answers.every(({ status }) => status === 503));
  }
  // 2 workers, each waiting 50 to 100 ms, then twice as long each time, at most 2 s.
  const attempts = cutter.accepted - accepted;
  assert.ok(attempts >= 2 && attempts <= 40, `${attempts} attempts`);
  cutter.open();
  await serves(server);
});

test('a thousand turns at once on the pool as it is', async (t) => {
  // On a busy machine the last of them waits for longer than the default allows, and would be told so.
  const server = await startOver(t, await shared.newDatabase(), { acquire_timeout: '50s' }, { max_connections: 2000, connection_queue_size: 2000 });
  const sessions = [];
  while (sessions.length < 1000) {
    sessions.push(...(await Promise.all(Array.from({ length: 50 }, () => newSession(server)))).map(({ id }) => id));
  }
  const answers = await within(Promise.all(sessions.map((id) => plainTurn(server, id))), 'all turns', 60000);
  const bad = answers.filter(({ status }) => status !== 200);
  assert.equal(bad.length, 0, `${bad.length}: ${bad[0]?.status} ${bad[0]?.text}`);
  const seen = parseMetrics((await server.request('/metrics')).text);
  assert.ok('parley_store_pool_in_use' in seen);
  assert.ok(sumOf(seen, 'parley_store_pool_in_use') <= 30);
  assert.equal(sumOf(seen, 'parley_store_refused_total'), 0);
});

test('a budget for ten admits ten of a thousand at once, 8 workers', { timeout: 120000 }, async (t) => {
  const url = await shared.newDatabase(), database = new URL(url).pathname.slice(1);
  const ten = 'ps_test_ten_key_0123456789abcdef01';
  const held = [];
  const upstream = await startUpstream(t, (request, response) => { held.push(response); });
  const server = await startOver(t, url, { acquire_timeout: '50s' }, {
    workers: 8,
    providers: [plainProvider('held', upstream.url, { max_queue: 0 })],
    models: [{ name: 'default', targets: [{ provider: 'held', model: 'm' }], price: { input: 0, output: 1000000 } }],
    keys: [{ kind: 'server', app: 'demo', secret: ten, budget: { amount: 10, period: 'total' } }],
  });
  const asked = Array.from({ length: 1000 }, () => server.request('/v1/chat/completions', {
    key: ten, body: { messages: [{ role: 'user', content: 'hi' }], max_tokens: 1 }, limit_ms: 60000,
  }));
  let refused = 0;
  for (const one of asked) one.then(({ status }) => { refused += status === 402; });
  await waitFor(() => refused === 990 && held.length === 10, 'ten calls and 990 refusals', 60000);
  for (const response of held) {
    response.writeHead(200, { 'content-type': 'application/json' });
    response.end(JSON.stringify({
      choices: [{ message: { content: 'x' }, finish_reason: 'stop' }], usage: { prompt_tokens: 7, completion_tokens: 1 },
    }));
  }
  await Promise.all(asked);
  await waitFor(async () => await shared.sql('SELECT count(*) FROM usage', database) === '10' &&
    await shared.sql('SELECT count(*) FROM budget_holds', database) === '0', 'ten rows and no hold');
  assert.equal(await shared.sql('SELECT sum(cost_micros) FROM usage_days', database), '10000000');
});

test('over TLS, verified; a certificate of someone else is refused', async (t) => {
  const base = await victim.newDatabase();
  const url = `${base.replace('127.0.0.1', 'localhost')}?sslmode=verify-full&sslrootcert=`;
  const server = await startOver(t, url + encodeURIComponent(certificates.ca));
  await newSession(server);
  assert.equal(await victim.sql('SELECT bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE application_name = \'parley\' AND datname = current_database()', new URL(base).pathname.slice(1)), 't');
  const refused = await startServer(t, {
    ready: false, config: { store: { url: url + encodeURIComponent(certificates.other.certificate), connect_timeout: '300ms' } },
  });
  refused.expectLog(/migration failed/);
  assert.notEqual((await refused.ended).code, 0);
  assert.match(refused.output(), /certificate verify failed/);
  await refused.stop({ code: 1 });
});

test('the master says when the pools may be more than the server allows', async (t) => {
  const server = await startOver(t, await victim.newDatabase(), {}, { workers: 4 });
  server.expectLog(/store connections may run out wanted=60 allowed=57 workers=4 pool_size=10 max_overflow=5/);
  await server.line(/store connections may run out/);
  await newSession(server);
});
