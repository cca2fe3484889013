// ws_upgrades - WebSockets opened on /ws/chat and closed again with a whole closing handshake, per CPU second of the server.
import { startServer } from '../../t/wire/lib/server.mjs';
import { all_pids, cpuSeconds, generate, median, print } from './lib.mjs';

const rounds = 5, count = 60000, users = 64;

export default async function ws_upgrades() {
  const server = await startServer(null, { mock: false, config: { workers: 1 } });
  const once = async (n) => {
    const before = cpuSeconds(all_pids(server));
    const result = await generate(server.address, ['--users', users, '--count', n, 'upgrades']);
    if (!result.passed) throw new Error(JSON.stringify(result));
    return { per_cpu_s: n / (cpuSeconds(all_pids(server)) - before), result };
  };
  await once(5000);
  const seen = [];
  for (let i = 0; i < rounds; i++) seen.push(await once(count));
  const of = (figure) => median(seen.map(figure));
  print('upgraded, answered and closed', of(({ per_cpu_s }) => per_cpu_s), '/CPU-s', `median of ${rounds}; aim 20,000; 1 worker, ${users} at once`);
  print('  by the clock', of(({ result }) => result.per_second), 'per second', 'server and load share two cores');
  print('  until the upgrade is answered, p99', of(({ result }) => result.first_us.p99) / 1e3, 'ms');
  await server.stop();
}
