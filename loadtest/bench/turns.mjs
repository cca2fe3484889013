// turns - whole turns through the server with the record on SQLite, per CPU-second of all its processes.
import { startMock, startServer } from '../../t/wire/lib/server.mjs';
import { all_pids, cpuSeconds, load, median, print } from './lib.mjs';

// As many users as the provider's pool keeps connections. A conversation's opening counts with its turns. The mock's
// 5 ms between tokens keep them apart; without them one packet brings all.
const kinds = [
  ['turns, not streamed', { plain: true, count: 4000 }],
  ['turns, not streamed, in conversations of 100 turns', { plain: true, count: 4000, turns: 100 }],
  ['turns, streamed, 20 tokens in one piece', { count: 4000 }],
  ['turns, streamed, 20 chunks', { count: 1500, interval: 5 }],
];

async function figures(config, note) {
  const mock = await startMock(null);
  const server = await startServer(null, { mock, config: { workers: 1, max_connections: 5000, ...config } });
  const seen = kinds.map(() => []);
  let chunks;
  for (let round = 0; round < 5; round++) {
    for (const [i, [, options]] of kinds.entries()) {
      const before = cpuSeconds(all_pids(server));
      const { done, deltas } = await load(server.address, 'turns', { users: 20, ...options });
      seen[i].push(done / (cpuSeconds(all_pids(server)) - before));
      if (options.interval) chunks = deltas / done;
    }
  }
  for (const [i, [name]] of kinds.entries()) print(name, median(seen[i]), 'turns/CPU-s', i === 0 ? `median of 5, ${note}` : '');
  print('  of them text.delta events per turn', chunks, '');
  await server.stop();
  await mock.stop();
}

export default async function turns() {
  await figures({}, 'SQLite with synchronous=full, conversations of 10 turns');
  await figures({ store: { synchronous: 'normal' } }, 'SQLite with synchronous=normal');
}
