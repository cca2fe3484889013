// memory - resident bytes (PSS, all processes) per idle connection, stream, WebSocket and session.
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { keys, startMock, startServer } from '../../t/wire/lib/server.mjs';
import { all_pids, anonymousBytes, hold, median, print, pssBytes } from './lib.mjs';
import { holdSecure } from './sockets.mjs';

const count = 8000, joined = 10000, secure = 4000;

/** Sessions over HTTP: the record's caches have their size after some 15,000. */
async function openSessions(server, sessions) {
  for (let i = 0; i < sessions; i += 50) {
    await Promise.all(Array.from({ length: 50 }, () => server.request('/v1/sessions', { key: keys.server, body: {} })));
  }
}

/** Of a WebSocket that has joined a session of its own, and the whole server in MiB. */
async function withSessions(mock, workers) {
  const values = [];
  for (let round = 0; round < 3; round++) {
    const server = await startServer(null, { mock, config: { workers, max_connections: 15000 } });
    await openSessions(server, 15000);
    const before = pssBytes(all_pids(server));
    const holder = await hold(server.address, 'idle-ws', { count: joined, args: ['--join'] });
    const after = pssBytes(all_pids(server));
    values.push([(after - before) / joined, after / 2 ** 20]);
    await holder.release();
    await server.stop();
  }
  return [median(values.map(([each]) => each)), median(values.map(([, all]) => all))];
}

/** Of a WebSocket over TLS 1.3, without a session. */
async function overTls() {
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'parley-bench-'));
  const files = { certificate: path.join(dir, 'crt'), key: path.join(dir, 'key') };
  const values = [];
  execFileSync('openssl', ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '2',
    '-subj', '/CN=localhost', '-keyout', files.key, '-out', files.certificate], { stdio: 'pipe' });
  for (let round = 0; round < 3; round++) {
    const server = await startServer(null, { mock: false, config: { workers: 1, max_connections: 15000, tls: { ...files, listen: ['127.0.0.1:0'] } } });
    const port = Number((await server.line(/listening address=\S+:(\d+) kind=(?:https|tls)/))[1]);
    await (await holdSecure(port, 100)).release();
    const before = pssBytes(all_pids(server));
    const holder = await holdSecure(port, secure);
    values.push((pssBytes(all_pids(server)) - before) / secure);
    await holder.release();
    await server.stop();
  }
  fs.rmSync(dir, { recursive: true, force: true });
  return median(values);
}

export default async function memory() {
  const mock = await startMock(null);
  const config = { workers: 1, max_connections: 15000, http: { keepalive_timeout: '10m' }, tools: { client_timeout: '10m' },
    turns: { max_listeners: 100000 } };
  const grown = async (scenario, bytesOf = pssBytes) => {
    const values = [];
    for (let round = 0; round < 3; round++) {
      const server = await startServer(null, { mock, config });
      const before = bytesOf(all_pids(server));
      const holder = await hold(server.address, scenario, { count });
      values.push((bytesOf(all_pids(server)) - before) / count);
      await holder.release();
      await server.stop();
    }
    return median(values);
  };
  print('per idle keep-alive connection', await grown('idle-keepalive'), 'bytes', `${count}, median of 3; reference 1,056`);
  print('per idle SSE stream', await grown('idle-sse'), 'bytes', `${count}, median of 3; reference 5,392`);
  print('per idle WebSocket', await grown('idle-ws'), 'bytes', `${count}, median of 3`);
  print('per idle WebSocket, anonymous memory only', await grown('idle-ws', anonymousBytes), 'bytes', 'reference 272 without the state of a chat');
  for (const workers of [1, 4]) {
    const [each, all] = await withSessions(mock, workers);
    print(`per idle WebSocket with a session, ${workers === 1 ? '1 worker' : `${workers} workers`}`, each, 'bytes', `${joined}, median of 3; aim under 1,024`);
    print('  the whole server with them', all, 'MiB PSS', 'aim under 40');
  }
  print('per idle WebSocket over TLS 1.3', await overTls(), 'bytes', `${secure}, median of 3; reference 14,758`);
  const server = await startServer(null, { mock, config });
  const before = pssBytes(all_pids(server));
  const sessions = 2000;
  await openSessions(server, sessions);
  print('per idle session (only in the record)', (pssBytes(all_pids(server)) - before) / sessions, 'bytes', `${sessions} opened over HTTP`);
  print('the whole server, 1 worker, after that', pssBytes(all_pids(server)) / 2 ** 20, 'MiB PSS');
  await server.stop();
  const four = await startServer(null, { mock, config: { workers: 4 } });
  print('the whole server, 4 workers, idle', pssBytes(all_pids(four)) / 2 ** 20, 'MiB PSS');
  await four.stop();
  await mock.stop();
}
