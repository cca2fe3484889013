// `make install`, and the Debian package under a real systemd: it installs, starts, reloads, is upgraded while it serves, goes.
import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import fs from 'node:fs';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { request } from './lib/http.mjs';
import { freePort } from './lib/port.mjs';
import { build, root } from './lib/process.mjs';
import { startSystemd } from './lib/systemd.mjs';
import { certificate } from './lib/tls.mjs';
import { waitFor, within } from './lib/wait.mjs';

const skip = !build.endsWith('/release') ? 'of the release build only' : spawnSync('dpkg-shlibdeps', ['--version']).status !== 0 && 'no dpkg-dev';
const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'parley-package-'));
// Under `make test` we are make's child, and not one of its jobs.
const env = Object.fromEntries(Object.entries(process.env).filter(([name]) => !/^(MAKE|MFLAGS|KIND$|PARLEY_|T$|B$)/.test(name)));
const make = (...args) => execFileSync('make', ['-s', ...args], { cwd: root, env, encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] });
const deb = (version) => path.join(dir, `deb-${version}`, `parley_${version}_${execFileSync('dpkg', ['--print-architecture'], { encoding: 'utf8' }).trim()}.deb`);
let machine, port, url, doors;

function makePackage(version) {
  const out = path.join(dir, `deb-${version}`);
  make('install', `DESTDIR=${out}/files`, 'PREFIX=/usr');
  execFileSync(path.join(root, 'etc/debian/build'), [version, path.join(out, 'files'), out], { cwd: root, stdio: 'pipe' });
}

const skipped = (t) => { if (machine?.skip) t.skip(machine.skip); return Boolean(machine?.skip); };
// As `skipped`; and whatever a test before this one left behind, the service runs.
async function isWithoutService(t) {
  if (skipped(t)) return true;
  await machine.run('systemctl', 'start', 'parleyd');
  return false;
}
const kept = 2 + 2 + 1; // a socket for each of two slots, of them one more with TLS; a Unix socket is everybody's
const live = async () => (await request(`${url}/health/live`)).status === 200;
const pid = async () => Number(await machine.property('parleyd', 'MainPID'));
const processes = async () => (await machine.run('pgrep', '-x', 'parleyd')).trim().split('\n').map(Number);

/** Clients at each door that ask one after the other until `fn` has ended and some more have been answered; each of them must be answered. */
async function whileClientsAsk(fn) {
  let is_over = false, answered = 0;
  const clients = Array.from({ length: 9 }, async (_, i) => {
    const [at, options] = doors[i % doors.length];
    while (!is_over) {
      assert.equal((await request(`${at}/health/live`, { ...options, limit_ms: 30000 })).status, 200);
      answered++;
    }
  });
  const more = () => {
    const so_far = answered;
    return waitFor(() => is_over || answered > so_far + 20, 'more requests');
  };
  try {
    await Promise.race([more().then(fn).then(more), ...clients]);
  } finally {
    is_over = true;
    await Promise.allSettled(clients);
  }
  await Promise.all(clients);
}

// Until its workers know (SIGKILL is theirs too, a moment later) they accept, and take with them whom they did: who is asked
// about here connects when all of them have ended, or is in a queue that nobody accepts from any more.
async function killMaster(master) {
  const all = await processes();
  await machine.run('kill', '-9', String(master));
  await waitFor(async () => (await machine.try('ps', '-o', 'pid=', '-p', all.join(','))).code === 1, 'the end of all of them');
}

/** Workers that stand still accept nothing: these requests are in their queues, and stay there. Gives functions that wait for the status. */
async function fillQueues(masters) {
  const workers = (await processes()).filter((one) => !masters.includes(one)).map(String);
  await machine.try('kill', '-STOP', ...workers); // one of an old master may have ended
  await waitFor(async () => /^([TZ]\S*\s*)+$/.test(await machine.run('ps', '-o', 'stat=', '-p', workers.join(','))), 'their standstill');
  return Promise.all(Array.from({ length: 16 }, async () => {
    const socket = net.connect(port, '127.0.0.1').setEncoding('utf8');
    await once(socket, 'connect');
    socket.write('GET /health/live HTTP/1.1\r\nHost: parley\r\nConnection: close\r\n\r\n');
    const whole = (async () => {
      let text = '';
      for await (const part of socket) text += part;
      return text.split('\r\n')[0];
    })();
    whole.catch(() => {}); // asked for later
    return () => within(whole, 'answer to a request in a queue', 30000);
  }));
}

