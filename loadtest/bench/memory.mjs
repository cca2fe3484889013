// memory - resident bytes (PSS, all processes) per idle connection, per idle stream and per idle session.
import { keys, startMock, startServer } from '../../t/wire/lib/server.mjs';
import { all_pids, anonymousBytes, hold, median, print, pssBytes } from './lib.mjs';

const count = 8000;

export default async function memory() {
  const mock = await startMock(null);
  const config = { workers: 1, max_connections: 15000, http: { keepalive_timeout: '10m' }, tools: { client_timeout: '10m' },
    turns: { max_listeners: 100000 } };
  const grown = async (scenario, bytesOf = pssBytes) => {
    const values = [];
    for (let round = 0; round < 3; round++) {
      const server = await startServer(null, { mock, config });
      const before = bytesOf(all_pids(server));
      const holder = await hold(server.address, scenario, { count });
      values.push((bytesOf(all_pids(server)) - before) / count);
      await holder.release();
      await server.stop();
    }
    return median(values);
  };
  print('per idle keep-alive connection', await grown('idle-keepalive'), 'bytes', `${count}, median of 3; reference 1,056`);
  print('per idle SSE stream', await grown('idle-sse'), 'bytes', `${count}, median of 3; reference 5,392`);
  print('per idle WebSocket', await grown('idle-ws'), 'bytes', `${count}, median of 3`);
  print('per idle WebSocket, anonymous memory only', await grown('idle-ws', anonymousBytes), 'bytes', 'reference 272 without the state of a chat');
  const server = await startServer(null, { mock, config });
  const before = pssBytes(all_pids(server));
  const sessions = 2000;
  for (let i = 0; i < sessions; i += 50) {
    await Promise.all(Array.from({ length: 50 }, () => server.request('/v1/sessions', { key: keys.server, body: {} })));
  }
  print('per idle session (only in the record)', (pssBytes(all_pids(server)) - before) / sessions, 'bytes', `${sessions} opened over HTTP`);
  print('the whole server, 1 worker, after that', pssBytes(all_pids(server)) / 2 ** 20, 'MiB PSS');
  await server.stop();
  const four = await startServer(null, { mock, config: { workers: 4 } });
  print('the whole server, 4 workers, idle', pssBytes(all_pids(four)) / 2 ** 20, 'MiB PSS');
  await four.stop();
  await mock.stop();
}
