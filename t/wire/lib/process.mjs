// process - a child process whose output is kept line by line, and which never outlives the test.
import { spawn } from 'node:child_process';
import fs from 'node:fs';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import path from 'node:path';
import { waitFor } from './wait.mjs';

export const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '../../..');
/** Where the programs under test are: build/release, or what the runner says. */
export const build = path.resolve(root, process.env.PARLEY_BUILD ?? 'build/release');

export class Child {
  /** options: {cwd, env (added to a clean one), uid, gid, nofile (RLIMIT_NOFILE), wrap (a command that becomes this one)} */
  constructor(command, args, options = {}) {
    this.name = path.basename(command);
    this.lines = [];
    this.status = null; // {code, signal} once it has ended
    this.spawned_at = Date.now();
    const env = { PATH: process.env.PATH, HOME: process.env.HOME, TZ: 'UTC', LANG: 'C.UTF-8', ...options.env };
    for (const name of ['ASAN_OPTIONS', 'UBSAN_OPTIONS', 'LSAN_OPTIONS', 'TSAN_OPTIONS']) {
      if (process.env[name]) env[name] = process.env[name];
    }
    // The kernel ends the child with the test, also when the test is killed.
    const guard = ['--pdeathsig', 'KILL'];
    if (options.uid !== undefined) guard.push(`--reuid=${options.uid}`, `--regid=${options.gid}`, '--clear-groups');
    const limit = options.nofile ? ['prlimit', `--nofile=${options.nofile}`, '--'] : [];
    this.process = spawn('setpriv', [...guard, '--', ...limit, ...(options.wrap ?? []), command, ...args], {
      cwd: options.cwd ?? root, env, stdio: ['ignore', 'pipe', 'pipe'],
    });
    this.pid = this.process.pid;
    for (const stream of [this.process.stdout, this.process.stderr]) {
      createInterface({ input: stream, crlfDelay: Infinity }).on('line', (line) => this.lines.push(line));
    }
    this.ended = new Promise((resolve, reject) => {
      this.process.on('error', reject);
      this.process.on('close', (code, signal) => {
        this.status = { code, signal };
        resolve(this.status);
      });
    });
    this.ended.catch(() => {});
  }

  /** The first line that matches (its match array), waiting for it; `from` skips earlier lines. */
  async line(regex, limit_ms = 10000, from = 0) {
    const search = () => {
      for (let i = from; i < this.lines.length; i++) {
        const match = regex.exec(this.lines[i]);
        if (match) return match;
      }
      if (this.status) throw new Error(`${this.name} ended (${JSON.stringify(this.status)}) without a line ${regex}:\n${this.output()}`);
      return null;
    };
    try {
      return await waitFor(search, `line ${regex} of ${this.name}`, limit_ms);
    } catch (e) {
      if (!this.status) e.message += `\n${this.output()}`;
      throw e;
    }
  }

  output() {
    return this.lines.map((line) => `    ${line}`).join('\n');
  }

  kill(signal = 'SIGTERM') {
    if (!this.status) this.process.kill(signal);
  }

  /** Sends the signal and waits for the end; SIGKILL and an error when it does not come. */
  async stop(signal = 'SIGTERM', limit_ms = 30000) {
    this.kill(signal);
    const timer = setTimeout(() => this.process.kill('SIGKILL'), limit_ms);
    const status = await this.ended;
    clearTimeout(timer);
    return status;
  }
}

/** Has this process ended? One that nobody has waited for yet has, too. */
export function isGone(pid) {
  try {
    return / Z /.test(fs.readFileSync(`/proc/${pid}/stat`, 'utf8'));
  } catch (e) {
    if (e.code !== 'ENOENT' && e.code !== 'ESRCH') throw e;
    return true;
  }
}
