// health - GET /health/live and /health against nginx `return 200`, per CPU-second of the server.
import fs from 'node:fs';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { Child } from '../../t/wire/lib/process.mjs';
import { startServer } from '../../t/wire/lib/server.mjs';
import { waitFor } from '../../t/wire/lib/wait.mjs';
import { cpuSeconds, median, print, wrk } from './lib.mjs';

async function freePort() {
  const server = net.createServer().listen(0, '127.0.0.1');
  await new Promise((resolve) => server.once('listening', resolve));
  const { port } = server.address();
  await new Promise((resolve) => server.close(resolve));
  return port;
}

async function startNginx() {
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'parley-nginx-'));
  const port = await freePort();
  fs.writeFileSync(path.join(dir, 'nginx.conf'), `
    daemon off; worker_processes 1; pid ${dir}/pid; error_log ${dir}/error.log;
    events { worker_connections 1024; }
    http { access_log off; keepalive_requests 100000000; client_body_temp_path ${dir}/b; proxy_temp_path ${dir}/p;
      fastcgi_temp_path ${dir}/f; uwsgi_temp_path ${dir}/u; scgi_temp_path ${dir}/s;
      server { listen 127.0.0.1:${port}; location / { default_type application/json; return 200 '{"status":"ok"}'; } } }`);
  const nginx = new Child('nginx', ['-p', dir, '-c', path.join(dir, 'nginx.conf')]);
  nginx.dir = dir;
  nginx.url = `http://127.0.0.1:${port}`;
  await waitFor(() => fetch(nginx.url).then((r) => r.ok, () => false), 'nginx');
  const children = fs.readFileSync(`/proc/${nginx.pid}/task/${nginx.pid}/children`, 'utf8').split(' ').filter(Boolean).map(Number);
  nginx.pids = [nginx.pid, ...children];
  return nginx;
}

export default async function health() {
  const nginx = await startNginx();
  const server = await startServer(null, { mock: false, config: { workers: 1, http: { max_keepalive_requests: 0 } } });
  const per_cpu_s = async (url, pids) => {
    const before = cpuSeconds(pids);
    const { requests } = await wrk(url);
    return requests / (cpuSeconds(pids) - before);
  };
  const seen = { nginx: [], live: [], health: [], ratio: [] };
  for (let round = 0; round < 5; round++) {
    seen.nginx.push(await per_cpu_s(`${nginx.url}/`, nginx.pids));
    seen.live.push(await per_cpu_s(`${server.url}/health/live`, server.workers()));
    seen.health.push(await per_cpu_s(`${server.url}/health`, server.workers()));
    seen.ratio.push(seen.health.at(-1) / seen.nginx.at(-1));
  }
  print('nginx return 200', median(seen.nginx), 'req/CPU-s', 'median of 5');
  print('/health/live', median(seen.live), 'req/CPU-s');
  print('/health', median(seen.health), 'req/CPU-s');
  print('/health : nginx', median(seen.ratio), 'ratio', 'aim at least 0.9');
  await server.stop();
  await nginx.stop('SIGTERM');
  fs.rmSync(nginx.dir, { recursive: true, force: true });
}
