// two_hosts - what the benchmarks of several hosts share: two with one PostgreSQL and one Redis, the provider and keys of the tests.
import { startHosts } from '../../t/wire/lib/hosts.mjs';
import { startPostgres } from '../../t/wire/lib/postgres.mjs';
import { startRedis } from '../../t/wire/lib/redis.mjs';
import { startMock } from '../../t/wire/lib/server.mjs';

/** {hosts, redis, stop()}; all workers are up. */
export async function startTwo(config = {}) {
  const [redis, mock, postgres] = await Promise.all([startRedis(null), startMock(null), startPostgres(null)]);
  const hosts = await startHosts(null, { redis, mock, store_url: postgres.url, config });
  const stop = async () => {
    for (const host of hosts) await host.stop();
    await redis.stop();
    await postgres.stop();
    await mock.stop();
  };
  return { hosts, redis, stop };
}
