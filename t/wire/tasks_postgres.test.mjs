// What tasks promise, with the record in PostgreSQL: the same tests as over SQLite.
process.env.PARLEY_TEST_STORE = 'postgres';

await import('./tasks.test.mjs');
await import('./tasks_crash.test.mjs');
await import('./tasks_queue.test.mjs');
await import('./tasks_upkeep.test.mjs');
