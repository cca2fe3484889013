// tool_results - results posted to any of 4 workers (three of four are the wrong one) against a single worker.
import { startMock, startServer } from '../../t/wire/lib/server.mjs';
import { cpuSeconds, load, median, print } from './lib.mjs';

export default async function tool_results() {
  const mock = await startMock(null);
  const seen = { 1: [], 4: [] };
  const servers = {};
  for (const workers of [1, 4]) servers[workers] = await startServer(null, { mock, config: { workers, http: { max_keepalive_requests: 0 } } });
  for (let round = 0; round < 5; round++) {
    for (const workers of [1, 4]) {
      const server = servers[workers];
      const before = cpuSeconds(server.workers());
      const result = await load(server.address, 'tool-results', { users: 32, count: 30000 });
      const light = await load(server.address, 'tool-results', { users: 2, count: 3000 });
      seen[workers].push({ ...result, cpu: cpuSeconds(server.workers()) - before, p99: light.whole_us.p99, p50: light.whole_us.p50 });
    }
  }
  const of = (workers, figure) => median(seen[workers].map(figure));
  print('posted to the owner (1 worker)', of(1, (r) => (r.done + 3000) / r.cpu), 'per CPU-s', 'median of 5');
  print('posted to any of 4 workers (3/4 wrong)', of(4, (r) => (r.done + 3000) / r.cpu), 'per CPU-s', 'aim 20,000 a core');
  print('posted to any of 4 workers, wall clock', of(4, (r) => r.per_second), 'per second', 'client and server share 2 cores');
  print('added p50 at 2 users', of(4, (r) => r.p50) - of(1, (r) => r.p50), 'us');
  print('added p99 at 2 users', of(4, (r) => r.p99) - of(1, (r) => r.p99), 'us', 'aim under 1,000');
  for (const server of Object.values(servers)) await server.stop();
  await mock.stop();
}
