// gateway_memory - what 1,000 concurrent streams take, of Parley and of others (gateways.mjs), and whether it grows with the answer.
//
// Of 100 tokens 80 come at once and the others at a pace, so that all stand together; of 10,000 all but 20 do.
import { startMock } from '../../t/wire/lib/server.mjs';
import { asked, core_of_others, row, withGateway } from './gateway.mjs';
import { gateways } from './gateways.mjs';
import { median, pin, print, pssBytes, sampled } from './lib.mjs';

const rounds = 3, streams = 1000, paced = 20, interval_ms = 200;
const tokens_short = 100, tokens_long = 10000;

/** {all: MiB while they stood and were paced, most: at most, each: bytes per stream above what it was without them}. */
async function taken(gateway, tokens) {
  const bytes = () => pssBytes(gateway.pids);
  await asked(gateway, '--users', 64, '--count', 256);
  const before = bytes();
  const streaming = asked(gateway, '--users', streams, '--rate', streams, '--count', streams, '--tokens', tokens,
    '--burst', tokens - paced, '--interval', interval_ms);
  const { seen } = await sampled(streaming, 200, bytes);
  const standing = median(seen.slice(-12, -2)); // of the last two seconds: all stand, and what came at once is gone
  return { all: standing / 2 ** 20, most: Math.max(...seen) / 2 ** 20, each: (standing - before) / streams };
}

export default async function gateway_memory() {
  const seen = new Map();
  const note = (name, value) => seen.set(name, [...(seen.get(name) ?? []), value]);
  for (let round = 0; round < rounds; round++) {
    for (const gateway of gateways) {
      // A long answer through a gateway that reads each event takes minutes.
      for (const tokens of gateway.is_plain_proxy || gateway === gateways[0] ? [tokens_short, tokens_long] : [tokens_short]) {
        const mock = await startMock(null);
        pin([mock.pid], core_of_others);
        const { all, most, each } = await withGateway(gateway, mock, (started) => taken(started, tokens)).finally(() => mock.stop());
        note(`${gateway.name} ${tokens} all`, all);
        note(`${gateway.name} ${tokens} most`, most);
        note(`${gateway.name} ${tokens} each`, each);
      }
    }
  }
  const of = (gateway, tokens, what) => (seen.has(`${gateway.name} ${tokens} ${what}`) ? median(seen.get(`${gateway.name} ${tokens} ${what}`)) : '');
  row(`${streams} streams, median of ${rounds}`, gateways.map(({ name }) => name));
  for (const tokens of [tokens_short, tokens_long]) {
    row(`${tokens} tokens, in all`, gateways.map((g) => of(g, tokens, 'all')), 'MiB PSS');
    row(`${tokens} tokens, at most, as they came at once`, gateways.map((g) => of(g, tokens, 'most')), 'MiB PSS');
    row(`${tokens} tokens, each`, gateways.map((g) => of(g, tokens, 'each')), 'bytes');
  }
  print('ours, a stream of 10,000 tokens to one of 100', of(gateways[0], tokens_long, 'each') / of(gateways[0], tokens_short, 'each'), 'times',
    'aim: flat');
}