before(async () => {
  if (skip) return;
  makePackage('0.1.0');
  makePackage('0.1.1');
  machine = await startSystemd(null);
  if (machine.skip) return;
  port = await freePort();
  url = `http://127.0.0.1:${port}`;
  fs.mkdirSync(machine.file('/etc/systemd/system/parleyd.service.d'), { recursive: true });
  const tls_port = await freePort(), files = certificate(dir, 'tls'), there = { certificate: '/etc/parley-test.crt', key: '/etc/parley-test.key' };
  for (const name of ['certificate', 'key']) {
    fs.copyFileSync(files[name], machine.file(there[name]));
    fs.chmodSync(machine.file(there[name]), 0o644);
  }
  doors = [[url, {}], [`https://127.0.0.1:${tls_port}`, { ca: fs.readFileSync(files.certificate) }], ['http://localhost', { socketPath: machine.file('/run/parley/http.sock') }]];
  fs.writeFileSync(machine.file('/etc/systemd/system/parleyd.service.d/port.conf'), `[Service]\nEnvironment=PARLEY_LISTEN=127.0.0.1:${port},unix:/run/parley/http.sock WORKERS=2 PARLEY_DRAIN__PAUSE=2s
Environment=PARLEY_TLS__LISTEN=127.0.0.1:${tls_port} PARLEY_TLS__CERTIFICATE=${there.certificate} PARLEY_TLS__KEY=${there.key}\n`);
});
after(async () => {
  if (machine && !machine.skip) await machine.end();
  fs.rmSync(dir, { recursive: true, force: true });
});

test('make install puts programs and the sample where it says, and uninstall takes them away', { skip }, () => {
  const into = path.join(dir, 'installed');
  make('install', `DESTDIR=${into}`, 'PREFIX=/opt/parley');
  const files = (folder) => fs.readdirSync(path.join(into, 'opt/parley', folder)).sort();
  assert.deepEqual(files('bin'), ['mock_llm', 'parley_load', 'parleyd']);
  assert.ok(files('share/parley').includes('parley.yaml'));
  assert.match(execFileSync(path.join(into, 'opt/parley/bin/parleyd'), ['--version'], { encoding: 'utf8' }), /^parleyd \d/);
  make('uninstall', `DESTDIR=${into}`, 'PREFIX=/opt/parley');
  assert.deepEqual(files('bin'), []);
  assert.ok(!fs.existsSync(path.join(into, 'opt/parley/share/parley')));
});

