// etc/parleyd.service and etc/sysctl.d, by systemd's own tools.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { build, root } from './lib/process.mjs';

const unit = fs.readFileSync(path.join(root, 'etc/parleyd.service'), 'utf8');
const analyze = (...args) => spawnSync('systemd-analyze', args, { encoding: 'utf8' });
const skip = analyze('--version').status !== 0 && 'no systemd-analyze';
const settings = (name) => [...unit.matchAll(new RegExp(`^${name}=(.*)$`, 'gm'))].map(([, value]) => value);

test('systemd understands every line of the unit', { skip }, (t) => {
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'parley-unit-'));
  t.after(() => fs.rmSync(dir, { recursive: true }));
  const copy = path.join(dir, 'parleyd.service');
  // It looks for the program; ours is not installed.
  fs.writeFileSync(copy, unit.replaceAll('/usr/bin/parleyd', path.join(build, 'parleyd')));
  const { status, stdout, stderr } = analyze('verify', '--man=no', copy);
  // Of units of the machine it complains, too.
  const ours = `${stdout}${stderr}`.split('\n').filter((line) => line.includes('parleyd.service'));
  assert.deepEqual(ours, []);
  assert.equal(status, 0, stderr);
  fs.writeFileSync(copy, unit.replaceAll('/usr/bin/parleyd', path.join(build, 'parleyd')).replace('KillMode=mixed', 'KillMode=mixd'));
  assert.match(analyze('verify', '--man=no', copy).stderr, /kill mode.*mixd/i, 'a mistake would be told');
});

test('what the service may do is little: exposure below 2 of 10', { skip }, () => {
  const { status, stdout, stderr } = analyze('security', '--offline=true', '--threshold=19', '--no-pager', path.join(root, 'etc/parleyd.service'));
  assert.equal(status, 0, `${stderr}${stdout.split('\n').filter((line) => line.includes('✗')).join('\n')}`);
});

test('the unit says what the server relies on', () => {
  for (const [name, value] of Object.entries({
    Type: 'notify', NotifyAccess: 'main', KillMode: 'mixed', Restart: 'always', OOMPolicy: 'continue', RuntimeDirectoryPreserve: 'restart',
    RuntimeDirectory: 'parley', StateDirectory: 'parley', User: 'parley',
  })) assert.deepEqual(settings(name), [value], name);
  assert.ok(Number(settings('LimitNOFILE')[0]) >= 1e6);
  // One listening socket per slot (at most 512) and address, and room for a reload's.
  assert.ok(Number(settings('FileDescriptorStoreMax')[0]) >= 4 * 512);
  assert.match(settings('WatchdogSec')[0], /^\d+s$/);
  // `timeout` and `pause` of the drain, with the defaults, and something for the end.
  assert.ok(parseInt(settings('TimeoutStopSec')[0], 10) >= 40);
  // Each program of the unit can be started as it is written there, up to the config that only a package has.
  for (const line of [...settings('ExecStart'), ...settings('ExecReload')]) {
    const [, ...args] = line.split(' ');
    const at = args.indexOf('/etc/parley/parley.yaml');
    args[at] = path.join(root, 'etc/parley.production.yaml');
    const { status, stderr } = spawnSync(path.join(build, 'parleyd'), [...args.filter((arg) => arg !== 'reload'), '--check-config'], { encoding: 'utf8' });
    assert.equal(status, 0, stderr);
  }
});

test('each advice for the kernel names a setting that there is, with its reason before it', () => {
  const lines = fs.readFileSync(path.join(root, 'etc/sysctl.d/parley.conf'), 'utf8').split('\n');
  let names = 0, has_reason = false;
  for (const line of lines) {
    if (line === '') has_reason = false;
    else if (line.startsWith('#')) has_reason = true;
    else {
      const [, is_optional, name, value] = /^(-?)([a-z0-9_.-]+) = ([0-9 ]+)$/.exec(line) ?? assert.fail(line);
      assert.ok(has_reason, `${name} has no reason`);
      const file = path.join('/proc/sys', name.replaceAll('.', '/'));
      assert.ok(is_optional || fs.existsSync(file), `${name} is not known here`);
      if (fs.existsSync(file)) assert.equal(fs.readFileSync(file, 'utf8').trim().split(/\s+/).length, value.split(' ').length, name);
      names++;
    }
  }
  assert.ok(names >= 8);
});
