// The configuration as an operator meets it: what is told, on which stream, with which exit status.
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import test from 'node:test';
import { build, root } from './lib/process.mjs';

/** Runs parleyd to its end in a clean environment: {code, out, err}. */
function parleyd(args, env = {}) {
  return new Promise((resolve) => {
    const sanitizers = Object.fromEntries(Object.entries(process.env).filter(([name]) => /^[A-Z]+SAN_OPTIONS$/.test(name)));
    execFile(path.join(build, 'parleyd'), args, { cwd: root, env: { ...sanitizers, PATH: process.env.PATH, ...env }, timeout: 20000 },
      (error, out, err) => resolve({ code: error ? error.code : 0, out, err }));
  });
}

function file(t, text) {
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'parley-config-'));
  t.after(() => fs.rmSync(dir, { recursive: true }));
  const name = path.join(dir, 'parley.yaml');
  fs.writeFileSync(name, text);
  return name;
}

test('every error of a bad file is told at once, with its place, and the exit status is 78', async (t) => {
  const name = file(t, 'max_conections: 5\nbacklog: 100\nlog:\n  level: loud\n');
  for (const verb of [['--check-config'], ['--print-config'], []]) {
    const { code, out, err } = await parleyd(['--config', name, ...verb]);
    assert.equal(code, 78);
    assert.equal(out, '');
    for (const line of [
      `${name}:1:1: max_conections: unknown key; did you mean max_connections?`,
      `${name}:2:1: backlog: expected at least connection_queue_size, which is 500`,
      `${name}:4:3: log.level: expected debug, info, warn or error, got "loud"`,
    ]) assert.ok(err.split('\n').includes(line), `${line}\nis not in\n${err}`);
  }
});

test('flags win over the environment, the environment over the file', async (t) => {
  const name = file(t, 'max_connections: 11\nconnection_queue_size: 12\nworkers: 3\nlog: {level: warn}\n');
  const { code, out } = await parleyd(['--config', name, '--max-connections', '31', '--print-config'],
    { PARLEY_MAX_CONNECTIONS: '21', PARLEY_CONNECTION_QUEUE_SIZE: '22', WORKERS: '2' });
  assert.equal(code, 0);
  assert.match(out, /^max_connections: 31$/m);
  assert.match(out, /^connection_queue_size: 22$/m);
  assert.match(out, /^workers: 2$/m);
  assert.match(out, /^ {2}level: warn$/m);
});

test('a wrong flag or variable is called by its name', async () => {
  const { code, err } = await parleyd(['--check-config', '--max-connections', 'many'], { PARLEY_HTTP__MAX_BODY: 'big', DATABASE_URL: 'mysql://u:hunter2@h/d' });
  assert.equal(code, 78);
  assert.match(err, /^--max-connections: max_connections: expected a whole number/m);
  assert.match(err, /^PARLEY_HTTP__MAX_BODY: http\.max_body: expected a size/m);
  assert.match(err, /^DATABASE_URL: store\.url: expected an address/m);
  assert.doesNotMatch(err, /hunter2/);
});

test('nothing at all is a good configuration; so are the files that come with it', async () => {
  for (const args of [[], ['--config', 'etc/parley.yaml'], ['--config', 'etc/parley.dev.yaml']]) {
    const { code, err } = await parleyd([...args, '--check-config']);
    assert.equal(code, 0, err);
    assert.doesNotMatch(err, /WARN|ERROR/);
  }
});

test('demo keys are refused where others could reach them', async () => {
  const { code, err } = await parleyd(['--check-config', '--listen', '0.0.0.0:8080']);
  assert.equal(code, 78);
  assert.match(err, /keys\[0\]\.secret: a demo key is refused on 0\.0\.0\.0:8080, which is not loopback/);
  assert.doesNotMatch(err, /pc_demo/);
});

test('secrets are not printed', async (t) => {
  const secret = path.join(path.dirname(file(t, '')), 'key');
  fs.writeFileSync(secret, 'sk-hunter2\n');
  const name = file(t, `store: {url: 'postgres://u:hunter2@h/d'}\nbackplane: {url: 'redis://:hunter2@h'}\n` +
    `providers: [{name: p, base_url: 'https://h/v1', api_key_file: '${secret}'}]\nmodels: [{name: m, targets: [{provider: p, model: x}]}]\n` +
    `apps: [{id: a}]\nkeys: [{kind: client, app: a, secret: '\${CLIENT}'}]\n`);
  const { code, out, err } = await parleyd(['--config', name, '--print-config'], { CLIENT: 'pc_hunter2hunter2hunter2hunter2' });
  assert.equal(code, 0, err);
  assert.doesNotMatch(out + err, /hunter2/);
  assert.match(out, /api_key: "\*\*\*"/);
  assert.match(out, /url: "postgres:\/\/u:\*\*\*@h\/d"/);
});
