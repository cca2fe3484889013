// record - what a server has written into its database, SQLite or PostgreSQL, looked at from outside.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { DatabaseSync } from 'node:sqlite';

function askPostgres(url, sql) {
  const { status, stdout, stderr } = spawnSync('psql', [url, '-XAtq', '-v', 'ON_ERROR_STOP=1', '-c', `SELECT coalesce(json_agg(row_to_json(t)), '[]') FROM (${sql}) AS t`], { encoding: 'utf8', maxBuffer: 64 << 20 });
  assert.equal(status, 0, stderr);
  return JSON.parse(stdout);
}

/** The rows of a query that both databases understand; times are numbers in SQLite, texts in PostgreSQL: new Date() takes both. */
export function ask(server, sql) {
  if (server.config.store.url.startsWith('postgres')) return askPostgres(server.config.store.url, sql);
  const db = new DatabaseSync(server.config.store.url.slice('sqlite:'.length));
  try {
    db.exec('PRAGMA busy_timeout = 5000');
    return db.prepare(sql).all();
  } finally {
    db.close();
  }
}

/** Changes the record behind the server's back, as somebody would have who is dead by now. */
export function change(server, sql) {
  if (server.config.store.url.startsWith('postgres')) {
    const { status, stderr } = spawnSync('psql', [server.config.store.url, '-XAtq', '-v', 'ON_ERROR_STOP=1', '-c', sql], { encoding: 'utf8' });
    assert.equal(status, 0, stderr);
    return;
  }
  const db = new DatabaseSync(server.config.store.url.slice('sqlite:'.length));
  try {
    db.exec(`PRAGMA busy_timeout = 5000; ${sql}`);
  } finally {
    db.close();
  }
}

/** Rows of usage, in the order of their calls. */
export const usageRows = (server, where = '') => ask(server, `SELECT * FROM usage ${where} ORDER BY created_at, id`);

/** How many calls hold money. */
export const heldCalls = (server) => ask(server, 'SELECT count(*) AS n FROM budget_holds')[0].n;

/** How many workers hold money ahead of their calls. */
export const moneyAhead = (server) => ask(server, "SELECT count(*) AS n FROM budget_holds WHERE substr(id, 1, 4) = 'adv_'")[0].n;
