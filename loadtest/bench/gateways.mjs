// gateways - servers of others, and ours, that stand between a client and an OpenAI-compatible provider.
//
// A gateway is {name, start(mock)}; start() gives {address, pids, key, args, stop()}, args being what parley_load needs to speak to
// it. Each is one process that does the work (ours and nginx have a master beside it) on one core, as its authors ship it, without
// a log of requests, and keeps its connections on both sides.
import fs from 'node:fs';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { Child, root } from '../../t/wire/lib/process.mjs';
import { keys, plainProvider, startServer } from '../../t/wire/lib/server.mjs';
import { waitFor } from '../../t/wire/lib/wait.mjs';
import { all_pids } from './lib.mjs';

const bench = path.join(root, 'loadtest/bench');
const python = '/usr/bin/python3'; // Debian's, which has Debian's modules
const connections = 1200; // to the provider, at most and kept: more than the streams that are measured

/** All that a team would have on: a key with its limits, the provider's own, its breaker. None of them is reached. */
async function startParley(mock) {
  const server = await startServer(null, { mock, config: {
    workers: 1, max_connections: 5000, connection_queue_size: 2000, http: { max_keepalive_requests: 0 },
    overload: { target: '0' }, // a core that is to be used up is no reason to refuse
    providers: [{ ...plainProvider('mock', mock.url, { max_retries: 3, max_connections: connections, max_keepalive: connections,
      concurrent_requests: connections, requests_per_minute: 100000000 }), breaker: {} }],
    models: [{ name: 'mock', targets: [{ provider: 'mock', model: 'mock' }], price: { input: 1, output: 2, cached: 0.5 } }],
    apps: [{ id: 'demo', name: 'Demo', org: 'demo', budget: { amount: 1e9, period: 'total' } }],
    keys: [{ kind: 'server', app: 'demo', secret: keys.server, rpm: 4e9, rpd: 4e9, tpm: 4e9 }],
  } });
  return { address: server.address, pids: all_pids(server), key: keys.server, args: [], stop: () => server.stop() };
}

async function freePort() {
  const server = net.createServer().listen(0, '127.0.0.1');
  await new Promise((resolve) => server.once('listening', resolve));
  const { port } = server.address();
  await new Promise((resolve) => server.close(resolve));
  return port;
}

/** A program that is told its port; ready once it accepts. */
async function startAt(port, name, command, args, { dir, header, has_master, ...options } = {}) {
  const child = new Child(command, args, options);
  const accepts = () => new Promise((resolve) => {
    const socket = net.connect(port, '127.0.0.1', () => resolve(socket.destroy() !== null));
    socket.on('error', () => resolve(false));
  });
  const stop = async () => {
    await child.stop('SIGTERM');
    if (dir) fs.rmSync(dir, { recursive: true, force: true });
  };
  await waitFor(async () => {
    if (child.status) throw new Error(`${name} ended:\n${child.output()}`);
    return await accepts() && (!has_master || all_pids(child).length > 1); // a master listens before its worker is there
  }, name).catch(async (e) => {
    await stop();
    throw e;
  });
  return { address: `127.0.0.1:${port}`, pids: all_pids(child), key: 'sk-test', args: header ? ['--header', header] : [], stop };
}

/** A folder of its own with this file in it. */
function folderWith(name, text) {
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'parley-bench-'));
  process.on('exit', () => fs.rmSync(dir, { recursive: true, force: true }));
  fs.writeFileSync(path.join(dir, name), text(dir));
  return dir;
}

