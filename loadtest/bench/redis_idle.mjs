// redis_idle - what a host of 4 workers with nothing to do costs with Redis behind it: connections, CPU; beside one without, in the same seconds.
import { startRedis } from '../../t/wire/lib/redis.mjs';
import { parseMetrics, sumOf } from '../../t/wire/lib/metrics.mjs';
import { startServer } from '../../t/wire/lib/server.mjs';
import { waitFor } from '../../t/wire/lib/wait.mjs';
import { cpuMicros, print } from './lib.mjs';

const workers = 4, seconds = 20;

export default async function redis_idle() {
  const redis = await startRedis(null);
  const alone = await startServer(null, { mock: false, config: { workers } });
  const hosts = [];
  for (let i = 0; i < 2; i++) hosts.push(await startServer(null, { mock: false, config: { workers, backplane: { url: redis.url } } }));
  const connections = async (host) => sumOf(parseMetrics((await host.request('/metrics')).text), 'parley_backplane_connections');
  await waitFor(async () => (await Promise.all(hosts.map(connections))).every((n) => n === 2 * workers), 'all connected');
  const clients = (await redis.command('CLIENT', 'LIST')).split('\n').filter((line) => !/cmd=client/.test(line)).length;
  print('connections to Redis of a host with 4 workers', await connections(hosts[0]), '', `2 a worker; Redis counts ${clients} of 2 hosts`);
  await new Promise((resolve) => { setTimeout(resolve, 3000); }); // after the start
  const look = () => ({ alone: cpuMicros(alone.workers()), host: cpuMicros(hosts[0].workers()), redis: cpuMicros([redis.child.pid]), at: performance.now() });
  const before = look();
  await new Promise((resolve) => { setTimeout(resolve, seconds * 1000); });
  const now = look();
  const rate = (of) => (now[of] - before[of]) / ((now.at - before.at) / 1000);
  print('CPU of an idle worker, without Redis', rate('alone') / workers, 'us/s', `${(rate('alone') / workers / 1e4).toFixed(3)} % of a core`);
  print('CPU of an idle worker, with Redis', rate('host') / workers, 'us/s', `${(rate('host') / workers / 1e4).toFixed(3)} % of a core; ${(rate('host') / rate('alone')).toFixed(2)} times`);
  print('CPU of Redis for 2 idle hosts of 4 workers', rate('redis'), 'us/s', 'its own idling in it');
  for (const host of [alone, ...hosts]) await host.stop();
  await redis.stop();
}
