// many - so many idle WebSockets, each joined to a session of its own, held for a while: what they cost and how they are served.
//
// Not a benchmark by itself: ws_100k and ws_million are. The memory of a socket is told in two parts: what the processes of the
// server have (PSS, which includes the session's record in memory), and what is gone from the machine besides: the kernel's
// sockets, both ends of each connection. The generator stops before the machine runs out of memory or files.
import fs from 'node:fs';
import { startServer } from '../../t/wire/lib/server.mjs';
import { waitFor } from '../../t/wire/lib/wait.mjs';
import { all_pids, cpuSeconds, hold, print, pssBytes } from './lib.mjs';

/** Of the machine: bytes that are free, and those of files, which can be had. */
function freeBytes() {
  try {
    fs.writeFileSync('/proc/sys/vm/drop_caches', '2'); // names and inodes that nobody uses: they hide what sockets take
  } catch {
    // without the right to, the kernel's part is told too low, if there was much of them before
  }
  const text = fs.readFileSync('/proc/meminfo', 'utf8');
  const of = (name) => 1024 * Number(new RegExp(`^${name}: +(\\d+) kB`, 'm').exec(text)[1]);
  return of('MemFree') + of('Active\\(file\\)') + of('Inactive\\(file\\)');
}

/** Runs it and prints its figures. */
export async function many({ count, workers, users, hold_s, limit }) {
  const server = await startServer(null, { mock: false,
    config: { workers, max_connections: 19000, connection_queue_size: 2000 } }); // a process may open 20,000 files
  server.expectLog(/provider health/); // there is none
  const pids = all_pids(server);
  const before = { pss: pssBytes(pids), free: freeBytes(), cpu: cpuSeconds(pids) };
  const holder = await hold(server.address, 'idle-ws', { count, users, limit, stops: true,
    args: ['--join', '--sample', 100, '--hold', hold_s, '--leave-memory', '1GiB'] });
  const { standing } = holder;
  const stood = { pss: pssBytes(pids), free: freeBytes(), cpu: cpuSeconds(pids), at: Date.now() };
  const load = pssBytes(holder.pids);
  await new Promise((resolve) => setTimeout(resolve, (hold_s - 5) * 1e3));
  const idle = (cpuSeconds(pids) - stood.cpu) / ((Date.now() - stood.at) / 1e3);
  const after = { pss: pssBytes(pids), cpu: cpuSeconds(pids) };
  const result = await holder.ended();
  const user = Math.max(stood.pss, after.pss);
  const each = (bytes) => bytes / standing;
  print('sessions that stand, each with its WebSocket', standing, '', result.stopped || `${workers} workers`);
  print('  made per second, sessions and all', result.per_second, 'per second', `${result.ramp_s.toFixed(0)} s; ${users} at a time`);
  print('  CPU of the server for each', (stood.cpu - before.cpu) / standing * 1e6, 'us', 'session made, upgrade, join');
  print('memory of the server, user, for each', each(user - before.pss), 'bytes PSS', 'aim at most 1,024');
  print('  the whole server', user / 2 ** 20, 'MiB PSS', 'master and all workers');
  print('memory of the kernel for each, both ends', each(before.free - stood.free - (stood.pss - before.pss) - load), 'bytes');
  print('  the generator, user, for each', each(load), 'bytes PSS');
  print(`held for ${hold_s} s: pings answered`, result.pings, '', `${result.cut} lost; the ramp's included`);
  print('round trips sampled meanwhile, p50, p99', `${result.echo_us.p50}, ${result.echo_us.p99}`, 'us',
    `${result.echo_us.count}, ${result.unanswered} did not come back`);
  print('CPU of the server for each, idle', idle / standing * 1e6, 'us per second', `${idle.toFixed(2)} cores in all`);
  await waitFor(async () => (await server.request('/health')).json.connections.active === 0, 'end of all sockets', 120000);
  await server.stop();
}
