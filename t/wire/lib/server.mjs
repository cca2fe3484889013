// server - the real parleyd with 4 workers in a folder of its own, and mock_llm as its provider.
//
//   const server = await startServer(t, { config: { max_connections: 3 } });
//   const { status, json } = await server.request('/health');
//
// It is stopped when the test (or suite, given before()'s context) ends, and the test fails when a process died of a
// signal, said something that is not a log line, or logged at warn or above what no server.expectLog() allows.
import assert from 'node:assert/strict';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { sharedPostgres } from './postgres.mjs';
import { Child, build } from './process.mjs';
import { collect, raw, request, stream } from './http.mjs';
import { waitFor } from './wait.mjs';

export const keys = {
  client: 'pc_test_client_key_0123456789abcdef',
  server: 'ps_test_server_key_0123456789abcdef',
  admin: 'pa_test_admin_key_0123456789abcdef',
};

const log_line = /^\d{4}-\d\d-\d\dT\S+Z (DEBUG|INFO|ACCESS|WARN|ERROR) /;
// What stands for lines that the log has left out: the first words of what a place says again and again.
const repeated_line = /^((?:WARN|ERROR) +.+ )repeated=\d+( worker=\d+)?$/;
// What every server may say: a host without Redis is told so at its start; a worker that could run had no core, which is the
// machine's doing (one that waits for something else is "stalled"), as is how long figures take.
const always_allowed = [/WARN +backplane\b.*\blocal\b/, /WARN +worker starved /, /WARN +stats slow\b/];

/** Maps merge, everything else replaces; undefined removes. */
function merge(base, over) {
  if (over === null || typeof over !== 'object' || Array.isArray(over)) return over;
  const is_map = base !== null && typeof base === 'object' && !Array.isArray(base);
  const merged = is_map ? { ...base } : {};
  for (const [name, value] of Object.entries(over)) {
    if (value === undefined) delete merged[name];
    else merged[name] = merge(merged[name], value);
  }
  return merged;
}

/** A mock_llm on a free port; stopped with the test. */
export async function startMock(t, args = []) {
  const mock = new Mock(['--listen', '127.0.0.1:0', ...args]);
  t?.after(() => mock.stop());
  mock.address = (await mock.line(/(127\.0\.0\.1:[1-9]\d*)/))[1];
  mock.url = `http://${mock.address}/v1`;
  return mock;
}

class Mock extends Child {
  constructor(args) {
    super(path.join(build, 'mock_llm'), args);
  }

  async stop() {
    const status = await super.stop();
    assert.ok(status.code === 0 || status.signal === 'SIGTERM', `mock_llm ended with ${JSON.stringify(status)}:\n${this.output()}`);
  }
}

/**
 * A provider of the config that is asked once and never left alone: a test of something else sees each fault once.
 * Tests of retries and breakers say what they want. Limits of the host are out of the way.
 */
export function plainProvider(name, url, http_client = {}) {
  return {
    name, dialect: 'openai', base_url: url, api_key: 'sk-test',
    http_client: { max_retries: 0, cooldown_max: '0s', max_connections: 1000, concurrent_requests: 1000, requests_per_minute: 0, ...http_client },
    breaker: { failures: 0, failure_rate: 0 },
  };
}

/** Where servers of this process keep their record: PARLEY_TEST_STORE=postgres is a PostgreSQL for all of them. */
async function storeUrl(dir) {
  if (process.env.PARLEY_TEST_STORE !== 'postgres') return `sqlite:${path.join(dir, 'parley.db')}`;
  return (await sharedPostgres()).newDatabase();
}

function default_config(dir, mock, store_url) {
  return {
    listen: ['127.0.0.1:0'],
    workers: 4,
    run_dir: path.join(dir, 'run'),
    store: { url: store_url },
    drain: { pause: '0s', timeout: '2s' },
    // Whether a core is overloaded depends on what else the machine does: tests about it say when.
    overload: { target: '0' },
    providers: [plainProvider('mock', mock?.url ?? 'http://127.0.0.1:9/v1')],
    models: [{ name: 'default', targets: [{ provider: 'mock', model: 'mock' }], price: { input: 1, output: 2, cached: 0.5 } }],
    apps: [{ id: 'demo', name: 'Demo', org: 'demo', client_may: ['tools'] }],
    keys: [
      { kind: 'client', app: 'demo', secret: keys.client, rate: { limit: 0, window: '60s' } },
      { kind: 'server', app: 'demo', secret: keys.server },
      { kind: 'admin', secret: keys.admin },
    ],
  };
}

function is_alive(pid) {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}

class Server extends Child {
  constructor(dir, config, { args = [], env = {}, nofile, wrap, uid }) {
    const file = path.join(dir, 'parley.yaml');
    // JSON is YAML.
    fs.writeFileSync(file, JSON.stringify(config, null, 2));
    if (uid !== undefined) for (const name of [dir, file]) fs.chownSync(name, uid, uid);
    super(path.join(build, 'parleyd'), ['--config', file, ...args], { env, cwd: dir, nofile, wrap, uid, gid: uid });
    this.dir = dir;
    this.file = file;
    this.config = config;
    this.allowed = [...always_allowed];
    this.is_stopped = false;
  }

  /** Resolves when every worker accepts. */
  async ready() {
    this.address = (await this.line(/listening address=(\S+)/))[1];
    this.port = Number(this.address.split(':').pop());
    this.url = `http://${this.address}`;
    await this.line(/server ready workers=/);
  }

  request(route, options) {
    return request(this.url + route, options);
  }

  stream(route, options) {
    return stream(this.url + route, options);
  }

