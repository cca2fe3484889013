// first_event - the time to the first token through the server over asking the mock directly, and its parts.
import { startMock, startServer } from '../../t/wire/lib/server.mjs';
import { load, median, print } from './lib.mjs';

// Mean of a histogram over what happened between two scrapes, in microseconds.
async function meter(server, name, label) {
  const read = async () => {
    const { text } = await server.request('/metrics');
    return ['sum', 'count'].map((part) => Number(new RegExp(`^parley_${name}_${part}\\{${label}\\} (\\S+)`, 'm').exec(text)[1]));
  };
  const [sum, count] = await read();
  return async () => {
    const [sum_after, count_after] = await read();
    return (1e6 * (sum_after - sum)) / (count_after - count);
  };
}

async function figures(mock, users, synchronous) {
  const server = await startServer(null, { mock, config: { workers: 1, store: { synchronous } } });
  const seen = { p50: [], p99: [], direct50: [], direct99: [], write: [], read: [] };
  for (let round = 0; round < 5; round++) {
    const direct = await load(mock.address, 'direct', { users, count: 1000 });
    const write = await meter(server, 'store_query_seconds', 'op="write"');
    const read = await meter(server, 'store_query_seconds', 'op="read"');
    const turns = await load(server.address, 'turns', { users, count: 1000 });
    seen.write.push(await write());
    seen.read.push(await read());
    seen.direct50.push(direct.first_us.p50);
    seen.direct99.push(direct.first_us.p99);
    seen.p50.push(turns.first_us.p50 - direct.first_us.p50);
    seen.p99.push(turns.first_us.p99 - direct.first_us.p99);
  }
  const at = `${users} user${users > 1 ? 's' : ''}, synchronous=${synchronous}`;
  print(`first token from the mock itself, p50, ${users} user${users > 1 ? 's' : ''}`, median(seen.direct50), 'us', `p99 ${median(seen.direct99)} us; medians of 5`);
  print(`added by the server, p50, ${at}`, median(seen.p50), 'us', 'the user message is committed first');
  print(`added by the server, p99, ${at}`, median(seen.p99), 'us');
  print('  of it: a write, queued, committed and answered, mean', median(seen.write), 'us');
  print('  of it: a read (three of them), mean', median(seen.read), 'us');
  await server.stop();
}

export default async function first_event() {
  const mock = await startMock(null);
  for (const users of [1, 4, 16]) await figures(mock, users, 'full');
  for (const users of [1, 4]) await figures(mock, users, 'normal');
  await mock.stop();
}
