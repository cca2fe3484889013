// mcp - tools/list and tools/call by way of Parley and of other gateways, side by side, with a tool server that costs next to nothing.
//
// Each on core 0, the tool server and the generator on core 1, in turns, started anew in every round. What a gateway adds is measured
// at a pace that none of ours is busy with, less what the way to the server itself takes in the same round.
import { cpuMicros, generate, median, pin, print } from './lib.mjs';
import { core_of_others, row } from './gateway.mjs';
import { direct, gateways, ours, startTools } from './mcp_gateways.mjs';

const rounds = 3, core_of_gateway = 0, users = 64, pace_s = 0.064, rate = users / pace_s; // 1,000 a second, from the first on

async function asked(gateway, ...args) {
  const before = cpuMicros(gateway.pids);
  const result = await generate(gateway.address, [...gateway.args, ...args, 'mcp'], { key: gateway.key ?? null, core: core_of_others });
  if (result.failed + result.refused + result.missing + result.died + result.gone > 0 || result.done === 0) throw new Error(JSON.stringify(result));
  return { ...result, cpu_us: cpuMicros(gateway.pids) - before };
}

async function figures(gateway) {
  const seen = {};
  await asked(gateway, '--users', users, '--duration', 1); // it warms up
  for (const method of ['tools/call', 'tools/list']) {
    const { done, seconds, cpu_us } = await asked(gateway, '--users', users, '--duration', 2, '--method', method);
    seen[`${method}, per second`] = done / seconds;
    seen[`${method}, per second of its core`] = done / cpu_us * 1e6;
  }
  const alone = await asked(gateway, '--users', 1, '--duration', 1);
  const paced = await asked(gateway, '--users', users, '--rate', rate, '--pace', pace_s, '--duration', 10);
  for (const p of ['p50', 'p99']) {
    seen[`tools/call at 1, ${p}`] = alone.whole_us[p];
    seen[`tools/call at 1,000/s, ${p}`] = paced.whole_us[p];
  }
  return seen;
}

async function measured(gateway) {
  const tools = await startTools();
  pin([tools.pid], core_of_others);
  const started = await gateway.start(tools);
  try {
    if (gateway !== direct) pin(started.pids, core_of_gateway);
    return await figures(started);
  } catch (e) {
    e.message = `${gateway.name}: ${e.message}`;
    throw e;
  } finally {
    await started.stop();
    await tools.stop();
  }
}

export default async function mcp() {
  const all = [direct, ...gateways], seen = all.map(() => []);
  for (let round = 0; round < rounds; round++) {
    for (const [i, each] of all.entries()) seen[i].push(await measured(each));
  }
  const of = (i, name) => median(seen[i].map((figure) => figure[name]));
  const added = (i, name) => median(seen[i].map((figure, round) => figure[name] - seen[0][round][name]));
  row(`median of ${rounds}`, all.map(({ name }) => name));
  for (const method of ['tools/call', 'tools/list']) {
    for (const unit of ['per second', 'per second of its core']) row(`${method}, ${unit}`, all.map((_, i) => of(i, `${method}, ${unit}`)));
  }
  for (const name of ['tools/call at 1, p50', 'tools/call at 1, p99', 'tools/call at 1,000/s, p50', 'tools/call at 1,000/s, p99']) {
    row(`added per ${name}`, all.map((_, i) => (i === 0 ? '' : added(i, name))), `us; the server itself ${Math.round(of(0, name))}`);
  }
  const i = all.indexOf(ours), call = 'tools/call, per second of its core';
  print('tools/call per second of a core', of(i, call), '', 'aim 10,000');
  print('added p99 of tools/call at 1,000 a second', added(i, 'tools/call at 1,000/s, p99'), 'us', 'aim under 1,000');
  for (const name of ['mcp-proxy', 'supergateway']) {
    const peer = all.findIndex((each) => each.name === name);
    print(`tools/call per second of a core: ours to ${name}`, of(i, call) / of(peer, call), 'times', `over stdio too: ${(of(i + 1, call) / of(peer, call)).toFixed(1)}`);
  }
}
