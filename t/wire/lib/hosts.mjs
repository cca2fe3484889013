// hosts - several hosts that act as one: one record, one Redis, a state directory each.
//
//   const [a, b] = await startHosts(t, { redis, store_url, mock, config: { workers: 4 } });
//   const [a, b] = await startHosts(t, { redis, store_url, mock, cutters: [left, right] });     each behind its own
import assert from 'node:assert/strict';
import { startServer } from './server.mjs';
import { waitFor } from './wait.mjs';

export const backplane = async (host) => (await host.request('/health')).json.checks.backplane;

/** Every worker of the host has its Redis. */
export const isUp = (host) => waitFor(async () => {
  const { status, mode } = await backplane(host);
  return status === 'ok' && mode === 'redis';
}, 'backplane over Redis', 20000);

/** None of them has. */
export const isAlone = (host, limit_ms) => waitFor(async () => {
  const { status, mode, workers_without } = await backplane(host);
  return status === 'degraded' && mode === 'local' && workers_without === host.config.workers;
}, 'every worker without Redis', limit_ms);

/** Lines that say that the host is on its own, or is no more: [{line, at (ms since 1970)}]. */
export function backplaneLines(host, regex) {
  return host.lines.filter((line) => regex.test(line)).map((line) => ({ line, at: Date.parse(line.split(' ')[0]) }));
}

export const warnings = (host) => backplaneLines(host, /WARN +backplane degraded/);

/**
 * An outage is said once when it begins and once when it is over, also when a machine with much else to do adds one of
 * its own. Gives how many have begun.
 */
export function outages(host) {
  const said = backplaneLines(host, /backplane (degraded|is back)/).map(({ line }) => /WARN/.test(line));
  assert.ok(said.every((begins, i) => begins === (i % 2 === 0)), host.lines.join('\n'));
  return Math.ceil(said.length / 2);
}

/** The last thing said of it is that it is alone. */
export const isTold = (host) => /WARN/.test(backplaneLines(host, /backplane (degraded|is back)/).at(-1)?.line);

/** All up. config is added to what makes them hosts of one; key_prefix: theirs alone. */
export async function startHosts(t, { redis, store_url, mock, config = {}, count = 2, cutters = [], key_prefix = 'hosts:' }) {
  const hosts = [];
  for (let i = 0; i < count; i++) {
    const port = cutters[i]?.port ?? redis.port;
    hosts.push(await startServer(t, { mock, config: {
      ...config,
      backplane: { url: `redis://127.0.0.1:${port}/0`, key_prefix, ...config.backplane },
      store: { url: store_url, pool_size: 2, ...config.store },
    } }));
  }
  await Promise.all(hosts.map(isUp));
  return hosts;
}
