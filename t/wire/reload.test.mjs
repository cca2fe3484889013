// Reloading: more workers, fewer, bad files, other certificates; sessions of TLS go on, and so do turns.
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import fs from 'node:fs';
import http from 'node:http';
import path from 'node:path';
import { test } from 'node:test';
import tls from 'node:tls';
import { promisify } from 'node:util';
import { collect, request } from './lib/http.mjs';
import { build } from './lib/process.mjs';
import { is_last_event, keys, newSession, startServer } from './lib/server.mjs';
import { holders } from './lib/sockets.mjs';
import { certificate, startTls } from './lib/tls.mjs';
import { waitFor, within } from './lib/wait.mjs';

const key = keys.client;
const run = (server, ...args) => promisify(execFile)(path.join(build, 'parleyd'), ['--config', server.file, ...args], { cwd: server.dir })
  .then(({ stdout, stderr }) => ({ code: 0, stdout, stderr }), ({ code, stdout, stderr }) => ({ code, stdout, stderr }));

async function reload(server, changes) {
  const from = server.lines.length;
  server.changeConfig(changes);
  server.kill('SIGHUP');
  await server.line(/reload done/, 20000, from);
}

test('more workers and fewer: nobody is refused, each socket has somebody', async (t) => {
  const server = await startServer(t);
  let is_over = false, answered = 0;
  const clients = Array.from({ length: 16 }, async () => {
    while (!is_over) {
      assert.equal((await server.request('/health/live')).status, 200);
      answered++;
    }
  });
  for (const workers of [6, 2, 5, 1, 4]) {
    await reload(server, { workers });
    const then = answered;
    await waitFor(() => answered > then + 100, 'answers');
    const { json } = await server.request('/');
    assert.equal(json.workers, workers);
    await waitFor(async () => {
      const { json: health } = await server.request('/health');
      return health.workers.ready === workers && health.workers.configured === workers && health.workers.draining === 0;
    }, `${workers} workers and no others`);
    assert.match((await run(server, 'status')).stdout, new RegExp(`${workers} of ${workers} workers ready`));
  }
  is_over = true;
  await Promise.all(clients);
  server.expectLog(/config error .*workers: 512 is more than the server has room for/);
  server.expectLog(/reload failed/);
  server.changeConfig({ workers: 512 });
  assert.match((await run(server, 'reload')).stderr, /workers: 512 is more than the server has room for; at most 64/);
});

test('a bad file changes nothing and says why, to whoever asks', async (t) => {
  const server = await startServer(t);
  const before = server.workers();
  server.expectLog(/config error|reload failed/);
  fs.writeFileSync(server.file, `workers: 4\nrun_dir: ${server.config.run_dir}\nmax_conections: 5\n`);
  const cli = await run(server, '--config', path.join(server.dir, 'parley.yaml'), 'status');
  assert.equal(cli.code, 78, 'the command line reads it, too');
  const { status, json } = await server.request('/admin/v1/reload', { method: 'POST', key: keys.admin });
  assert.equal(status, 409);
  assert.match(json.error.message, /parley\.yaml:3:\d+: max_conections/);
  assert.deepEqual(server.workers(), before);
  fs.writeFileSync(server.file, JSON.stringify(server.config));
  const good = await server.request('/admin/v1/reload', { method: 'POST', key: keys.admin });
  assert.equal(good.status, 202, good.text);
  assert.equal((await server.request('/health/live')).status, 200);
});

/** One TLS connection: {reused, port, session, subject}; the session is one that the server gave. */
function handshake(port, { session, maxVersion } = {}) {
  return within(new Promise((resolve, reject) => {
    const socket = tls.connect({ port, host: '127.0.0.1', rejectUnauthorized: false, session, maxVersion });
    let given;
    socket.on('session', (bytes) => { given = bytes; });
    socket.on('error', reject);
    socket.once('secureConnect', () => {
      const seen = { reused: socket.isSessionReused(), port: socket.localPort, subject: socket.getPeerCertificate().subject?.CN };
      socket.once('data', () => {}).once('close', () => resolve({ ...seen, session: given ?? session }));
      socket.write('GET /health/live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n');
    });
  }), 'TLS connection');
}

test('a TLS client resumes at any worker, after a reload, and at another host with the same secret', async (t) => {
  const config = { workers: 4 };
  const ticket_secret = 'a secret of all hosts, long enough 0123456789';
  const { secure, port } = await startTls(t, { ticket_secret }, { config });
  const other = await startTls(t, { ticket_secret }, { config });
  const stranger = await startTls(t, {}, { config });
  for (const maxVersion of ['TLSv1.2', 'TLSv1.3']) {
    const { session, reused } = await handshake(port, { maxVersion });
    assert.ok(session && !reused);
    for (let i = 0; i < 12; i++) assert.ok((await handshake(port, { session, maxVersion })).reused, `${maxVersion} ${i}`);
    await reload(secure, { log: { access: i_th(maxVersion) } });
    for (let i = 0; i < 6; i++) assert.ok((await handshake(port, { session, maxVersion })).reused, `${maxVersion} after a reload`);
    for (let i = 0; i < 6; i++) assert.ok((await handshake(other.port, { session, maxVersion })).reused, `${maxVersion} elsewhere`);
    assert.ok(!(await handshake(stranger.port, { session, maxVersion })).reused, 'who has not the secret does not');
  }
  // Random keys hold for all workers of a host, too, and over a reload.
  const { session } = await handshake(stranger.port);
  await reload(stranger.secure, { max_connections: 50 });
  for (let i = 0; i < 8; i++) assert.ok((await handshake(stranger.port, { session })).reused);
});
const i_th = (version) => version === 'TLSv1.2';

