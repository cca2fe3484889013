// overload_core - as overload, but it is the worker's core that runs out, not its places.
//
// The worker has one core with the thread that writes the record, mock and generator have another. What is carried is what a
// closed loop of more users than that gets served while the server holds the time of its turns by refusing.
import { startMock, startServer } from '../../t/wire/lib/server.mjs';
import { all_pids, cpuSeconds, generate, median, pin, print, pssBytes, sampled } from './lib.mjs';
import { note } from './overload.mjs';

const server_core = 0, other_core = 1;
const crowd = 1000;
const places = 10 * crowd;

async function coreRunsOut(target) {
  const mock = await startMock(null);
  const server = await startServer(null, { mock, config: {
    workers: 1, max_connections: places, overload: { target }, turns: { retain_events: '1s' },
    providers: [{ name: 'mock', dialect: 'openai', base_url: mock.url, api_key: 'sk-test',
      http_client: { max_connections: places, max_keepalive: places, concurrent_requests: places, requests_per_minute: 0 } }],
  } });
  server.expectLog(/refused (reason=overload|repeated)|accepting paused/);
  pin(all_pids(server), server_core);
  pin([mock.pid], other_core);
  const run = (scenario, ...args) => generate(server.address, [...args, '--tokens', 20, '--interval', 20, '--turns', 20, scenario], { core: other_core });
  const closed = await run('turns', '--users', crowd, '--rate', 1000, '--duration', 6);
  const carried = closed.whole_per_second;
  const calm = await run('arrivals', '--users', 100, '--rate', 100, '--offer', carried / 20, '--duration', 8);
  const pressed = ['--users', 6 * crowd, '--rate', 1000, '--offer', 3 * carried];
  await run('arrivals', ...pressed, '--duration', 3); // the first time memory grows to its size
  const [worker] = server.workers();
  const [cpu, began] = [cpuSeconds([worker]), Date.now()];
  const { result: hot, seen } = await sampled(run('arrivals', ...pressed, '--duration', 20),
    500, () => pssBytes(all_pids(server)));
  const cpu_share = (cpuSeconds([worker]) - cpu) / ((Date.now() - began) / 1e3);
  print(`overload.target ${target}: closed loop of ${crowd}`, carried, 'turns/s', note(closed, 'turns of 0.4 s'));
  for (const [name, time] of [['first token', 'first_us'], ['whole turn', 'whole_us']]) {
    print(`unloaded (a twentieth): ${name}, p50 / p99`, `${calm[time].p50 / 1e3} / ${calm[time].p99 / 1e3}`, 'ms');
    print(`admitted: ${name}, p50 / p99`, `${hot[time].p50 / 1e3} / ${hot[time].p99 / 1e3}`, 'ms');
    print('  p99 over unloaded', hot[time].p99 / calm[time].p99, 'times', 'aim at most 2');
  }
  print('offered', hot.per_second, 'turns/s', note(hot, 'open loop, 20 s, the step from nothing included'));
  print('admitted and whole', hot.whole_per_second, 'turns/s');
  print('  of what is carried', hot.whole_per_second / carried, 'times', 'aim at least 0.7');
  print('admitted and broken', hot.failed, 'turns');
  print('refused', hot.refused / hot.seconds, 'per second');
  print('refused, p50 / p99', `${hot.refusal_us.p50 / 1e3} / ${hot.refusal_us.p99 / 1e3}`, 'ms');
  print('refused without Retry-After', hot.unexplained, '');
  print('the worker used, preparation included', cpu_share, 'of a core');
  const half = seen.length >> 1;
  print('memory, first half of it', median(seen.slice(0, half)) / 2 ** 20, 'MiB PSS');
  print('memory, second half', median(seen.slice(half)) / 2 ** 20, 'MiB PSS', 'aim: no more');
  await server.stop();
  await mock.stop();
}

export default async function overloadCore() {
  await coreRunsOut('5ms');
  await coreRunsOut('0'); // without admission control
}
