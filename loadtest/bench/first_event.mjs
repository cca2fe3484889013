// first_event - the time to the first token through the server over asking the mock directly.
import { startMock, startServer } from '../../t/wire/lib/server.mjs';
import { load, median, print } from './lib.mjs';

export default async function first_event() {
  const mock = await startMock(null);
  const server = await startServer(null, { mock });
  const seen = { p50: [], p99: [], direct50: [], direct99: [] };
  for (let round = 0; round < 5; round++) {
    const direct = await load(mock.address, 'direct', { users: 4, count: 1000 });
    const turns = await load(server.address, 'turns', { users: 4, count: 1000 });
    seen.direct50.push(direct.first_us.p50);
    seen.direct99.push(direct.first_us.p99);
    seen.p50.push(turns.first_us.p50 - direct.first_us.p50);
    seen.p99.push(turns.first_us.p99 - direct.first_us.p99);
  }
  print('first token from the mock itself, p50', median(seen.direct50), 'us', 'median of 5, 4 users');
  print('first token from the mock itself, p99', median(seen.direct99), 'us');
  print('added by the server, p50', median(seen.p50), 'us', 'the user message is committed first');
  print('added by the server, p99', median(seen.p99), 'us');
  await server.stop();
  await mock.stop();
}
