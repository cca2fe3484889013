// ws_idle_cpu - what a WebSocket costs that says nothing, pinged as the default says: CPU of the server per socket and second.
import { startServer } from '../../t/wire/lib/server.mjs';
import { all_pids, cpuSeconds, hold, median, print } from './lib.mjs';

const count = 10000, windows = 3, window_s = 40; // two ping intervals

const pause = (seconds) => new Promise((resolve) => setTimeout(resolve, seconds * 1e3));

export default async function ws_idle_cpu() {
  const server = await startServer(null, { mock: false, config: { workers: 1, max_connections: 15000 } });
  const holder = await hold(server.address, 'idle-ws', { count, limit: 300 });
  const seen = [];
  for (let i = 0; i < windows; i++) {
    const [before, began] = [cpuSeconds(all_pids(server)), Date.now()];
    await pause(window_s);
    seen.push((cpuSeconds(all_pids(server)) - before) / ((Date.now() - began) / 1e3) / count * 1e6);
  }
  const { pings } = await holder.release();
  const expected = count * windows * window_s / 20;
  if (pings < expected * 0.9) throw new Error(`${pings} pings instead of ${expected}`);
  print('CPU per idle WebSocket', median(seen), 'us per second', `median of ${windows} times ${window_s} s; aim under 0.5; ${count}, pinged every 20 s`);
  print('  the highest, the lowest of them', `${Math.max(...seen).toFixed(2)}, ${Math.min(...seen).toFixed(2)}`, 'us per second');
  await server.stop();
}
