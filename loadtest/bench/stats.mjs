// stats - adding up what 1,000 simulated hosts report through Redis: its time, the core it takes, and how long the worker's loop is held up.
import http from 'node:http';
import { startRedis } from '../../t/wire/lib/redis.mjs';
import { fleetOf } from '../../t/wire/lib/fleet.mjs';
import { keys, startServer } from '../../t/wire/lib/server.mjs';
import { waitFor } from '../../t/wire/lib/wait.mjs';
import { cpuMicros, median, print } from './lib.mjs';

const rounds = 40;

/** Asks one after the other over one connection, until told to stop: the longest answer in microseconds, and a sorted list. */
function pinger(port) {
  const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
  const times = [];
  let stopped = false;
  const one = () => new Promise((resolve, reject) => {
    const begin = process.hrtime.bigint();
    http.get({ port, agent, path: '/health/live' }, (res) => res.resume().on('end', () => {
      times.push(Number(process.hrtime.bigint() - begin) / 1e3);
      resolve();
    })).on('error', reject);
  });
  const ended = (async () => { while (!stopped) await one(); })();
  return async () => {
    stopped = true;
    await ended;
    agent.destroy();
    return times.sort((a, b) => a - b);
  };
}

/** Reads (all reports, one row shown or a thousand) one after the other: what each took by its own account. */
async function read(host, limit) {
  const took = [];
  const before = cpuMicros(host.workers());
  for (let i = 0; i < rounds; i++) {
    const { json } = await host.request(`/admin/v1/stats?limit=${limit}`, { key: keys.admin });
    took.push({ ms: json.aggregation_ms, instances: json.instances });
  }
  const cpu_us = (cpuMicros(host.workers()) - before) / rounds;
  return { ms: median(took.map(({ ms }) => ms)), worst_ms: Math.max(...took.map(({ ms }) => ms)), cpu_us, instances: took.at(-1).instances };
}

export default async function stats() {
  const redis = await startRedis(null);
  let thousand, alone;
  for (const count of [0, 100, 1000, 5000]) {
    const prefix = `bench${count}:`;
    const fleet = await fleetOf(redis, prefix);
    await fleet.write(count);
    const host = await startServer(null, { mock: false, config: {
      workers: 1, http: { max_keepalive_requests: 0 }, backplane: { url: redis.url, key_prefix: prefix }, stats: { interval: '1s', latency: '1m' } } });
    await waitFor(async () => (await host.request('/health')).json.checks.stats.instances === count + 1, 'the fleet in the sums', 20000);
    const quiet_stop = pinger(host.port);
    await new Promise((resolve) => { setTimeout(resolve, 900); });
    const quiet = await quiet_stop();
    const still = await read(host, 1);
    const stop = pinger(host.port);
    const pinged = await read(host, 1);
    const busy = await stop();
    const rows = await read(host, 1000);
    const name = (what) => `${(count + 1).toLocaleString('en')} hosts, 4 regions: ${what}`;
    print(name('added up in'), still.ms, 'ms', `worst of ${rounds}: ${still.worst_ms.toFixed(1)} ms${count === 1000 ? '; aim under 100' : ''}`);
    print(name('the same with 1,000 rows to show'), rows.ms, 'ms', `worst ${rows.worst_ms.toFixed(1)} ms`);
    print(name('CPU of the worker'), still.cpu_us / 1000, 'ms', `${rows.cpu_us > 0 ? (rows.cpu_us / 1000).toFixed(2) : '-'} with rows; one every stats.interval in the whole fleet`);
    print(name('another answer meanwhile, p99'), busy[Math.floor(busy.length * 0.99)], 'us', `longest ${(busy.at(-1) / 1000).toFixed(2)} ms of ${busy.length}; ${pinged.ms.toFixed(1)} ms each`);
    print(name('another answer without, p99'), quiet[Math.floor(quiet.length * 0.99)], 'us', `longest ${(quiet.at(-1) / 1000).toFixed(2)} ms of ${quiet.length}`);
    if (count === 0) alone = still;
    if (count === 1000) thousand = still;
    fleet.close();
    await host.stop();
  }
  print('CPU per host and report (1,001 hosts less 1)', (thousand.cpu_us - alone.cpu_us) / 1000, 'us', '4 reports of a host');
  await redis.stop();
}
