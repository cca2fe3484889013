// lib - what the benchmarks share: CPU and memory of processes, medians, the load generators.
import { execFile, execFileSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { promisify } from 'node:util';
import { Child, build } from '../../t/wire/lib/process.mjs';
import { keys } from '../../t/wire/lib/server.mjs';
import { within } from '../../t/wire/lib/wait.mjs';

const ticks_per_s = 100; // USER_HZ of /proc/PID/stat

/** CPU seconds (user and system) that these processes have used; of one that has ended since it was listed nothing. */
export function cpuSeconds(pids) {
  return pids.reduce((sum, pid) => {
    try {
      const fields = fs.readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1].split(' ');
      return sum + (Number(fields[11]) + Number(fields[12])) / ticks_per_s;
    } catch (e) {
      if (e.code !== 'ENOENT' && e.code !== 'ESRCH') throw e;
      return sum;
    }
  }, 0);
}

/** The same to the nanosecond, by the scheduler's account: of the threads that live. */
export function cpuMicros(pids) {
  return pids.reduce((sum, pid) => fs.readdirSync(`/proc/${pid}/task`).reduce((of_pid, task) =>
    of_pid + Number(fs.readFileSync(`/proc/${pid}/task/${task}/schedstat`, 'utf8').split(' ')[0]) / 1e3, sum), 0);
}

/** Proportional set size in bytes: shared pages are divided among those who share them. */
export function pssBytes(pids) {
  return pids.reduce((sum, pid) => sum + 1024 * Number(/^Pss:\s+(\d+) kB/m.exec(fs.readFileSync(`/proc/${pid}/smaps_rollup`, 'utf8'))[1]), 0);
}

/** Of it what no file is behind: unlike shared pages it does not depend on who else runs on the machine. */
export function anonymousBytes(pids) {
  return pids.reduce((sum, pid) => sum + 1024 * Number(/^Pss_Anon:\s+(\d+) kB/m.exec(fs.readFileSync(`/proc/${pid}/smaps_rollup`, 'utf8'))[1]), 0);
}

/** Seconds that the threads of a process were ready to run and waited for a core, by the kernel's account. */
export function waitedSeconds(pid) {
  return fs.readdirSync(`/proc/${pid}/task`).reduce((sum, task) =>
    sum + Number(fs.readFileSync(`/proc/${pid}/task/${task}/schedstat`, 'utf8').split(' ')[1]) / 1e9, 0);
}

export function median(values) {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

/** The process and its children: of parleyd master and workers, also where the log names only some of them. */
export function all_pids(server) {
  const children = fs.readFileSync(`/proc/${server.pid}/task/${server.pid}/children`, 'utf8').trim();
  return [server.pid, ...(children ? children.split(' ').map(Number) : [])];
}

/** parley_load to its end: the JSON that it prints. */
export async function load(address, scenario, { key = keys.server, users = 16, count, tokens = 20, interval = 0, turns = 10, plain = false, limit = 120 } = {}) {
  const args = ['--target', address, '--users', users, '--count', count, '--tokens', tokens, '--turns', turns, '--limit', limit];
  if (interval) args.push('--interval', interval);
  if (key) args.push('--key', key);
  if (plain) args.push('--plain');
  const { stdout } = await promisify(execFile)(path.join(build, 'parley_load'), [...args.map(String), scenario]).catch((e) => e);
  const result = JSON.parse(stdout.trim().split('\n').at(-1));
  if (result.failed > 0 || result.done < count) throw new Error(`${scenario}: ${stdout}`);
  return result;
}

/** All threads of these processes to one core. */
export function pin(pids, core) {
  for (const pid of pids) execFileSync('taskset', ['-a', '-c', '-p', String(core), String(pid)]);
}

/** parley_load with these arguments, on that core if one is named, whatever comes of it: its result. */
export async function generate(address, args, { key = keys.server, core } = {}) {
  const all = [path.join(build, 'parley_load'), '--target', address, ...(key ? ['--key', key] : []), '--limit', '120', ...args.map(String)];
  if (core !== undefined) all.unshift('taskset', '-c', String(core));
  const { stdout, stderr } = await promisify(execFile)(all[0], all.slice(1)).catch((e) => e);
  if (!stdout) throw new Error(`parley_load ${all.join(' ')}: ${stderr}`);
  return JSON.parse(stdout.trim().split('\n').at(-1));
}

/**
 * Holds connections, from the moment when all stand, or, with `stops`, as many as the machine takes: {pids, standing, ended(),
 * release()}. Both give the result, which must be that none was lost: ended() waits for --hold to be over, release() ends it.
 */
export async function hold(address, scenario, { count, users = 64, key = keys.server, args = [], limit = 120, stops = false }) {
  const child = new Child(path.join(build, 'parley_load'), ['--target', address, ...(key ? ['--key', key] : []),
    '--users', users, '--count', count, '--limit', limit, ...args, scenario].map(String));
  const standing = Number((await child.line(/^standing (\d+)/, limit * 1000))[1]);
  const ended = async () => {
    await within(child.ended, 'end of parley_load', limit * 1000);
    const result = JSON.parse(child.lines.find((line) => line.startsWith('{')));
    const is_whole = standing >= count || (stops && result.stopped !== '');
    if (!is_whole || result.failed + result.refused + result.died > 0) throw new Error(`${scenario} of ${count}: ${child.output()}`);
    return result;
  };
  const release = async () => {
    await child.stop('SIGTERM', 60000);
    return ended();
  };
  return { pids: all_pids(child), standing, ended, release };
}

/** Calls look() now and then until the promise is settled: what it is, and what was seen. */
export async function sampled(promise, every_ms, look) {
  const seen = [];
  const timer = setInterval(() => seen.push(look()), every_ms);
  const result = await promise.finally(() => clearInterval(timer));
  return { result, seen };
}

/** wrk: requests done and the seconds it took. */
export async function wrk(url, { seconds = 3, connections = 64 } = {}) {
  const { stdout } = await promisify(execFile)('wrk', ['-t1', `-c${connections}`, `-d${seconds}s`, '--latency', url]);
  if (/Non-2xx/.test(stdout)) throw new Error(stdout);
  const [, requests, took] = /(\d+) requests in ([\d.]+)s/.exec(stdout);
  return { requests: Number(requests), seconds: Number(took) };
}

export function print(name, value, unit = '', note = '') {
  const shown = typeof value === 'number' ? (Math.abs(value) >= 100 ? Math.round(value).toLocaleString('en') : value.toFixed(2)) : value;
  console.log(`  ${name.padEnd(58)} ${String(shown).padStart(10)} ${unit.padEnd(16)} ${note}`);
}

/** The median of several rounds of an async figure. */
export async function rounds(n, figure) {
  const values = [];
  for (let i = 0; i < n; i++) values.push(await figure(i));
  return median(values);
}
