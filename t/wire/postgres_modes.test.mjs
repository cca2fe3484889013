// PostgreSQL as it may be set up: the modes of TLS, a time for statements, and constraints of somebody else's.
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { promisify } from 'node:util';
import { sharedPostgres, startPostgres } from './lib/postgres.mjs';
import { build } from './lib/process.mjs';
import { keys, newSession, startServer } from './lib/server.mjs';
import { certificate } from './lib/tls.mjs';
import { waitFor } from './lib/wait.mjs';

const key = keys.client;
let plain, secured, certificates;

before(async () => {
  const dir = fs.mkdtempSync('/tmp/parley-pg-tls-');
  process.on('exit', () => fs.rmSync(dir, { recursive: true, force: true }));
  fs.chmodSync(dir, 0o755);
  certificates = { good: certificate(dir, 'localhost'), ca: path.join(dir, 'ca.crt') };
  fs.copyFileSync(certificates.good.certificate, certificates.ca);
  const settings = (account) => {
    for (const file of Object.values(certificates.good)) {
      fs.chmodSync(file, 0o600);
      if (account.uid !== undefined) fs.chownSync(file, account.uid, account.gid);
    }
    return { ssl: 'on', ssl_cert_file: certificates.good.certificate, ssl_key_file: certificates.good.key };
  };
  [plain, secured] = await Promise.all([sharedPostgres(), startPostgres(null, settings)]);
});
after(() => secured.stop());

const startOver = (t, url, store = {}) => startServer(t, { config: { workers: 1, store: { url, ...store } } });

test('a row of usage that a constraint refuses keeps no other from the record', async () => {
  const { stdout } = await promisify(execFile)(path.join(build, 't/unit/worker/usage/usage_test'), {
    env: { ...process.env, PARLEY_TEST_STORE: await plain.newDatabase(), CMOCKA_MESSAGE_OUTPUT: 'TAP' },
  }).catch((err) => assert.fail(`${err.message}\n${err.stdout}`));
  assert.equal(stdout.split('\n').filter((line) => /^ok \d+ (?!.*SKIP)/.test(line)).length, 4, stdout);
});

test('modes of TLS, as libpq knows them', async (t) => {
  const encrypted = async (url, mode) => {
    const database = new URL(url).pathname.slice(1), postgres = url.includes(`:${secured.port}/`) ? secured : plain;
    const server = await startOver(t, `${url}?sslmode=${mode}`);
    await newSession(server);
    const is = await postgres.sql(`SELECT bool_or(ssl), bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE application_name = 'parley' AND datname = '${database}'`);
    await server.stop();
    return is;
  };
  const url = await secured.newDatabase();
  for (const mode of ['require', `verify-ca&sslrootcert=${encodeURIComponent(certificates.ca)}`, 'prefer']) assert.equal(await encrypted(url, mode), 't|t', mode);
  for (const mode of ['disable', 'allow']) assert.equal(await encrypted(url, mode), 'f|f', mode);
  // One that has none.
  const without = await plain.newDatabase();
  assert.equal(await encrypted(without, 'prefer'), 'f|f');
  const refused = await startServer(t, { ready: false, config: { store: { url: `${without}?sslmode=require`, connect_timeout: '300ms' } } });
  refused.expectLog(/migration failed/);
  assert.notEqual((await refused.ended).code, 0);
  assert.match(refused.output(), /server does not support SSL/);
  await refused.stop({ code: 1 });
});

test('a statement has its time: refused with the reason, and others go on', async (t) => {
  const url = await plain.newDatabase(), database = new URL(url).pathname.slice(1);
  const server = await startOver(t, url, { acquire_timeout: '60s', statement_timeout: '2s' });
  server.expectLog(/store (operation failed|writes fail|reads fail|pool exhausted)|session sweep failed|(turns|keys) .*(fail|not recorded)/);
  const { id } = await newSession(server);
  const locker = plain.sql('LOCK TABLE chat_sessions IN SHARE MODE; SELECT pg_sleep(600)', database).catch(() => {});
  const lock = "FROM pg_locks WHERE relation = 'chat_sessions'::regclass AND mode = 'ShareLock' AND granted";
  await waitFor(async () => await plain.sql(`SELECT count(*) ${lock}`, database) === '1', 'the lock');
  const { status, json } = await server.request('/v1/sessions', { key, body: {}, limit_ms: 50000 });
  assert.deepEqual([status, json.error.code], [503, 'store_unavailable']);
  await server.line(/store operation failed op=session_create reason="57014 /, 30000);
  assert.equal((await server.request(`/v1/sessions/${id}`, { key })).status, 200);
  await plain.sql(`SELECT pg_terminate_backend(pid) ${lock}`, database);
  await locker;
  await waitFor(async () => (await server.request('/v1/sessions', { key, body: {} })).status === 201, 'a session again', 30000);
});
