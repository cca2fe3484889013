// crash - a worker is killed: until it is replaced, and until its clients, who come back at once, stand again with their sessions.
import path from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { Child, build } from '../../t/wire/lib/process.mjs';
import { keys, startServer } from '../../t/wire/lib/server.mjs';
import { waitFor, within } from '../../t/wire/lib/wait.mjs';
import { median, print } from './lib.mjs';

const sockets = 8000, workers = 4, kills = 5, watch_s = 20;
const at = (line) => Date.parse(line.split(' ')[0]);

/** From its death, as the master noted it, until the next one accepts. */
async function kill(server, slot) {
  const from = server.lines.length, pid = server.killWorker(slot), killed = Date.now();
  const next = await server.replaced(slot, pid);
  const line = (regex) => at(server.lines.slice(from).find((one) => regex.test(one)));
  const noticed = line(new RegExp(`worker died slot=${slot} pid=${pid} `));
  return { noticed_ms: noticed - killed, replaced_ms: line(new RegExp(`worker is up slot=${slot} pid=${next} `)) - killed };
}

export default async function crash() {
  const server = await startServer(null, { mock: false, config: { workers, max_connections: sockets, connection_queue_size: 2000, backlog: 4096 } });
  const quiet = [], busy = [];
  for (let i = 0; i < kills; i++) quiet.push(await kill(server, i % workers));
  const load = new Child(path.join(build, 'parley_load'), ['--target', server.address, '--key', keys.server, '--users', sockets, '--limit', 120,
    '--duration', watch_s, '--passive', 'ws-storm'].map(String));
  await load.line(/^standing/, 60000);
  const standing = async () => (await server.request('/health')).json.connections.active >= sockets;
  for (let i = 0; i < kills; i++) {
    busy.push(await kill(server, i % workers));
    await waitFor(standing, 'all of them again', 20000);
    await pause(1000); // the last of them join their sessions
  }
  await within(load.ended, 'end of parley_load', 60000);
  const { cut, done, failed, refused, resume_us, stand_us } = JSON.parse(load.lines.find((line) => line.startsWith('{')));
  const of = (seen, name) => median(seen.map((one) => one[name]));
  print('killed, without clients: replaced after', of(quiet, 'replaced_ms'), 'ms', `median of ${kills}; aim 100; ${of(quiet, 'noticed_ms')} until the master knows`);
  print(`killed, ${sockets} WebSockets on ${workers} workers: replaced after`, of(busy, 'replaced_ms'), 'ms', `median of ${kills}, ${Math.max(...busy.map((one) => one.replaced_ms))} at most`);
  print('  its clients are back in their sessions, p50', resume_us.p50 / 1e3, 'ms', `${cut} were cut in all, ${done} came back, ${failed} failed, ${refused} refused once`);
  print('  .. the last of them', resume_us.max / 1e3, 'ms', `of all kills; all stand ${(stand_us.max / 1e3).toFixed(0)} ms after`);
  await server.stop();
}
