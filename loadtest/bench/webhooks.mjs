// webhooks - deliveries per second of one host, with one of ten endpoints dead: by the clock and by the CPU, SQLite and PostgreSQL.
import { fileURLToPath } from 'node:url';
import { freePort } from '../../t/wire/lib/port.mjs';
import { startPostgres } from '../../t/wire/lib/postgres.mjs';
import { Child } from '../../t/wire/lib/process.mjs';
import { keys, startServer } from '../../t/wire/lib/server.mjs';
import { all_pids, cpuSeconds, median, print } from './lib.mjs';

const workers = 2, good = 9, each = Number(process.env.EACH ?? 3000), rounds = 3, per_request = 1000;
const key = keys.admin, base = '/admin/v1/webhooks';

async function post(server, route, body) {
  const { status, text } = await server.request(`${base}/${route}`, { key, body, limit_ms: 60000 });
  if (status >= 300) throw new Error(`${route}: ${status} ${text}`);
}

const countOf = (sink) => Number(/^count (\d+)/.exec(sink.lines.at(-1))?.[1] ?? 0);

/** Everything waits in the outbox, then its endpoints are enabled. */
async function round(server, sink, names, { dead }) {
  for (const name of names) await post(server, `endpoints/conf:${name}/disable`, {});
  const started = performance.now();
  for (const name of names) {
    for (let n = 0; n < each; n += per_request) await post(server, 'test', { endpoint: `conf:${name}`, count: per_request, streams: 100 });
  }
  if (dead) for (let n = 0; n < each; n += per_request) await post(server, 'test', { endpoint: 'conf:dead', count: per_request });
  const added = performance.now() - started, before = countOf(sink), wanted = before + each * names.length;
  const pids = all_pids(server), cpu = cpuSeconds(pids), sink_cpu = cpuSeconds([sink.pid]), from = performance.now();
  for (const name of names) await post(server, `endpoints/conf:${name}/enable`, {});
  while (countOf(sink) < wanted) {
    await new Promise((resolve) => { setTimeout(resolve, 10); });
    if (performance.now() - from > 120000) throw new Error(`${countOf(sink) - before} of ${wanted - before} came:\n${server.output().slice(-3000)}`);
  }
  const took = (performance.now() - from) / 1000, count = each * names.length;
  return {
    per_second: count / took, per_cpu: count / (cpuSeconds(pids) - cpu), sink: count / (cpuSeconds([sink.pid]) - sink_cpu),
    added: (count + (dead ? each : 0)) / added * 1000,
  };
}

export default async function webhooks() {
  const postgres = await startPostgres(null, { fsync: 'on', max_connections: 100 });
  const sink = new Child(process.execPath, [fileURLToPath(new URL('webhook_sink.mjs', import.meta.url)), String(good)]);
  const ports = (await sink.line(/^ports (.*)/))[1].split(',');
  const names = ports.map((_, i) => `good${i}`);
  const endpoints = [...ports.map((port, i) => ({ name: names[i], url: `http://127.0.0.1:${port}/hook`, secret: 'whsec_c2VjcmV0' })),
    { name: 'dead', url: `http://127.0.0.1:${await freePort()}/` }];
  const config = { workers, webhooks: { allow_private: true, endpoints }, http: { request_timeout: '60s' } };
  for (const [store, url] of [['SQLite', undefined], ['PostgreSQL', postgres.url]]) {
    const server = await startServer(null, { mock: false, config: { ...config, ...(url ? { store: { url } } : {}) } });
    server.expectLog(/stats slow/);
    // The workers make them known when they first look.
    while ((await server.request(`${base}/endpoints`, { key })).json.data.length < endpoints.length) await new Promise(setImmediate);
    const seen = { all: [], dead: [] };
    for (let i = 0; i < rounds; i++) {
      seen.all.push(await round(server, sink, names, { dead: false }));
      seen.dead.push(await round(server, sink, names, { dead: true }));
    }
    const of = (kind, name) => median(seen[kind].map((one) => one[name]));
    print(`webhooks, nine endpoints, ${store}`, of('all', 'per_second'), 'deliveries/s', `${workers} workers, ${each} each, 100 streams each, signed; median of ${rounds}`);
    print(`webhooks, .. and a tenth that is dead, ${store}`, of('dead', 'per_second'), 'deliveries/s', `${(of('dead', 'per_second') / of('all', 'per_second')).toFixed(2)} times`);
    print(`webhooks, ${store}, the server's CPU`, of('dead', 'per_cpu'), 'deliveries/CPU-s', `endpoints: ${Math.round(of('dead', 'sink'))}`);
    print(`webhooks, ${store}, written into the outbox`, of('dead', 'added'), 'webhooks/s', 'by one client, 1000 in a request');
    await server.stop();
  }
  await sink.stop();
  await postgres.stop();
}
