// ws_sessions - 10,000 WebSockets, each in a session of its own: their memory while one of a hundred chats, and first events
// while 1,000 streams run at once.
//
// Who chats sends a message every 10 s, give or take a half, answered with 20 tokens at 20 ms. That goes on for longer than the
// events of finished turns are kept (turns.retain_events, 5 minutes), so that memory has its size. The 1,000 streams begin
// together; each is followed by the next; 40 tokens at 100 ms.
import { startMock, startServer } from '../../t/wire/lib/server.mjs';
import { all_pids, generate, hold, print, pssBytes, sampled } from './lib.mjs';

const count = 10000, streams = 1000;
const calm = { tokens: ['--tokens', 20, '--interval', 20], hold_s: 330 };
const hot = { tokens: ['--tokens', 40, '--interval', 100], hold_s: 40 };

const config = (mock) => ({
  workers: 2, max_connections: 6000, // the kernel spreads them by chance
  providers: [{ name: 'mock', dialect: 'openai', base_url: mock.url, api_key: 'sk-test',
    http_client: { max_connections: 2 * streams, max_keepalive: streams, concurrent_requests: 2 * streams, requests_per_minute: 0 } }],
});

const ms = (us) => us / 1e3;

function check(result) {
  if (!result.passed) throw new Error(JSON.stringify(result));
  return result;
}

/** The same questions to the mock itself. */
const ownTime = async (mock, users, pace, tokens) =>
  check(await generate(mock.address, ['--users', users, '--pace', pace, '--duration', 20, ...(pace ? ['--rate', users / pace] : []), ...tokens, 'direct'])).first_us;

function show(what, { first_us, turns }, own) {
  print(`${what}: first event, p50`, ms(first_us.p50), 'ms', `${turns} turns`);
  print(`${what}: first event, p99`, ms(first_us.p99), 'ms');
  print('  the mock by itself, p50, p99', `${ms(own.p50).toFixed(2)}, ${ms(own.p99).toFixed(2)}`, 'ms');
}

export default async function ws_sessions() {
  const mock = await startMock(null);
  const server = await startServer(null, { mock, config: config(mock) });
  const pss = () => pssBytes(all_pids(server)) / 2 ** 20;
  print('the server, 2 workers, before anybody came', pss(), 'MiB PSS');
  const own = await ownTime(mock, count / 100, 10, calm.tokens);
  const holder = await hold(server.address, 'idle-ws', { count, limit: calm.hold_s + 120,
    args: ['--join', '--active', '1%', '--pace', 10, '--sample', 20, '--hold', calm.hold_s, ...calm.tokens] });
  print(`${count} sessions joined`, pss(), 'MiB PSS');
  const { result, seen } = await sampled(holder.ended(), 1000, pss);
  check(result);
  print('1 % chat: memory in all, the most of it', Math.max(...seen), 'MiB PSS', 'aim under 40; master included');
  show('1 % chat', result, own);
  print('  over the mock, p99', ms(result.first_us.p99 - own.p99), 'ms', 'aim under 50');
  print('1 % chat: round trip over an idle socket, p99', ms(result.echo_us.p99), 'ms', `${result.echo_us.count} samples`);

  const own_hot = await ownTime(mock, streams, 0, hot.tokens);
  const streaming = await hold(server.address, 'idle-ws', { count, limit: hot.hold_s + 120,
    args: ['--join', '--active', `${100 * streams / count}%`, '--sample', 20, '--hold', hot.hold_s, ...hot.tokens] });
  const { result: busy, seen: grown } = await sampled(streaming.ended(), 1000, pss);
  check(busy);
  show(`${streams} streams at once`, busy, own_hot);
  print('  over the mock, p99', ms(busy.first_us.p99 - own_hot.p99), 'ms', 'aim under 1,000');
  print(`${streams} streams at once: memory, the most of it`, Math.max(...grown), 'MiB PSS');
  await server.stop();
  await mock.stop();
}
