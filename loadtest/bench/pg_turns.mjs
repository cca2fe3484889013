// pg_turns - turns with the record in a PostgreSQL of the same machine, against SQLite as it comes: by the clock and by the CPU.
import fs from 'node:fs';
import { startPostgres } from '../../t/wire/lib/postgres.mjs';
import { startMock, startServer } from '../../t/wire/lib/server.mjs';
import { all_pids, cpuSeconds, load, median, print } from './lib.mjs';

const rounds = 3, workers = 2;
const kinds = [
  ['not streamed', { plain: true, count: 2000 }],
  ['streamed, 20 tokens in one piece', { count: 2000 }],
];

/** Also of backends that have ended meanwhile: PostgreSQL's own processes come and go. */
function cpuOfPostgres(postgres) {
  const children = (pid) => {
    const fields = fs.readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1].split(' ');
    return (Number(fields[13]) + Number(fields[14])) / 100;
  };
  return cpuSeconds(postgres.processes()) + children(postgres.child.pid);
}

export default async function pg_turns() {
  const mock = await startMock(null);
  const postgres = await startPostgres(null, { fsync: 'on', max_connections: 100 });
  const servers = {
    sqlite: await startServer(null, { mock, config: { workers, max_connections: 5000 } }),
    postgres: await startServer(null, { mock, config: { workers, max_connections: 5000, store: { url: postgres.url } } }),
  };
  for (const [kind, options] of kinds) {
    const seen = { sqlite: [], postgres: [] };
    for (let round = 0; round < rounds; round++) {
      for (const [store, server] of Object.entries(servers)) {
        const look = () => [cpuSeconds(all_pids(server)), store === 'postgres' ? cpuOfPostgres(postgres) : 0];
        const before = look();
        const { done, per_second, whole_us } = await load(server.address, 'turns', { users: 20, ...options });
        const after = look(), ours = after[0] - before[0], its = after[1] - before[1];
        seen[store].push({ per_second, per_cpu: done / ours, in_all: done / (ours + its), p50: whole_us.p50, p99: whole_us.p99 });
      }
    }
    const of = (store, name) => median(seen[store].map((round) => round[name]));
    for (const [name, unit] of [['per_second', 'turns/s'], ['per_cpu', 'turns/CPU-s'], ['in_all', 'turns/CPU-s'], ['p50', 'us'], ['p99', 'us']]) {
      const what = { per_second: 'by the clock', per_cpu: "the server's CPU", in_all: 'with the CPU of PostgreSQL', p50: 'whole turn p50', p99: 'whole turn p99' }[name];
      if (name !== 'in_all') print(`${kind}, ${what}, SQLite`, of('sqlite', name), unit, name === 'per_second' ? `20 users, ${workers} workers, median of ${rounds}; synchronous=full` : '');
      print(`${kind}, ${what}, PostgreSQL`, of('postgres', name), unit, `${(of('postgres', name) / of('sqlite', name)).toFixed(2)} times SQLite`);
    }
  }
  for (const server of Object.values(servers)) await server.stop();
  await postgres.stop();
  await mock.stop();
}
