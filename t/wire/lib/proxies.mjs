// proxies - the real nginx and HAProxy with the examples of etc/, their addresses replaced by those of a test.
//
//   const front = await startNginx(hosts);      front.url; await front.end()
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { freePort } from './port.mjs';
import { Child, root } from './process.mjs';
import { waitFor } from './wait.mjs';

const example = (name) => fs.readFileSync(path.join(root, 'etc', name), 'utf8');

/** Every one of these texts must be there, or the example has changed and the test would test something else. */
function replaceAll(text, pairs) {
  return Object.entries(pairs).reduce((all, [from, to]) => {
    if (!all.includes(from)) throw new Error(`the example does not say ${from}`);
    return all.replaceAll(from, to);
  }, text);
}

const answers = (port) => new Promise((resolve) => {
  const socket = net.connect(port, '127.0.0.1', () => { socket.destroy(); resolve(true); }).on('error', () => resolve(false));
});

async function startProxy(name, program, text, args, port, log = null) {
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), `parley-${name}-`));
  const file = path.join(dir, `${name}.conf`);
  fs.writeFileSync(file, text(dir));
  // A file takes every line at once; what a pipe does not take HAProxy loses without a word.
  const wrap = log ? ['sh', '-c', `exec "$@" >${log}`, 'sh'] : [];
  const proxy = new Child(program, args(file, dir), { cwd: dir, wrap });
  proxy.end = async () => {
    await proxy.stop('SIGTERM');
    fs.rmSync(dir, { recursive: true, force: true });
  };
  await waitFor(async () => {
    if (proxy.status) throw new Error(`${name} ended:\n${proxy.output()}`);
    return answers(port);
  }, `start of ${name}`);
  Object.assign(proxy, { port, url: `http://127.0.0.1:${port}` });
  return proxy;
}

const installed = (program) => spawnSync(program, ['-v']).status === 0;
/** A reason to skip, or false. */
export const skip_nginx = !installed('nginx') && 'no nginx';
export const skip_haproxy = !installed('haproxy') && 'no haproxy';

/** etc/nginx/parley.conf in front of two hosts. */
export async function startNginx([first, second]) {
  const port = await freePort();
  const site = replaceAll(example('nginx/parley.conf'), {
    '10.0.0.11:8080': first.address, '10.0.0.12:8080': second.address, 'listen 80;': `listen 127.0.0.1:${port};`,
  });
  const temp = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map((kind) => `${kind}_temp_path ${kind};`).join(' ');
  // One process, which ends with the test.
  const whole = (dir) => `daemon off; master_process off; pid ${dir}/pid; error_log stderr warn;
    events { worker_connections 1024; }
    http { access_log off; ${temp}
    ${site} }`;
  return startProxy('nginx', 'nginx', whole, (file, dir) => ['-p', dir, '-c', file, '-e', 'stderr'], port);
}

// A line for each request when it has ended, a WebSocket being one: who asked, from where it was passed on, to whom, how it ended.
const log_format = 'log stdout format raw local0\n    log-format "ended client=%ci:%cp via=%bi:%bp to=%s status=%ST state=%ts"';

/**
 * etc/haproxy/haproxy.cfg in front of two hosts; proxy.tls_port leads to their tls_address, if they have one. log: a file for
 * lines as log_format's.
 */
export async function startHaproxy([first, second], { maxconn = 1000, log = null } = {}) {
  const port = await freePort(), tls_port = await freePort();
  const text = replaceAll(example('haproxy/haproxy.cfg'), {
    '10.0.0.11:8080': first.address, '10.0.0.12:8080': second.address,
    '10.0.0.11:8443': first.tls_address ?? first.address, '10.0.0.12:8443': second.tls_address ?? second.address,
    'bind :80\n': `bind 127.0.0.1:${port}\n`, 'bind :8443': `bind 127.0.0.1:${tls_port}`, 'maxconn 100000': `maxconn ${maxconn}`,
    'mode http\n': log ? `mode http\n    ${log_format}\n` : 'mode http\n',
    // A thread that finds another writing to the log drops its line.
    'global\n': log ? 'global\n    nbthread 1\n' : 'global\n',
  }).replace(/^(\s+default-server check) port 8080 (.*)$/m, '$1 $2')
    .replace(/(backend parley_tls[\s\S]*)/, (part) => [first, second].reduce(
      (all, host) => all.replace(`${host.tls_address ?? host.address}\n`, (line) => `${line.trimEnd()} port ${host.port}\n`), `${part}\n`));
  const proxy = await startProxy('haproxy', 'haproxy', () => text, (file) => ['-db', '-f', file], port, log);
  return Object.assign(proxy, { tls_port });
}
