// ws_storm - 50,000 WebSockets, each in a session of its own, are cut at the same moment, come back at once and join again.
//
// The server has what it refuses with when its cores run out (`overload`) switched on, as it is unless it is said otherwise; who is
// refused comes again after a second.
import { startServer } from '../../t/wire/lib/server.mjs';
import { all_pids, cpuSeconds, generate, print } from './lib.mjs';

const sockets = 50000, storms = 3;

export default async function ws_storm() {
  const config = { workers: 4, max_connections: 15000, backlog: 4096, connection_queue_size: 2000, overload: { target: '5ms' } };
  const server = await startServer(null, { mock: false, config });
  server.expectLog(/refused|accepting paused|overload/);
  const before = cpuSeconds(all_pids(server));
  const result = await generate(server.address, ['--users', sockets, '--count', sockets * storms,
    '--limit', 180, 'ws-storm']);
  const cpu = cpuSeconds(all_pids(server)) - before;
  if (result.missing > 0) throw new Error(JSON.stringify(result));
  const seconds = (us) => us / 1e6;
  print(`storm of ${sockets}: until the last stands again, the longest`, seconds(result.resume_us.max), 's', `of ${storms} storms; aim 10; sessions joined again`);
  print('  half of them stand again after', seconds(result.resume_us.p50), 's', 'from the cut');
  print('  from the dial of one until it stands, p99', seconds(result.first_us.p99), 's');
  print('  refused for the moment, of them', result.refused, '', 'they came again after a second');
  print('  broken', result.failed, '');
  print('  CPU of the server, preparation included', cpu / (sockets * (storms + 1)) * 1e6, 'us', 'each time one comes');
  await server.stop();
}