test('a connection that is kept over the end of a stream is served by the old worker, not refused', async (t) => {
  const server = await startServer(t, { config: { drain: { timeout: '24s' } } });
  const session = await newSession(server), agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
  t.after(() => agent.destroy());
  const turn = (tokens) => new Promise((resolve, reject) => {
    http.request({ port: server.port, host: '127.0.0.1', method: 'POST', path: `/v1/sessions/${session.id}/turns`, agent,
      headers: { authorization: `Bearer ${key}`, 'content-type': 'application/json' } }, (res) => {
      const { localPort } = res.socket;
      let text = '';
      res.on('data', (part) => { text += part; }).on('end', () => resolve({ status: res.statusCode, text, localPort, headers: res.headers })).on('error', reject);
    }).on('error', reject).end(JSON.stringify({ stream: true, input: `[[mock tokens=${tokens} interval=20]]` }));
  });
  const long = turn(300); // longer than a reload takes
  await waitFor(async () => (await server.request('/health')).json.connections.active === 1, 'a stream');
  await reload(server, {});
  const first = await long, second = await turn(5);
  assert.match(first.text, /turn\.completed/);
  assert.notEqual(first.headers.connection, 'close');
  assert.deepEqual([second.status, second.localPort, second.headers.connection], [200, first.localPort, 'close'], second.text);
  assert.match(second.text, /turn\.completed/);
});

test('certificates are read again; a broken one changes nothing', async (t) => {
  const { secure, dir, files, port } = await startTls(t, {}, { config: { workers: 2 } });
  assert.equal((await handshake(port)).subject, 'first');
  const second = certificate(dir, 'second');
  for (const name of ['certificate', 'key']) fs.copyFileSync(second[name], files[name]);
  await reload(secure, {});
  for (let i = 0; i < 6; i++) assert.equal((await handshake(port)).subject, 'second');
  secure.expectLog(/certificate not usable what=key|worker died .*exit=1|reload failed/);
  fs.writeFileSync(files.key, 'nonsense');
  const { code, stderr } = await run(secure, 'reload');
  assert.equal(code, 1);
  assert.match(stderr, /the old configuration stays/);
  for (let i = 0; i < 6; i++) assert.equal((await handshake(port)).subject, 'second');
});

const tools = [{ type: 'function', function: { name: 'weather', parameters: { type: 'object' } } }];

test('turns of workers that drain are reached from the new ones: attach, tool result, cancel', async (t) => {
  const server = await startServer(t, { config: { drain: { timeout: '20s' } } });
  const start = async (input, more = {}) => {
    const session = await newSession(server);
    const events = await server.stream(`/v1/sessions/${session.id}/turns`, { key, body: { input, stream: true, ...more } });
    assert.equal(events.status, 200, events.text);
    const seen = [];
    const done = collect(events, (event) => { seen.push(event); return is_last_event(event); }, 30000);
    await waitFor(() => seen.some(({ event }) => ['text.delta', 'tool.call'].includes(event)), 'begin');
    return { base: `/v1/sessions/${session.id}`, turn: seen[0].id.split('.')[0], seen, done };
  };
  const slow = await start('[[mock tokens=200 interval=20]]');
  const endless = await start('[[mock tokens=5000 interval=20]]');
  const asking = await start('[[mock tool=weather]]', { tools });
  const before = server.workers();
  await reload(server, { max_connections: 500 });
  assert.ok(server.workers().every((pid) => !before.includes(pid)));
  const attached = await server.stream(`${slow.base}/turns/${slow.turn}/events?after=0`, { key });
  assert.ok(holders(server.port, server.workers()).has(attached.local_port), 'a new worker was asked');
  const all = collect(attached, is_last_event, 30000);
  const tool_call_id = asking.seen.find(({ event }) => event === 'tool.call').data.tool_call_id;
  const posted = await server.request(`${asking.base}/tool-results`, { key, body: { tool_call_id, output: 'rain' } });
  assert.equal(posted.status, 202, posted.text);
  assert.equal((await asking.done).at(-1).event, 'turn.completed');
  const cancelled = await server.request(`${endless.base}/turns/${endless.turn}/cancel`, { method: 'POST', key });
  assert.ok(cancelled.status < 300, cancelled.text);
  assert.equal((await endless.done).at(-1).event, 'turn.cancelled');
  assert.equal((await slow.done).at(-1).event, 'turn.completed');
  assert.deepEqual((await all).map(({ id }) => id), (await slow.done).map(({ id }) => id));
  await waitFor(() => before.every((pid) => !fs.existsSync(`/proc/${pid}`)), 'end of the old workers');
});
