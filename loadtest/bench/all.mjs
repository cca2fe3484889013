// all - runs the benchmarks named on the command line, the long ones of many sockets (--scale), those of
// what operators do (--operations), or the short ones.
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

process.setMaxListeners(0); // each helper process has one
const here = path.dirname(fileURLToPath(import.meta.url));
const short = ['start', 'health', 'turns', 'first_event', 'tool_results', 'memory', 'overload', 'overload_core', 'micro', 'stats', 'redis_limiter', 'redis_idle',
  'cross_host', 'attach', 'pg_turns', 'events', 'webhooks', 'tasks'];
const long = ['mcp', 'mcp_clients', 'gateway', 'gateway_memory', 'ws_upgrades', 'ws_idle_cpu', 'ws_storm', 'ws_sessions', 'ws_peers', 'ws_100k', 'ws_million'];
const operations = ['upgrade', 'crash', 'size'];
const known = [...short, ...long, ...operations];
const wanted = process.argv.slice(2).flatMap((name) => ({ '--scale': long, '--operations': [...operations, 'start'] })[name] ?? [name]);
const unknown = wanted.filter((name) => !known.includes(name));
if (unknown.length > 0) {
  console.error(`no benchmark ${unknown.join(', ')}; there are ${known.join(', ')}`);
  process.exit(64);
}
console.log(`${os.cpus().length} x ${os.cpus()[0].model}, Linux ${os.release()}, ${Math.round(os.totalmem() / 2 ** 30)} GiB`);
for (const name of wanted.length > 0 ? wanted : short) {
  const file = path.join(here, `${name}.mjs`);
  if (!fs.existsSync(file)) throw new Error(`${file} is missing`);
  console.log(`\n${name}`);
  await (await import(file)).default();
}
