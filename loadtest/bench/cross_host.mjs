// cross_host - tool results posted to another host, through Redis, against the same host; both as they come and one at a time.
import { all_pids, cpuSeconds, generate, median, print } from './lib.mjs';
import { startTwo } from './two_hosts.mjs';

const rounds = 5;

export default async function cross_host() {
  const { hosts: [a, b], redis, stop } = await startTwo({ workers: 2, http: { max_keepalive_requests: 0 }, tools: { client_timeout: '10m' } });
  const pids = () => [...all_pids(a), ...all_pids(b), redis.child.pid];
  const seen = { same: [], other: [] };
  for (let round = 0; round < rounds; round++) {
    for (const [where, to] of [['same', a], ['other', b]]) {
      const before = cpuSeconds(pids());
      const full = await generate(a.address, ['--other', to.address, '--users', 32, '--count', 10000, 'tool-results']);
      const cpu = cpuSeconds(pids()) - before;
      const light = await generate(a.address, ['--other', to.address, '--users', 2, '--count', 2000, 'tool-results']);
      for (const { failed, refused } of [full, light]) if (failed + refused > 0) throw new Error(`${where}: ${failed} failed, ${refused} refused`);
      seen[where].push({ per_second: full.per_second, per_cpu: full.done / cpu, p50: light.whole_us.p50, p99: light.whole_us.p99, full_p99: full.whole_us.p99 });
    }
  }
  const of = (where, name) => median(seen[where].map((round) => round[name]));
  const ratio = (name) => `${(of('other', name) / of('same', name)).toFixed(2)} times the same host`;
  print('posted to the owner\'s host, 32 users', of('same', 'per_second'), 'per second', `median of ${rounds}; all processes share the cores`);
  print('posted to another host, 32 users', of('other', 'per_second'), 'per second', ratio('per_second'));
  print('posted to the owner\'s host', of('same', 'per_cpu'), 'per CPU-s', 'both hosts and Redis');
  print('posted to another host', of('other', 'per_cpu'), 'per CPU-s', ratio('per_cpu'));
  print('p50 on the same host, 2 users', of('same', 'p50'), 'us');
  print('p99 on the same host, 2 users', of('same', 'p99'), 'us');
  print('added p50 on another host, 2 users', of('other', 'p50') - of('same', 'p50'), 'us');
  print('added p99 on another host, 2 users', of('other', 'p99') - of('same', 'p99'), 'us', 'aim: p99 under 3,000');
  print('p99 on another host, 2 users', of('other', 'p99'), 'us');
  print('p99 on another host, 32 users', of('other', 'full_p99'), 'us', 'as many as it takes');
  await stop();
}
