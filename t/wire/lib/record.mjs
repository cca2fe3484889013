// record - what a server has written into its SQLite, looked at from outside.
import { DatabaseSync } from 'node:sqlite';

function ask(server, sql) {
  const db = new DatabaseSync(server.config.store.url.slice('sqlite:'.length));
  try {
    db.exec('PRAGMA busy_timeout = 5000');
    return db.prepare(sql).all();
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
