// gateway_memory - what concurrent streams take, of Parley and of others (gateways.mjs), and whether it grows with the answer.
//
// Of 100 tokens 80 come at once and the others at a pace, so that all stand together; of 10,000 all but 20 do. Who does not read what
// goes by carries 1,000 streams; the others fewer, as a million long events would take them many minutes. Once each: 5 minutes.
import { startMock } from '../../t/wire/lib/server.mjs';
import { asked, core_of_others, row, withGateway } from './gateway.mjs';
import { gateways } from './gateways.mjs';
import { median, pin, print, pssBytes, sampled } from './lib.mjs';

const paced = 20, interval_ms = 200;
const lengths = [100, 10000];
const streams_of = (gateway) => (gateway.is_plain_proxy || gateway === gateways[0] ? 1000 : 50);

/** {all: MiB while they stood and were paced, most: at most, each: bytes per stream above what it was without them}. */
async function taken(gateway, streams, tokens) {
  const bytes = () => pssBytes(gateway.pids);
  await asked(gateway, '--users', 64, '--count', 256);
  const before = bytes();
  const streaming = asked(gateway, '--users', streams, '--rate', streams, '--count', streams, '--tokens', tokens,
    '--burst', tokens - paced, '--interval', interval_ms, '--limit', 240);
  const { seen } = await sampled(streaming, 200, bytes);
  const standing = median(seen.slice(-12, -2)); // of the last two seconds: all stand, and what came at once is gone
  return { all: standing / 2 ** 20, most: Math.max(...seen) / 2 ** 20, each: (standing - before) / streams };
}

export default async function gateway_memory() {
  const seen = new Map(lengths.map((tokens) => [tokens, []]));
  for (const gateway of gateways) {
    for (const tokens of lengths) {
      const mock = await startMock(null);
      pin([mock.pid], core_of_others);
      seen.get(tokens).push(await withGateway(gateway, mock, (started) => taken(started, streams_of(gateway), tokens)).finally(() => mock.stop()));
    }
  }
  row('once', gateways.map(({ name }) => name));
  row('streams', gateways.map((gateway) => String(streams_of(gateway))));
  for (const [tokens, each] of seen) {
    row(`${tokens} tokens, in all`, each.map(({ all }) => all), 'MiB PSS');
    row(`${tokens} tokens, at most, as they came at once`, each.map(({ most }) => most), 'MiB PSS');
    row(`${tokens} tokens, each`, each.map((taken_by) => taken_by.each), 'bytes');
  }
  const [short, long] = lengths;
  row(`a stream of ${long} to one of ${short}`, gateways.map((_, i) => seen.get(long)[i].each / seen.get(short)[i].each), 'times');
  print('ours, a stream of 10,000 tokens to one of 100', seen.get(long)[0].each / seen.get(short)[0].each, 'times', 'aim: flat');
}
