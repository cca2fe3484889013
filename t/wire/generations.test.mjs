// Many reloads and upgrades, one after the other and at once: nothing is left over, and somebody is in charge.
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';
import { isDeepStrictEqual, promisify } from 'node:util';
import { build } from './lib/process.mjs';
import { startServer } from './lib/server.mjs';
import { waitFor } from './lib/wait.mjs';

const run = (server, ...args) => promisify(execFile)(path.join(build, 'parleyd'), ['--config', server.file, ...args], { cwd: server.dir })
  .then(({ stdout, stderr }) => ({ code: 0, stdout, stderr }), ({ code, stdout, stderr }) => ({ code, stdout, stderr }));

/** What a process has open, by kind: {socket: 12, '/memfd:parley (deleted)': 1, ..}. Not the record: who writes it has more of it. */
function descriptors(pid) {
  const kinds = {};
  for (const fd of fs.readdirSync(`/proc/${pid}/fd`)) {
    let link;
    try {
      link = fs.readlinkSync(`/proc/${pid}/fd/${fd}`);
    } catch {
      continue; // closed meanwhile
    }
    const kind = link.replace(/:?\[.*\]$/, '');
    if (!kind.includes('parley.db')) kinds[kind] = (kinds[kind] ?? 0) + 1;
  }
  return kinds;
}

/** All that runs with this server's configuration, zombies among its children too. */
function processes(server) {
  const found = [];
  for (const pid of fs.readdirSync('/proc').filter((name) => /^\d+$/.test(name))) {
    try {
      const parent = Number(/\) \S (\d+)/.exec(fs.readFileSync(`/proc/${pid}/stat`, 'utf8'))[1]);
      if (fs.readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes(server.file) || parent === server.master) found.push(Number(pid));
    } catch {
      // it has ended meanwhile
    }
  }
  return found;
}

/** The pid of each slot's worker. */
async function workers(server) {
  const { stdout } = await run(server, 'status');
  return [...stdout.matchAll(/^ +\d+ +(\d+) +ready /gm)].map(([, pid]) => Number(pid));
}

async function settled(server, count) {
  await waitFor(async () => {
    const { json } = await server.request('/health');
    return json.workers.ready === count && json.workers.starting === 0 && json.workers.draining === 0 && processes(server).length === count + 1;
  }, `${count} workers, their master and nobody else`, 20000);
}

/** Each name is of who is in charge, and is the only one. */
async function isInCharge(server, count) {
  const run_dir = path.join(server.dir, 'run');
  assert.deepEqual(fs.readdirSync(run_dir).sort(), ['addresses', 'control', 'lock']);
  assert.equal(fs.readFileSync(path.join(run_dir, 'lock'), 'utf8'), `${server.master}\n`);
  assert.equal(fs.readFileSync(server.config.pid_file, 'utf8'), `${server.master}\n`);
  const { code, stdout } = await run(server, 'status');
  assert.equal(code, 0);
  assert.match(stdout, new RegExp(`${count} of ${count} workers ready.*\\bpid ${server.master}\\b`));
}

async function start(t, count) {
  const dir = fs.mkdtempSync('/tmp/parley-gen-');
  t.after(() => fs.rmSync(dir, { recursive: true }));
  return startServer(t, { config: { workers: count, pid_file: path.join(dir, 'pid'), drain: { timeout: '1s' } } });
}

test('after many reloads and upgrades no descriptor, memory, process or name is left over', async (t) => {
  const server = await start(t, 2);
  const reload = async () => assert.equal((await run(server, 'reload')).code, 0);
  await reload();
  await server.upgrade();
  await settled(server, 2);
  const open = async () => [server.master, ...await workers(server)].map(descriptors);
  const before = await open();
  assert.equal(before.length, 3);
  // Two workers that greet each other at the same time have two connections between them, with two ends each.
  const is_same = (now) => now.every((one, i) => isDeepStrictEqual({ ...one, socket: 0 }, { ...before[i], socket: 0 }) &&
    Math.abs(one.socket - before[i].socket) <= (i === 0 ? 0 : 2));
  const same = async (when) => {
    let now; // what the last ones have had between them goes a moment after them
    await waitFor(async () => is_same(now = await open()), 'as few descriptors as before', 5000)
      .catch(() => assert.deepEqual(now, before, when));
  };
  for (let i = 0; i < 50; i++) await reload();
  await settled(server, 2);
  await same('after reloads');
  await isInCharge(server, 2);
  for (let i = 0; i < 20; i++) await server.upgrade();
  await settled(server, 2);
  await same('after upgrades');
  await isInCharge(server, 2);
  await server.stop();
  assert.ok(!fs.existsSync(server.config.pid_file));
});

test('a reload, an upgrade and the death of a worker at the same moment, in every order', async (t) => {
  const server = await start(t, 4);
  server.expectLog(/worker died|worker dies again and again|(upgrade|reload) failed reason="(a reload|an upgrade) is under way"|worker of another master is gone/);
  let victim, from;
  const kill = () => {
    try {
      process.kill(victim, 'SIGKILL');
    } catch (e) {
      if (e.code !== 'ESRCH') throw e; // it has been replaced already
    }
  };
  const hup = () => server.kill('SIGHUP');
  // Signals that are waiting together are taken in their own order: the next one comes when this is under way.
  const usr2 = async () => { server.kill('SIGUSR2'); await server.line(/upgrade (started|failed)/, 10000, from); };
  for (const order of [[kill, hup, usr2], [kill, usr2, hup], [hup, kill, usr2], [hup, usr2, kill], [usr2, kill, hup], [usr2, hup, kill]]) {
    from = server.lines.length;
    victim = (await workers(server))[1];
    for (const step of order) await step();
    await server.line(/upgrade (done|failed)/, 20000, from);
    const done = server.lines.slice(from).map((line) => /upgrade done pid=(\d+)/.exec(line)).find(Boolean);
    if (done) {
      await server.line(/taken over version=/, 10000, from);
      server.successor = Number(done[1]);
    }
    await settled(server, 4);
    await isInCharge(server, 4);
    for (let i = 0; i < 8; i++) assert.equal((await server.request('/health/live')).status, 200);
  }
});
