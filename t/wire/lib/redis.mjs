// redis - a Redis of the test's own, nothing kept: on a Unix socket and on a TCP port.
//
//   const redis = await startRedis(t);      redis.url, redis.unix_url, await redis.command('GET', 'key')
//   await redis.kill(); await redis.again();        away, and back at the same place, empty
//   redis.child.kill('SIGSTOP')                     silent, until SIGCONT
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { promisify } from 'node:util';
import { databaseAccount, folderOf } from './account.mjs';
import { freePort } from './port.mjs';
import { Child } from './process.mjs';

class Redis {
  constructor(dir, account, port, args) {
    Object.assign(this, { dir, account, port, args, socket: path.join(dir, 'redis.sock') });
    this.url = `redis://127.0.0.1:${port}/0`;
    this.unix_url = `unix:${this.socket}`;
  }

  async again() {
    this.child = new Child('redis-server', [
      '--port', String(this.port), '--bind', '127.0.0.1', '--unixsocket', this.socket, '--unixsocketperm', '777',
      '--dir', this.dir, '--save', '', '--appendonly', 'no', '--daemonize', 'no', ...this.args,
    ], { ...this.account, cwd: this.dir });
    await this.child.line(/Ready to accept connections|ready to accept connections at/i);
  }

  async kill(signal = 'SIGKILL') {
    return this.child.stop(signal);
  }

  /** What redis-cli says. */
  async command(...args) {
    const { stdout } = await promisify(execFile)('redis-cli', ['-s', this.socket, ...args]);
    return stdout.trimEnd();
  }
}

/** args: more of redis-server's, or a function of its folder that gives them. */
export async function startRedis(t, args = []) {
  const account = databaseAccount();
  const dir = folderOf(account, 'redis');
  const redis = new Redis(dir, account, await freePort(), typeof args === 'function' ? await args(dir) : args);
  await redis.again();
  redis.stop = async () => {
    redis.child.kill('SIGCONT');
    const status = await redis.kill('SIGTERM');
    fs.rmSync(redis.dir, { recursive: true, force: true });
    assert.ok(status.code === 0 || status.signal === 'SIGKILL', redis.child.output());
  };
  t?.after(() => redis.stop());
  return redis;
}
