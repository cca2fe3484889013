// turns - whole turns through the server with the record on SQLite, per CPU-second of all its processes.
import { startMock, startServer } from '../../t/wire/lib/server.mjs';
import { all_pids, cpuSeconds, load, print, rounds } from './lib.mjs';

export default async function turns() {
  const mock = await startMock(null);
  const server = await startServer(null, { mock, config: { workers: 1, max_connections: 5000 } });
  const figure = (plain) => async () => {
    const before = cpuSeconds(all_pids(server));
    const { done } = await load(server.address, 'turns', { users: 24, count: 3000, tokens: 20, plain });
    return done / (cpuSeconds(all_pids(server)) - before);
  };
  print('turns, not streamed', await rounds(5, figure(true)), 'turns/CPU-s', 'median of 5, 20 tokens, committed to SQLite');
  print('turns, streamed, 20 chunks', await rounds(5, figure(false)), 'turns/CPU-s', 'median of 5');
  await server.stop();
  await mock.stop();
}
