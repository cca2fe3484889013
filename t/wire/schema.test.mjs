// The schema and the operations as a real PostgreSQL takes them: applied, twice refused, every statement prepared.
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { startPostgres } from './lib/postgres.mjs';
import { build } from './lib/process.mjs';

const folder = fileURLToPath(new URL('../../sql/', import.meta.url));

test('PostgreSQL takes the migrations and every statement of the store', async (t) => {
  const postgres = await startPostgres(t);
  for (const file of fs.readdirSync(`${folder}postgres`).sort()) {
    await postgres.sql(`BEGIN; ${fs.readFileSync(`${folder}postgres/${file}`, 'utf8')} COMMIT`);
  }
  const tables = await postgres.sql(`SELECT string_agg(table_name, ' ' ORDER BY table_name) FROM information_schema.tables WHERE table_schema = 'public'`);
  assert.equal(tables, 'answers apps budget_holds chat_sessions generations hosts keys messages schema_migrations tasks turns usage usage_days webhook_endpoints webhook_settlers webhooks');
  const { stdout } = await promisify(execFile)(path.join(build, 't/unit/worker/store/ops_test'), ['--postgres']);
  const statements = stdout.trim().split('\n');
  assert.ok(statements.length > 50, `${statements.length} statements`);
  await postgres.sql(statements.join('\n'));
  // Times keep their milliseconds on the way there and back.
  for (const ms of [0, 1, 999, 1767225599123, 4102444800001]) assert.equal(await postgres.sql(`SELECT to_ms(from_ms(${ms}))`), String(ms));
  assert.equal(await postgres.sql(`SELECT to_ms(from_ms(NULL)) IS NULL`), 't');
});
