// tasks - durable tasks per second of one host, from the POST to the stored end: by the clock and by the CPU, SQLite and PostgreSQL.
import http from 'node:http';
import { startPostgres } from '../../t/wire/lib/postgres.mjs';
import { ask } from '../../t/wire/lib/record.mjs';
import { keys, startMock, startServer } from '../../t/wire/lib/server.mjs';
import { all_pids, cpuSeconds, median, print } from './lib.mjs';

const workers = 2, count = Number(process.env.TASKS ?? 3000), clients = 64, rounds = Number(process.env.ROUNDS ?? 3);
const body = JSON.stringify({ type: 'chat.completion', input: { messages: [{ role: 'user', content: 'hello' }] } });

const post = (agent, port) => new Promise((resolve, reject) => {
  const request = http.request({ agent, port, host: '127.0.0.1', path: '/v1/tasks', method: 'POST',
    headers: { authorization: `Bearer ${keys.server}`, 'content-type': 'application/json', 'content-length': Buffer.byteLength(body) } }, (response) => {
    response.resume();
    response.on('end', () => (response.statusCode === 202 ? resolve() : reject(new Error(`${response.statusCode}`))));
  });
  request.on('error', reject);
  request.end(body);
});

const ended = (server) => Number(ask(server, "SELECT count(*) AS n FROM tasks WHERE state = 'succeeded'")[0].n);

async function round(server, postgres) {
  const agent = new http.Agent({ keepAlive: true, maxSockets: clients });
  const before = ended(server), pids = all_pids(server), cpu = cpuSeconds(pids), its = postgres ? cpuSeconds(postgres.processes()) : 0;
  const from = performance.now();
  let left = count;
  await Promise.all(Array.from({ length: clients }, async () => { while (left-- > 0) await post(agent, server.port); }));
  const stored = performance.now() - from;
  while (ended(server) < before + count) {
    if (performance.now() - from > 120000) throw new Error(`${ended(server) - before} of ${count} ended`);
    await new Promise((resolve) => { setTimeout(resolve, 20); });
  }
  const took = performance.now() - from;
  agent.destroy();
  const ours = cpuSeconds(pids) - cpu;
  return { per_second: count / took * 1000, stored: count / stored * 1000, per_cpu: count / ours, in_all: count / (ours + (postgres ? cpuSeconds(postgres.processes()) - its : 0)) };
}

export default async function tasks() {
  const mock = await startMock(null), postgres = await startPostgres(null, { fsync: 'on', max_connections: 100 });
  for (const [store, url] of [['SQLite', undefined], ['PostgreSQL', postgres.url]]) {
    const server = await startServer(null, { mock, config: { workers, max_connections: 5000, ...(url ? { store: { url } } : {}) } });
    server.expectLog(/stats slow/);
    const seen = [];
    for (let i = 0; i < rounds; i++) seen.push(await round(server, url && postgres));
    const of = (name) => median(seen.map((one) => one[name]));
    print(`tasks, end to end, ${store}`, of('per_second'), 'tasks/s', `${workers} workers, ${count} posted by ${clients} clients of one process, median of ${rounds}`);
    print(`tasks, acknowledged meanwhile, ${store}`, of('stored'), 'tasks/s');
    print(`tasks, ${store}, the server's CPU`, of('per_cpu'), 'tasks/CPU-s');
    if (url) print(`tasks, ${store}, with the CPU of PostgreSQL`, of('in_all'), 'tasks/CPU-s');
    await server.stop();
  }
  await postgres.stop();
  await mock.stop();
}