async function startNginx(mock) {
  const port = await freePort();
  const dir = folderWith('nginx.conf', (at) => `
    daemon off; worker_processes 1; pid ${at}/pid; error_log ${at}/error.log; worker_rlimit_nofile 8192;
    events { worker_connections 4096; }
    http {
      access_log off; keepalive_requests 100000000; keepalive_timeout 60s; tcp_nodelay on;
      client_body_temp_path ${at}/b; proxy_temp_path ${at}/p; fastcgi_temp_path ${at}/f; uwsgi_temp_path ${at}/u; scgi_temp_path ${at}/s;
      upstream mock { server ${mock.address}; keepalive ${connections}; keepalive_requests 100000000; keepalive_timeout 60s; }
      server {
        listen 127.0.0.1:${port} backlog=2048;
        location / {
          proxy_pass http://mock; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host $host;
          proxy_buffering off; proxy_read_timeout 60s;
        }
      }
    }`);
  return startAt(port, 'nginx', 'nginx', ['-p', dir, '-c', path.join(dir, 'nginx.conf')], { dir, has_master: true });
}

async function startHaproxy(mock) {
  const port = await freePort();
  const dir = folderWith('haproxy.cfg', () => `
global
  nbthread 1
  maxconn 4096
defaults
  mode http
  option http-no-delay
  http-reuse always
  timeout connect 5s
  timeout client 60s
  timeout server 60s
frontend front
  bind 127.0.0.1:${port} backlog 2048
  default_backend mock
backend mock
  server mock ${mock.address} pool-max-conn ${connections} pool-purge-delay 60s
`);
  return startAt(port, 'haproxy', 'haproxy', ['-db', '-q', '-f', path.join(dir, 'haproxy.cfg')], { dir });
}

/**
 * @portkey-ai/gateway 1.15.2. On current Node (20, 22) it answers every stream with 500, because the headers of the answer that it
 * makes from the provider's cannot be changed ("immutable"): a copy is given headers of its own in that one place. Nothing else is
 * changed; not the 25 ms that it waits after the first event of a stream either.
 */
function patchedPortkey() {
  const before = ':new Response(p,e)}const Ad=';
  const after = ':new Response(p,{status:e.status,headers:new Headers(e.headers)})}const Ad=';
  const folder = path.join(bench, 'node_modules/@portkey-ai/gateway');
  const source = fs.readFileSync(path.join(folder, 'build/start-server.js'), 'utf8');
  if (source.split(before).length !== 2) throw new Error('@portkey-ai/gateway: the line that is patched is not there');
  // Below the bench's folder, so that its dependencies are found.
  const dir = fs.mkdtempSync(path.join(bench, 'node_modules/.portkey-'));
  process.on('exit', () => fs.rmSync(dir, { recursive: true, force: true }));
  fs.mkdirSync(path.join(dir, 'build'));
  fs.copyFileSync(path.join(folder, 'package.json'), path.join(dir, 'package.json'));
  fs.writeFileSync(path.join(dir, 'build/start-server.js'), source.replace(before, after));
  return dir;
}

async function startPortkey(mock) {
  const port = await freePort();
  const dir = patchedPortkey();
  const config = JSON.stringify({ provider: 'openai', api_key: 'sk-test', custom_host: mock.url });
  return startAt(port, 'portkey', process.execPath, [path.join(dir, 'build/start-server.js'), `--port=${port}`, '--headless'],
    { dir, header: `x-portkey-config: ${config}`, env: { NODE_ENV: 'production' } });
}

async function startFastapi(mock) {
  const child = new Child(python, [path.join(bench, 'peers/fastapi_gateway.py'), mock.url]);
  const [, address] = await child.line(/listening (127\.0\.0\.1:\d+)/);
  return { address, pids: [child.pid], key: 'sk-test', args: [], stop: () => child.stop('SIGTERM') };
}

/** Nothing in between: what the others are measured against. */
async function startNothing(mock) {
  return { address: mock.address, pids: [mock.pid], key: 'sk-test', args: [], stop: async () => {} };
}

export const direct = { name: 'the mock itself', start: startNothing };
export const gateways = [
  { name: 'parleyd', start: startParley },
  { name: 'nginx', start: startNginx, is_plain_proxy: true },
  { name: 'haproxy', start: startHaproxy, is_plain_proxy: true },
  { name: 'portkey', start: startPortkey },
  { name: 'fastapi + httpx', start: startFastapi },
];
