// postgres - a PostgreSQL of the test's own, with one empty database `parley`: on a Unix socket and on a TCP port.
//
//   const postgres = await startPostgres(t);        postgres.url, postgres.unix_url, await postgres.sql('SELECT 1')
//   await postgres.kill(); await postgres.again();          away, and back with what was committed
//   const url = await (await sharedPostgres()).newDatabase();      one server for all tests of a file
import { execFile, spawnSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { promisify } from 'node:util';
import { databaseAccount, folderOf } from './account.mjs';
import { freePort } from './port.mjs';
import { Child } from './process.mjs';

const exec = promisify(execFile);

/** Debian keeps the server's programs away from PATH; the newest version wins. */
function program(name) {
  const base = '/usr/lib/postgresql';
  const versions = fs.existsSync(base) ? fs.readdirSync(base).sort((a, b) => Number(b) - Number(a)) : [];
  const found = versions.map((version) => path.join(base, version, 'bin', name)).find((file) => fs.existsSync(file));
  return found ?? name;
}

class Postgres {
  constructor(dir, account) {
    Object.assign(this, { dir, account });
  }

  /** A port of its own, chosen when it is about to be bound: until then another may take it. */
  async settle() {
    this.port = await freePort();
    this.url = `postgres://parley@127.0.0.1:${this.port}/parley`;
    this.unix_url = `postgres://parley@/parley?host=${encodeURIComponent(this.dir)}&port=${this.port}`;
  }

  async init() {
    const child = new Child(program('initdb'), [
      '-D', path.join(this.dir, 'data'), '-U', 'parley', '-A', 'trust', '-E', 'UTF8', '--locale=C', '-N', '--no-instructions',
    ], { ...this.account, cwd: this.dir });
    const status = await child.ended;
    if (status.code !== 0) throw new Error(`initdb: ${child.output()}`);
  }

  /** `options` are settings: {max_connections: 20}. */
  async again(options = this.options ?? {}) {
    this.options = options;
    const settings = {
      port: this.port, listen_addresses: '127.0.0.1', unix_socket_directories: this.dir, fsync: 'off', max_connections: 200,
      shared_buffers: '16MB', log_min_messages: 'warning', ...options,
    };
    const flags = Object.entries(settings).flatMap(([name, value]) => ['-c', `${name}=${value}`]);
    this.child = new Child(program('postgres'), ['-D', path.join(this.dir, 'data'), ...flags], { ...this.account, cwd: this.dir });
    for (let tries = 0; ; tries++) {
      try {
        await this.sql('SELECT 1', 'postgres');
        return;
      } catch (e) {
        if (this.child.status || tries > 500) throw new Error(`${e.message}\n${this.child.output()}`);
        await new Promise((resolve) => setTimeout(resolve, 20));
      }
    }
  }

  /** SIGQUIT is a crash (nothing is flushed), SIGINT a fast shutdown. */
  async kill(signal = 'SIGQUIT') {
    return this.child.stop(signal);
  }

  /** All its processes, the first one first. */
  processes() {
    const { stdout } = spawnSync('ps', ['-o', 'pid=', '--ppid', String(this.child.pid)], { encoding: 'utf8' });
    return [this.child.pid, ...stdout.split('\n').filter(Boolean).map(Number)];
  }

  /** SIGSTOP or SIGCONT for all of them: it is there and says nothing. */
  signalAll(signal) {
    for (const pid of this.processes()) {
      try {
        process.kill(pid, signal);
      } catch (e) {
        if (e.code !== 'ESRCH') throw e;
      }
    }
  }

  /** Another empty database: its address. */
  async newDatabase() {
    this.databases = (this.databases ?? 0) + 1;
    const name = `parley_${this.databases}`;
    await this.sql(`CREATE DATABASE ${name}`, 'postgres');
    return this.url.replace(/parley$/, name);
  }

  /** What psql says: rows as lines, columns divided by `|`. */
  async sql(query, database = 'parley') {
    const { stdout } = await exec('psql', ['-XAtq', '-v', 'ON_ERROR_STOP=1', '-h', this.dir, '-p', String(this.port), '-U', 'parley', '-d', database, '-c', query]);
    return stdout.trimEnd();
  }
}

/** options: as again()'s, or a function of the account that gives them. */
export async function startPostgres(t, options = {}) {
  const account = databaseAccount();
  const postgres = new Postgres(folderOf(account, 'postgres'), account);
  await postgres.init();
  await postgres.settle();
  await postgres.again(typeof options === 'function' ? options(account) : options);
  await postgres.sql('CREATE DATABASE parley', 'postgres');
  postgres.stop = async () => {
    await postgres.kill('SIGINT');
    fs.rmSync(postgres.dir, { recursive: true, force: true });
  };
  t?.after(() => postgres.stop());
  return postgres;
}

/** A server that follows `primary`, as of now: standby.promote() makes a primary of it. */
export async function startStandby(t, primary) {
  const standby = new Postgres(folderOf(primary.account, 'postgres'), primary.account);
  const copy = new Child(program('pg_basebackup'), [
    '-h', '127.0.0.1', '-p', String(primary.port), '-U', 'parley', '-D', path.join(standby.dir, 'data'), '-R', '-X', 'stream', '-c', 'fast',
  ], { ...primary.account, cwd: standby.dir });
  const { code } = await copy.ended;
  if (code !== 0) throw new Error(`pg_basebackup: ${copy.output()}`);
  await standby.settle();
  await standby.again();
  standby.promote = () => standby.sql('SELECT pg_promote()', 'postgres');
  standby.stop = async () => {
    await standby.kill('SIGQUIT');
    fs.rmSync(standby.dir, { recursive: true, force: true });
  };
  t?.after(() => standby.stop());
  return standby;
}

let shared;

/** The one of this process, started by who asks first; it ends with the process. */
export function sharedPostgres() {
  shared ??= startPostgres(null, { max_connections: 400 }).then((postgres) => {
    process.on('exit', () => {
      process.kill(postgres.child.pid, 'SIGKILL'); // its children end when they see it
      fs.rmSync(postgres.dir, { recursive: true, force: true });
    });
    postgres.child.process.unref();
    return postgres;
  });
  return shared;
}
