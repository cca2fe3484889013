// mcp_clients - tools/list of one worker beside idle streams of MCP sessions, and what sessions cost that nobody speaks in.
import { generate, hold, median, pin, print, pssBytes } from './lib.mjs';
import { core_of_others } from './gateway.mjs';
import { startParley, startTools } from './mcp_gateways.mjs';

const rounds = 3, core_of_parley = 0, sessions = 100000;

/** One request every 2 ms, by two clients in turns: its times. */
async function listed(server, args = []) {
  const result = await generate(server.address, [...args, '--users', 2, '--pace', 0.004, '--count', 1000, '--method', 'tools/list', 'mcp'], { core: core_of_others });
  if (result.failed + result.refused > 0) throw new Error(JSON.stringify(result));
  return result.whole_us;
}

export default async function mcp_clients() {
  const tools = await startTools();
  const parley = await startParley({ url: `http://${tools.address}/mcp` }, { max_connections: 9500, mcp: { session_life: '1h' } });
  pin([tools.pid], core_of_others);
  pin(parley.pids, core_of_parley);
  try {
    for (const count of [0, 1000, 9000]) {
      const before = pssBytes(parley.pids);
      const held = count > 0 ? await hold(parley.address, 'idle-mcp', { count }) : null;
      const bytes = pssBytes(parley.pids) - before;
      for (const era of [[], ['--legacy']]) {
        const seen = [];
        for (let i = 0; i < rounds; i++) seen.push(await listed(parley, era));
        const name = `tools/list beside ${count.toLocaleString('en')} streams, ${era.length ? '2025-11-25' : '2026-07-28'}`;
        print(`${name}, p50`, median(seen.map(({ p50 }) => p50)), 'us');
        print(`${name}, p99`, median(seen.map(({ p99 }) => p99)), 'us', count > 0 ? 'aim under 10,000' : '');
      }
      if (held) {
        print(`a stream, of ${count.toLocaleString('en')}`, bytes / count, 'B PSS');
        await held.release();
      }
    }
    // A few first, so that what the worker needs for the work itself is there.
    const begin = (count) => generate(parley.address, ['--users', 32, '--count', count, '--method', 'initialize', 'mcp'], { core: core_of_others });
    await begin(5000);
    const before = pssBytes(parley.pids);
    const { done, failed, seconds } = await begin(sessions);
    if (done !== sessions || failed > 0) throw new Error(`${done} sessions of ${sessions}, ${failed} failed`);
    const after = pssBytes(parley.pids);
    print(`${sessions.toLocaleString('en')} sessions begun, in all`, (after - before) / 1024, 'KiB PSS', `aim 0; ${Math.round(before / 1024)} KiB before, ${Math.round(done / seconds).toLocaleString('en')} begun a second`);
  } finally {
    await parley.stop();
    await tools.stop();
  }
}
