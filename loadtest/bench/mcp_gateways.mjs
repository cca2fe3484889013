// mcp_gateways - ours and those of others, between an MCP client and a tool server that costs next to nothing (loadtest/mock_mcp).
//
// A gateway is {name, start(mock)}; start() gives {address, pids, args, key, stop()}: args is what parley_load needs to speak to it,
// pids are the processes whose CPU is its own. Those of others take tool servers on standard input and output only.
import fs from 'node:fs';
import net from 'node:net';
import path from 'node:path';
import { Child, build, root } from '../../t/wire/lib/process.mjs';
import { keys, startServer } from '../../t/wire/lib/server.mjs';
import { waitFor } from '../../t/wire/lib/wait.mjs';
import { freePort } from '../../t/wire/lib/port.mjs';

const modules = path.join(root, 'loadtest/bench/node_modules');
export const program = path.join(build, 'mock_mcp');

/** A mock_mcp over HTTP. */
export async function startTools(args = []) {
  const child = new Child(program, ['--listen', '127.0.0.1:0', ...args]);
  child.address = (await child.line(/listening (127\.0\.0\.1:\d+)/))[1];
  return child;
}

/** One worker with that entry of mcp.servers, a key with its limits, nothing else to do; its pids are the master's and the worker's. */
export async function startParley(entry, config = {}) {
  const server = await startServer(null, { mock: false, config: {
    workers: 1, max_connections: 15000, connection_queue_size: 2000, http: { max_keepalive_requests: 0 }, overload: { target: '0' },
    ...config, mcp: { prefix: false, max_calls: 10000, servers: entry ? [{ name: 'fast', ...entry }] : [], ...config.mcp },
  } });
  if (entry) await server.line(/mcp server ready server=fast /);
  return { server, address: server.address, pids: [server.pid, ...server.workers()], key: keys.server, args: [], stop: () => server.stop() };
}

const accepts = (port) => new Promise((resolve) => {
  const socket = net.connect(port, '127.0.0.1', () => resolve(socket.destroy() !== null));
  socket.on('error', () => resolve(false));
});

/** A program of a package that is told its port. */
async function startPackage(name, args, port, more) {
  const { bin } = JSON.parse(fs.readFileSync(path.join(modules, name, 'package.json'), 'utf8'));
  const child = new Child(process.execPath, [path.join(modules, name, bin[name] ?? bin), ...args.map(String)], { env: { NODE_ENV: 'production' } });
  const stop = () => child.stop('SIGTERM').then((status) => (status.signal === 'SIGKILL' ? Promise.reject(new Error(`${name} had to be killed`)) : status));
  await waitFor(async () => {
    if (child.status) throw new Error(`${name} ended:\n${child.output()}`);
    return accepts(port);
  }, name, 20000).catch(async (e) => { await stop(); throw e; });
  return { address: `127.0.0.1:${port}`, pids: [child.pid], args: [], stop, ...more };
}

async function startMcpProxy() {
  const port = await freePort();
  return startPackage('mcp-proxy', ['--host', '127.0.0.1', '--port', port, '--server', 'stream', '--stateless', '--no-eventStore', '--', program, '--stdio'], port);
}

/** Without sessions it starts a process for each request; with them one for each. */
async function startSupergateway() {
  const port = await freePort();
  return startPackage('supergateway', ['--stdio', `${program} --stdio`, '--outputTransport', 'streamableHttp', '--stateful', '--logLevel', 'none', '--port', port],
    port, { args: ['--legacy'] });
}

export const direct = { name: 'the server itself', start: async (tools) => ({ address: tools.address, pids: [tools.pid], args: [], stop: async () => {} }) };
export const ours = { name: 'parleyd, http', start: (tools) => startParley({ url: `http://${tools.address}/mcp` }) };
export const ours_stdio = { name: 'parleyd, stdio', start: () => startParley({ command: program, args: ['--stdio'] }) };
export const gateways = [ours, ours_stdio, { name: 'mcp-proxy', start: startMcpProxy }, { name: 'supergateway', start: startSupergateway }];