  raw(pieces, options) {
    return raw(this.port, pieces, options);
  }

  /** Lines at warn or above that match this are no failure. */
  expectLog(regex) {
    this.allowed.push(regex);
  }

  /** Rewrites the config file with these changes; the server reads it on SIGHUP. */
  changeConfig(changes) {
    this.config = merge(this.config, changes);
    fs.writeFileSync(this.file, JSON.stringify(this.config, null, 2));
  }

  /** The master in charge: the process that was started, or the last that took over. */
  get master() {
    return this.successor ?? this.pid;
  }

  kill(signal = 'SIGTERM') {
    if (!this.successor) super.kill(signal);
    else if (is_alive(this.successor)) process.kill(this.successor, signal);
  }

  /** A drain that has begun is cut short: a signal that is no repetition of an earlier one, which the master passes over for half a second. */
  stopAtOnce() {
    return waitFor(async () => {
      this.kill('SIGTERM');
      await new Promise((resolve) => { setTimeout(resolve, 600); });
      return this.status || this.lines.some((line) => /stopping at once/.test(line));
    }, 'a stop at once');
  }

  /** A new binary takes over; resolves when it has. The pid of its master. */
  async upgrade() {
    const from = this.lines.length;
    this.kill('SIGUSR2');
    await this.line(/upgrade (done|failed)/, 20000, from);
    const [, pid] = await this.line(/upgrade done pid=(\d+)/, 1000, from);
    await this.line(/taken over version=/, 10000, from);
    if (!this.successor) process.on('exit', () => { if (is_alive(this.successor)) process.kill(this.successor, 'SIGKILL'); });
    this.successor = Number(pid);
    return this.successor;
  }

  /** The pid of each slot's present worker, as the master logged it. */
  workers() {
    const pids = [];
    for (const line of this.lines) {
      const match = /worker is up slot=(\d+) pid=(\d+)/.exec(line);
      if (match) pids[Number(match[1])] = Number(match[2]);
    }
    return pids;
  }

  /** kill -9 of a slot's worker (its death is expected in the log); returns its pid. */
  killWorker(slot = 0, signal = 'SIGKILL') {
    const pid = this.workers()[slot];
    this.expectLog(new RegExp(`worker died slot=${slot} pid=${pid} `));
    process.kill(pid, signal);
    return pid;
  }

  /** Waits until the slot has another worker than this one, and it accepts; returns the pid. */
  replaced(slot, old_pid) {
    return waitFor(() => {
      const pid = this.workers()[slot];
      return pid !== old_pid && pid;
    }, `successor in slot ${slot}`);
  }

  /** What went wrong by the log: lines no test expected, and everything that is not a log line. */
  complaints() {
    const untimed = (line) => line.slice(line.indexOf(' ') + 1);
    const is_allowed = (line) => this.allowed.some((regex) => regex.test(line));
    return this.lines.filter((line) => {
      const match = log_line.exec(line);
      if (match && (!/WARN|ERROR/.test(match[1]))) return false;
      if (is_allowed(line)) return false;
      // It has no values: it is as good as those of its place that were not left out.
      const [, start] = repeated_line.exec(untimed(line)) ?? [];
      return !start || !this.lines.some((other) => other !== line && untimed(other).startsWith(start) && is_allowed(other));
    });
  }

  /** Ends the server and checks how it ended; safe to call again. */
  async stop({ signal = 'SIGTERM', code = 0 } = {}) {
    if (this.is_stopped) return;
    this.is_stopped = true;
    const status = await super.stop(signal);
    fs.rmSync(this.dir, { recursive: true, force: true });
    if (this.owns_mock) await this.mock?.stop();
    const complaints = this.complaints();
    if (complaints.length > 0 || (signal !== 'SIGKILL' && status.code !== code)) {
      assert.fail(`parleyd ended with ${JSON.stringify(status)}` +
        (complaints.length ? `; nobody expected:\n${complaints.map((line) => `    ${line}`).join('\n')}` : '') +
        `\n  whole log:\n${this.output()}`);
    }
  }
}

/**
 * options: config (merged into the default one), mock (false: none; a mock that runs: use it), mockArgs, args, env, nofile,
 * wrap (as Child's), uid (who runs it), ready (false: do not wait).
 */
export async function startServer(t, options = {}) {
  const mock = options.mock === false ? null : options.mock ?? await startMock(null, options.mockArgs);
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'parley-'));
  process.on('exit', () => fs.rmSync(dir, { recursive: true, force: true })); // also when nobody stops it
  const store_url = options.config?.store?.url ?? await storeUrl(dir);
  const server = new Server(dir, merge(default_config(dir, mock, store_url), options.config ?? {}), options);
  server.mock = mock;
  server.owns_mock = !options.mock;
  t?.after(() => server.stop());
  if (options.ready !== false) {
    await server.ready().catch(async (error) => {
      await server.stop().catch(() => {});
      throw error;
    });
  }
  return server;
}

/** A session of the demo app: its record. */
export async function newSession(server, body = {}, key = keys.client) {
  const { status, json, text } = await server.request('/v1/sessions', { key, body });
  assert.equal(status, 201, text);
  return json;
}

/** A streamed turn to its end: all events. */
export async function streamTurn(server, session_id, body, key = keys.client) {
  const events = await server.stream(`/v1/sessions/${session_id}/turns`, { key, body: { stream: true, ...body } });
  assert.equal(events.status, 200, events.text);
  return collect(events, is_last_event);
}

export function is_last_event({ event }) {
  return ['turn.completed', 'turn.failed', 'turn.cancelled'].includes(event);
}
