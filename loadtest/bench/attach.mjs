// attach - a finished turn of 1,000 events read from its beginning over a new connection: on the host that has it, and on another one.
import { all_pids, cpuSeconds, generate, median, print } from './lib.mjs';
import { startTwo } from './two_hosts.mjs';

const rounds = 3, count = 400;

export default async function attach() {
  const { hosts: [a, b], redis, stop } = await startTwo({ workers: 2 });
  const read = async (to, operations) => {
    const pids = [...all_pids(a), ...all_pids(b), redis.child.pid], before = cpuSeconds(pids);
    const result = await generate(a.address, ['--other', to.address, '--users', 2, '--tokens', 1000, '--interval', 3, '--count', operations, 'replay']);
    if (result.failed + result.refused > 0) throw new Error(JSON.stringify(result));
    return { ...result, cpu: cpuSeconds(pids) - before };
  };
  const seen = { same: [], other: [] };
  for (let round = 0; round < rounds; round++) {
    const few = await read(a, 2); // the cost of the turns themselves
    for (const [where, to] of [['same', a], ['other', b]]) {
      const many = await read(to, count);
      const events = many.deltas / count;
      seen[where].push({ events, cpu_us: (1e9 * (many.cpu - few.cpu)) / (count - 2) / events, first: many.first_us.p50, p50: many.whole_us.p50, p99: many.whole_us.p99 });
    }
  }
  const of = (where, name) => median(seen[where].map((round) => round[name]));
  const ratio = (name) => `${(of('other', name) / of('same', name)).toFixed(2)} times the same host`;
  print('events of the turn', of('same', 'events'), '', 'tokens that came together are one');
  for (const [name, what] of [['first', 'until the first event, p50'], ['p50', 'until the last event, p50'], ['p99', 'until the last event, p99']]) {
    print(`${what}, same host`, of('same', name), 'us', name === 'first' ? `2 readers; median of ${rounds} rounds of ${count}` : '');
    print(`${what}, another host`, of('other', name), 'us', ratio(name));
  }
  print('CPU of a replay, of 1,000 events, same host', of('same', 'cpu_us'), 'us', 'both hosts and Redis');
  print('CPU of a replay, of 1,000 events, another host', of('other', 'cpu_us'), 'us', ratio('cpu_us'));
  await stop();
}
