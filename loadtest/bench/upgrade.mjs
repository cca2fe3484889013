// upgrade - what clients see of a new binary and of a reload: 16,000 WebSockets, each in a session of its own, 1,000 of them in one turn
// after the other; beside the same time in which nothing is done.
//
// Tokens come 100 ms apart, so a pause is what is longer than that between two events of a turn; of those who only listen 200 a second
// are sampled by a round trip.
import { Child, build, isGone } from '../../t/wire/lib/process.mjs';
import { keys, startMock, startServer } from '../../t/wire/lib/server.mjs';
import { waitFor, within } from '../../t/wire/lib/wait.mjs';
import path from 'node:path';
import { print } from './lib.mjs';

const idle = 15000, running = 1000, interval = 100, tokens = 40, hold_s = 20;

const kinds = {
  'nothing done': async () => {},
  reload: async (server) => {
    const from = server.lines.length, old = server.workers();
    server.kill('SIGHUP');
    await server.line(/reload done/, 20000, from);
    return () => old.every(isGone);
  },
  upgrade: async (server) => {
    const old = server.master;
    await server.upgrade();
    return () => isGone(old);
  },
};

/** One hold of the sockets, with this in its midst: {result, took_ms, drained_ms}. */
async function during(server, act) {
  const count = idle + running;
  const load = new Child(path.join(build, 'parley_load'), ['--target', server.address, '--key', keys.server, '--users', 64, '--count', count, '--limit', 150,
    '--join', '--active', `${100 * running / count}%`, '--pace', 0, '--tokens', tokens, '--interval', interval, '--sample', 200, '--hold', hold_s, 'idle-ws'].map(String));
  await load.line(/^standing/, 60000);
  const live = async () => Number(/^parley_turns_live.* (\d+)$/m.exec((await server.request('/metrics')).text)?.[1] ?? 0);
  await waitFor(async () => await live() >= 0.8 * running, 'turns', 20000).catch(() => {});
  const began = Date.now();
  const is_over = await act(server);
  const took_ms = Date.now() - began;
  if (is_over) await waitFor(is_over, 'end of the old ones', 30000);
  const drained_ms = Date.now() - began;
  await within(load.ended, 'end of parley_load', 60000);
  return { result: JSON.parse(load.lines.find((line) => line.startsWith('{'))), took_ms, drained_ms };
}

export default async function upgrade() {
  const mock = await startMock(null);
  const server = await startServer(null, { mock, config: {
    workers: 2, max_connections: 17000, connection_queue_size: 2000, backlog: 4096, drain: { timeout: '30s' },
    providers: [{ name: 'mock', dialect: 'openai', base_url: mock.url, api_key: 'sk-test',
      http_client: { max_connections: 2 * running, max_keepalive: running, concurrent_requests: 2 * running, requests_per_minute: 0 } }],
  } });
  for (const [kind, act] of Object.entries(kinds)) {
    const { result, took_ms, drained_ms } = await during(server, act);
    const { cut, turns, turns_failed, turns_refused, lost, doubled, unanswered, gap_us, echo_us, generator } = result;
    print(`${kind}: disconnects of ${idle + running}`, String(cut), '', 'aim 0');
    print(`${kind}: turns that were asked, failed or refused`, `${turns}, ${turns_failed + turns_refused}`, '', 'aim 0');
    print(`${kind}: events lost, doubled; round trips unanswered`, `${lost}, ${doubled}; ${unanswered}`, '', 'aim 0');
    print(`${kind}: longest pause in a running turn`, gap_us.max / 1e3 - interval, 'ms', `aim 250; p99 ${(gap_us.p99 / 1e3 - interval).toFixed(0)} ms of ${gap_us.count} gaps`);
    print(`${kind}: longest round trip of who only listens`, echo_us.max / 1e3, 'ms', `aim 250; p99 ${(echo_us.p99 / 1e3).toFixed(1)} ms of ${echo_us.count}${generator.saturated ? `; ${generator.why}` : ''}`);
    if (took_ms > 0 && kind !== 'nothing done') print(`${kind}: until the new ones serve, until the old ones have gone`, `${took_ms}, ${drained_ms}`, 'ms');
  }
  await server.stop();
  await mock.stop();
}