test('the package says what it needs, and its files are root\'s', { skip }, () => {
  const control = execFileSync('dpkg-deb', ['--field', deb('0.1.0')], { encoding: 'utf8' });
  assert.match(control, /^Depends: .*libc6 \(>= .*libh2o-evloop.*libpq5/m);
  const content = execFileSync('dpkg-deb', ['--contents', deb('0.1.0')], { encoding: 'utf8' });
  for (const line of content.trim().split('\n')) assert.match(line, / root\/root /);
  for (const file of ['/usr/bin/parleyd', '/lib/systemd/system/parleyd.service', '/etc/parley/parley.yaml', '/usr/share/doc/parley/copyright']) {
    assert.ok(content.includes(` .${file}\n`), file);
  }
  const bytes = fs.readFileSync(deb('0.1.0'));
  fs.rmSync(path.join(dir, 'deb-0.1.0'), { recursive: true });
  makePackage('0.1.0');
  assert.ok(bytes.equals(fs.readFileSync(deb('0.1.0'))), 'made again it is the same');
});

test('installed it runs: as its own account, with its sockets in systemd\'s keeping', { skip }, async (t) => {
  if (skipped(t)) return;
  fs.copyFileSync(deb('0.1.0'), machine.file('/opt/old.deb'));
  await machine.run('dpkg', '-i', '/opt/old.deb');
  assert.equal(await machine.property('parleyd', 'ActiveState'), 'active');
  assert.equal(await machine.property('parleyd', 'UnitFileState'), 'enabled');
  assert.equal(await machine.property('parleyd', 'StatusText'), 'running, 2 of 2 workers ready');
  assert.equal(await machine.property('parleyd', 'NFileDescriptorStore'), String(kept));
  for (const [at, options] of doors) assert.equal((await request(`${at}/health/live`, options)).status, 200, at);
  assert.equal((await request(`${url}/health/ready`)).status, 200);
  const account = (await machine.run('id', '-u', 'parley')).trim();
  assert.match(await machine.run('ps', '-o', 'uid=', '-C', 'parleyd'), new RegExp(`^( *${account}\n){3}$`));
  assert.match(await machine.run('stat', '-c', '%a %U', '/etc/parley/parleyd.env', '/var/lib/parley/parley.db'), /^600 root\n600 parley\n$/);
  assert.match(await machine.run('parleyd', '--config', '/etc/parley/parley.yaml', 'key', 'create', '--kind', 'server', '--app', 'main'), /secret +ps_/);
});

test('systemctl reload: a good file is taken, a bad one is refused and said so', { skip }, async (t) => {
  if (await isWithoutService(t)) return;
  const file = machine.file('/etc/parley/parley.yaml'), good = fs.readFileSync(file, 'utf8');
  const main = await pid();
  fs.writeFileSync(file, `${good}\nmax_connections: 77\n`);
  await machine.run('systemctl', 'reload', 'parleyd');
  await waitFor(async () => (await request(`${url}/health`)).json.connections.max === 2 * 77, 'the new limit');
  fs.writeFileSync(file, `${good}\nmax_conections: 77\n`);
  const { code } = await machine.try('systemctl', 'reload', 'parleyd');
  assert.notEqual(code, 0);
  assert.match(await machine.run('journalctl', '--no-pager', '-u', 'parleyd', '-n', '20'), /max_conections: unknown key; did you mean max_connections/);
  fs.writeFileSync(file, good);
  assert.equal(await machine.property('parleyd', 'ActiveState'), 'active');
  assert.equal(await pid(), main);
  assert.ok(await live());
});

test('a killed master is replaced, with the same sockets: who connects meanwhile is served', { skip }, async (t) => {
  if (await isWithoutService(t)) return;
  const main = await pid();
  await killMaster(main);
  // Nobody accepts from it, but the socket is there: these wait in its queue.
  await Promise.all(Array.from({ length: 8 }, async () => assert.ok(await live())));
  await waitFor(async () => await pid() !== main && await machine.property('parleyd', 'ActiveState') === 'active', 'the next master');
  assert.equal(await machine.property('parleyd', 'NRestarts'), '1');
});

test('an upgrade while requests come: the new program serves, and nobody was refused', { skip }, async (t) => {
  if (await isWithoutService(t)) return;
  fs.copyFileSync(deb('0.1.1'), machine.file('/opt/new.deb'));
  const main = await pid();
  await whileClientsAsk(async () => {
    await machine.run('dpkg', '-i', '/opt/new.deb');
    await waitFor(async () => await pid() !== main && await machine.property('parleyd', 'ActiveState') === 'active', 'the new master', 60000);
  });
  assert.doesNotMatch(await machine.run('journalctl', '--no-pager'), /stopping pause_ms=/, 'handed over, not started anew');
  assert.match(await machine.run('dpkg-query', '-W', 'parley'), /0\.1\.1/);
});

test('systemctl restart while requests come: they wait for the next master, nobody is refused', { skip }, async (t) => {
  if (await isWithoutService(t)) return;
  const main = await pid();
  await whileClientsAsk(() => machine.run('systemctl', 'restart', 'parleyd'));
  assert.notEqual(await pid(), main);
  const journal = await machine.run('journalctl', '--no-pager', '-u', 'parleyd');
  assert.match(journal.slice(journal.lastIndexOf('stopping pause_ms=')), /INFO {2}draining[^]*INFO {2}listeners left to the next master[^]*INFO {2}stopped\n[^]*INFO {2}server ready/);
  assert.equal(await machine.property('parleyd', 'Result'), 'success');
  // The store has what is in use, no more.
  assert.equal(await machine.property('parleyd', 'NFileDescriptorStore'), String(kept));
});

test('a new master that is killed right after it took over is replaced too, with the same sockets', { skip }, async (t) => {
  if (await isWithoutService(t)) return;
  const main = await pid(), restarts = Number(await machine.property('parleyd', 'NRestarts'));
  await machine.run('parleyd', '--config', '/etc/parley/parley.yaml', 'upgrade');
  await waitFor(async () => await pid() !== main, 'the new main process');
  const next = await pid();
  const queued = await fillQueues([main, next]);
  await killMaster(next);
  assert.ok(await live(), 'it waits in a queue that is still there');
  for (const answer of queued) assert.equal(await answer(), 'HTTP/1.1 200 OK');
  await waitFor(async () => ![0, main, next].includes(await pid()) && await machine.property('parleyd', 'ActiveState') === 'active', 'the next master', 60000);
  assert.equal(Number(await machine.property('parleyd', 'NRestarts')), restarts + 1);
  for (let i = 0; i < 20; i++) assert.ok(await live());
  // Nothing of the two before is left.
  for (const gone of [main, next]) assert.equal((await machine.try('test', '-e', `/proc/${gone}`)).code, 1, `the end of ${gone}`);
  const workers = (await machine.run('pgrep', '-P', String(await pid()))).trim().split('\n');
  assert.equal(workers.length, 2);
});

test('after an upgrade the new master is systemd\'s own child: stopped it drains, and the unit has not failed', { skip }, async (t) => {
  if (await isWithoutService(t)) return;
  const main = await pid();
  await machine.run('parleyd', '--config', '/etc/parley/parley.yaml', 'upgrade');
  await waitFor(async () => await pid() !== main, 'the new main process');
  const next = await pid();
  assert.match(await machine.run('systemctl', 'status', 'parleyd'), new RegExp(`Active: active \\(running\\)[^]*Main PID: ${next} \\(parleyd\\)`));
  assert.equal((await machine.run('ps', '-o', 'ppid=', '-p', String(next))).trim(), '1');
  await waitFor(async () => (await machine.try('test', '-e', `/proc/${main}`)).code === 1, 'the end of the old one');
  assert.doesNotMatch(await machine.run('journalctl', '--no-pager', '-b'), new RegExp(`Supervising process ${next} which is not our child`));
  const stopped = machine.run('systemctl', 'stop', 'parleyd');
  // drain.pause: it still serves, and says that it will not for long.
  await waitFor(async () => (await request(`${url}/health/ready`)).status === 503, 'the drain');
  await stopped;
  assert.equal(await machine.property('parleyd', 'ActiveState'), 'inactive');
  assert.equal(await machine.property('parleyd', 'Result'), 'success');
  assert.equal(await machine.property('parleyd', 'ExecMainStatus'), '0');
  const journal = await machine.run('journalctl', '--no-pager', '-u', 'parleyd');
  assert.match(journal.slice(journal.lastIndexOf('taken over')), /INFO {2}draining[^]*INFO {2}listeners closed[^]*INFO {2}stopped\n/);
  assert.doesNotMatch(journal, /listener not shut/, 'an account without capabilities shuts the door too');
  await machine.run('systemctl', 'start', 'parleyd');
});

test('removed it is stopped, purged it leaves nothing', { skip }, async (t) => {
  if (await isWithoutService(t)) return;
  await machine.run('dpkg', '--remove', 'parley');
  const journal = await machine.run('journalctl', '--no-pager');
  assert.equal(await machine.property('parleyd', 'ActiveState'), 'inactive', journal);
  assert.match(journal.slice(journal.lastIndexOf('server ready')), /INFO {2}draining[^]*INFO {2}stopped\n/, 'it drained');
  assert.ok(fs.existsSync(machine.file('/etc/parley/parley.yaml')), 'the configuration stays');
  assert.ok(fs.existsSync(machine.file('/var/lib/parley/parley.db')), 'and the record');
  await assert.rejects(request(`${url}/health/live`), /ECONNREFUSED/);
  await machine.run('dpkg', '--purge', 'parley');
  for (const left of ['/etc/parley', '/var/lib/parley', '/run/parley', '/usr/share/parley', '/usr/share/doc/parley', '/usr/bin/parleyd',
    '/lib/systemd/system/parleyd.service', '/etc/systemd/system/multi-user.target.wants/parleyd.service']) {
    assert.equal((await machine.try('test', '-e', left)).code, 1, left);
  }
  assert.notEqual((await machine.try('id', 'parley')).code, 0);
});
