// What sessions, turns, tools and keys promise, with the record in PostgreSQL: the same tests as over SQLite.
process.env.PARLEY_TEST_STORE = 'postgres';

await import('./sessions.test.mjs');
await import('./turns.test.mjs');
await import('./tools.test.mjs');
await import('./keys.test.mjs');
await import('./poison.test.mjs');
