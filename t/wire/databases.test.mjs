// The harness itself: the databases of the tests start, work, go away, come back and stop.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { startPostgres } from './lib/postgres.mjs';
import { startRedis } from './lib/redis.mjs';

test('a Redis of our own', async (t) => {
  const redis = await startRedis(t);
  assert.equal(await redis.command('SET', 'a', '1'), 'OK');
  assert.equal(await redis.command('GET', 'a'), '1');
  await redis.kill();
  await assert.rejects(redis.command('PING'));
  await redis.again();
  assert.equal(await redis.command('GET', 'a'), '');
});

test('a PostgreSQL of our own', async (t) => {
  const postgres = await startPostgres(t);
  await postgres.sql('CREATE TABLE a (n int); INSERT INTO a VALUES (1), (2)');
  assert.equal(await postgres.sql('SELECT sum(n) FROM a'), '3');
  await postgres.kill();
  await assert.rejects(postgres.sql('SELECT 1'));
  await postgres.again();
  assert.equal(await postgres.sql('SELECT sum(n) FROM a'), '3');
});
