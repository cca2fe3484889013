// overload - one worker is offered three times the turns that it carries: what becomes of those it admits, of those it
// refuses, and of its memory. Its places run out, not its core; for that see overload_core.
//
// A turn lasts 0.4 s at least, 20 tokens at 20 ms, as turns do that wait for a model; max_connections is what bounds how
// many are admitted. Capacity is found in a closed loop of just as many users; the load then arrives in an open one.
import { keys, startMock, startServer } from '../../t/wire/lib/server.mjs';
import { all_pids, cpuSeconds, generate, median, print, pssBytes, sampled, waitedSeconds } from './lib.mjs';

const places = 300;
const answer = ['--tokens', 20, '--interval', 20, '--turns', 1000];
// The events of finished turns are kept for a while: with a short one, what memory keeps is soon all that it will.
const config = (mock) => ({
  workers: 1, max_connections: places, turns: { retain_events: '1s' },
  providers: [{ name: 'mock', dialect: 'openai', base_url: mock.url, api_key: 'sk-test',
    http_client: { max_connections: 2000, max_keepalive: 2000, concurrent_requests: 1000, requests_per_minute: 0 } }],
});

export function note(result, text = '') {
  return [text, result.generator.saturated ? result.generator.why : ''].filter(Boolean).join('; ');
}

export default async function overload() {
  const mock = await startMock(null);
  const server = await startServer(null, { mock, config: config(mock) });
  server.expectLog(/connection refused|accepting paused/);
  const closed = await generate(server.address, ['--users', places - 10, '--rate', 500, '--duration', 5, ...answer, 'turns']);
  const carried = closed.whole_per_second;
  const calm = [];
  const calmly = async () => calm.push(await generate(server.address, ['--users', 60, '--rate', 200, '--offer', carried / 20, '--duration', 4, ...answer, 'arrivals']));
  await calmly();
  const pressed = ['--users', 4 * places, '--rate', 400, '--offer', 3 * carried, ...answer];
  await generate(server.address, [...pressed, '--duration', 3, 'arrivals']); // the first time memory grows to its size
  await calmly();
  const [worker] = server.workers();
  const [cpu, waited, began] = [cpuSeconds([worker]), waitedSeconds(worker), Date.now()];
  const { result: hot, seen } = await sampled(generate(server.address, [...pressed, '--duration', 10, 'arrivals']),
    500, () => pssBytes(all_pids(server)));
  const share = (seconds) => seconds / ((Date.now() - began) / 1e3);
  const [cpu_share, waited_share] = [share(cpuSeconds([worker]) - cpu), share(waitedSeconds(worker) - waited)];
  await calmly();
  const before = (time, figure) => median(calm.map((result) => result[`${time}_us`][figure]));
  const half = seen.length >> 1;
  print('carried by 1 worker, closed loop of 290 users', carried, 'turns/s', note(closed, 'turns of 0.4 s'));
  print('unloaded (a twentieth): first token, p99', before('first', 'p99') / 1e3, 'ms', 'median of 3');
  print('unloaded: whole turn, p99', before('whole', 'p99') / 1e3, 'ms');
  print('offered', hot.per_second, 'turns/s', note(hot, 'open loop, 10 s'));
  print('admitted and whole', hot.whole_per_second, 'turns/s');
  print('admitted and broken', hot.failed, 'turns');
  print('admitted: first token, p99', hot.first_us.p99 / 1e3, 'ms');
  print('admitted: whole turn, p99', hot.whole_us.p99 / 1e3, 'ms');
  print('  over unloaded', hot.whole_us.p99 / before('whole', 'p99'), 'times', 'aim at most 2');
  print('refused', hot.refused / hot.seconds, 'per second');
  print('refused, p50', hot.refusal_us.p50 / 1e3, 'ms');
  print('refused, p99', hot.refusal_us.p99 / 1e3, 'ms');
  print('refused without Retry-After', hot.unexplained, '');
  print('the worker used', cpu_share, 'of a core');
  print('the worker waited for', waited_share, 'of a core', waited_share > 0.2 ? 'the machine is too busy: the figures are its own' : '');
  print('memory, first half of it', median(seen.slice(0, half)) / 2 ** 20, 'MiB PSS');
  print('memory, second half', median(seen.slice(half)) / 2 ** 20, 'MiB PSS', 'aim: no more');
  const { status } = await server.request('/v1/sessions', { key: keys.server, body: {} });
  print('a session opened afterwards is answered', status, '');
  await server.stop();
  await mock.stop();
}
