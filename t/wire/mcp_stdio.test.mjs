// Tool servers that are programs: one for the host, whichever worker a turn is on; its life, its end; 4 workers.
import assert from 'node:assert/strict';
import fs from 'node:fs';
import http from 'node:http';
import os from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { parseMetrics, sumOf } from './lib/metrics.mjs';
import { call, everything, gives, is_alive, ready, sdk, start, strict } from './lib/programs.mjs';
import { keys } from './lib/server.mjs';
import { waitFor } from './lib/wait.mjs';

for (const [era, revision] of [['legacy', '2025-11-25'], ['modern', '2026-07-28']]) {
  test(`${era}: one process for all workers, with a minimal environment`, async (t) => {
    const server = await start(t, [sdk('tools', era, { env: { GREETING: 'hello' } })]);
    await ready(server, 'tools');
    assert.match(server.output(), new RegExp(`mcp server ready server=tools revision=${revision} tools=6`));
    await server.line(/mcp server says server=tools text="begins as/);
    const seen = [];
    for (let i = 0; i < 8; i++) seen.push(JSON.parse(await call(server, 'tools__where')));
    assert.equal(new Set(seen.map(({ pid }) => pid)).size, 1);
    assert.equal(seen[0].env.GREETING, 'hello');
    const known = ['GREETING', 'HOME', 'LANG', 'LOGNAME', 'PATH', 'SHELL', 'TERM', 'USER'];
    assert.deepEqual(Object.keys(seen[0].env).filter((name) => !known.includes(name)), []);
    assert.ok(is_alive(seen[0].pid));
    await server.stop();
    assert.ok(!is_alive(seen[0].pid));
  });

  test(`${era}: it outlives the worker that speaks to it, and goes on with another`, async (t) => {
    const server = await start(t, [sdk('tools', era)]);
    await ready(server, 'tools');
    const { pid } = JSON.parse(await call(server, 'tools__where'));
    for (let slot = 0; slot < 4; slot++) {
      const old = server.killWorker(slot);
      await server.replaced(slot, old);
    }
    await gives(server, 'tools__add', { a: 1, b: 2 }, 'sum 3');
    assert.equal(JSON.parse(await call(server, 'tools__where')).pid, pid);
    assert.equal(server.lines.filter((line) => line.includes('mcp server started server=tools')).length, 1);
  });

  test(`${era}: it dies in a call, is started again, and its tools change while it runs`, async (t) => {
    const server = await start(t, [sdk('tools', era)]);
    server.expectLog(/mcp server ended server=tools .* exit=7/);
    await ready(server, 'tools');
    const { pid } = JSON.parse(await call(server, 'tools__where'));
    assert.match(await call(server, 'tools__die'), /ended|gone/);
    await gives(server, 'tools__add', { a: 2, b: 2 }, 'sum 4');
    assert.notEqual(JSON.parse(await call(server, 'tools__where')).pid, pid);
    assert.equal(await call(server, 'tools__grow', { name: 'later' }), 'grown');
    await gives(server, 'tools__later', {}, 'later here');
  });
}

test('who speaks to it goes, again and again, and no call is lost', async (t) => {
  const server = await start(t, [sdk('tools', 'legacy')], { mcp: { start_wait: '15s' } });
  await ready(server, 'tools');
  const { pid } = JSON.parse(await call(server, 'tools__where'));
  // Whoever has been given its pipes says so in a line of its own.
  const given_to = () => server.lines.filter((line) => /mcp server ready server=tools .* prompts=/.test(line)).length;
  const before = given_to();
  let is_over = false;
  const asked = Array.from({ length: 6 }, async () => {
    const given = [];
    while (!is_over) given.push(await call(server, 'tools__add', { a: 1, b: 2 }));
    return given;
  });
  for (let i = 0; i < 8; i++) {
    const from = server.lines.length;
    server.kill('SIGHUP');
    await server.line(/reload done/, 30000, from);
  }
  is_over = true;
  const given = (await Promise.all(asked)).flat();
  assert.ok(given.length > 8, `${given.length} calls`);
  assert.deepEqual(given.filter((text) => text !== 'sum 3'), []);
  assert.equal(JSON.parse(await call(server, 'tools__where')).pid, pid);
  // Once in a reload, not once for each worker: they go to one that has just come, not to the next that goes.
  const moves = given_to() - before;
  assert.ok(moves >= 1 && moves <= 12, `${moves} moves`);
});

test('who has its pipes goes while it is being greeted: the next one greets it', async (t) => {
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'parley-strict-')), [hold, asked] = ['hold', 'asked'].map((name) => path.join(dir, name));
  t.after(() => fs.rmSync(dir, { recursive: true, force: true }));
  const server = await start(t, [strict('tools', dir, { probe_timeout: '2m', connect_timeout: '2m' })], { mcp: { start_wait: '200ms' } });
  server.expectLog(/mcp server ended server=tools .* exit=7/);
  await ready(server, 'tools');
  await gives(server, 'tools__add', { a: 1, b: 2 }, 'sum 3');
  fs.writeFileSync(hold, '');
  fs.rmSync(asked);
  assert.match(await call(server, 'tools__die'), /ended|gone/);
  await waitFor(() => fs.existsSync(asked), 'it to be greeted again', 30000);
  server.kill('SIGHUP');
  await server.line(/reload done/, 60000);
  fs.rmSync(hold);
  await gives(server, 'tools__add', { a: 2, b: 2 }, 'sum 4');
});

test('a new binary starts its own, and the old one ends with the old server', async (t) => {
  const server = await start(t, [sdk('tools', 'legacy')]);
  await ready(server, 'tools');
  const { pid } = JSON.parse(await call(server, 'tools__where'));
  await server.upgrade();
  await waitFor(() => !is_alive(pid), 'the old program to end');
  await gives(server, 'tools__add', { a: 1, b: 2 }, 'sum 3');
  // One that fails is forgotten: workers that start later find this master's programs.
  const good = server.config.run_dir;
  server.changeConfig({ run_dir: path.join(server.dir, 'elsewhere') });
  server.expectLog(/run_dir has changed|upgrade failed/);
  server.kill('SIGUSR2');
  await server.line(/upgrade failed/);
  server.changeConfig({ run_dir: good });
  await server.replaced(0, server.killWorker(0));
  await gives(server, 'tools__add', { a: 1, b: 3 }, 'sum 4');
});

for (const [what, change, is_same] of [
  ['a reload', async (server) => { server.kill('SIGHUP'); await server.line(/reload done/); }, true],
  ['an upgrade', (server) => server.upgrade(), false],
]) {
  test(`calls in flight at ${what} are answered, by the program that had them`, async (t) => {
    const server = await start(t, [sdk('tools', 'legacy')], { drain: { timeout: '20s' } });
    await ready(server, 'tools');
    const { pid } = JSON.parse(await call(server, 'tools__where'));
    const file = path.join(server.dir, 'release');
    const calls = Array.from({ length: 12 }, () => call(server, 'tools__slow', { file }));
    let answered = 0;
    for (const one of calls) one.then(() => answered++, () => answered++);
    await waitFor(async () => sumOf(parseMetrics((await server.request('/metrics')).text), 'parley_turns_live') === 12, 'calls under way');
    await change(server);
    // The new workers reach the program, or one of theirs, at once.
    await gives(server, 'tools__add', { a: 1, b: 2 }, 'sum 3');
    assert.equal(answered, 0);
    fs.writeFileSync(file, '');
    for (const text of await Promise.all(calls)) assert.equal(text, 'at last');
    if (!is_same) await waitFor(() => !is_alive(pid), 'the old program to end', 30000);
    await gives(server, 'tools__add', { a: 1, b: 2 }, 'sum 3');
    assert.equal(JSON.parse(await call(server, 'tools__where')).pid === pid, is_same);
  });
}

test('calls that their clients give up leave nothing behind in any worker', async (t) => {
  const server = await start(t, [sdk('tools', 'legacy')]);
  await ready(server, 'tools');
  const gauge = async (name) => sumOf(parseMetrics((await server.request('/metrics')).text), name);
  const body = JSON.stringify({ jsonrpc: '2.0', id: 1, method: 'tools/call', params: { name: 'tools__slow', arguments: { file: path.join(server.dir, 'never') }, _meta: { 'io.modelcontextprotocol/protocolVersion': '2026-07-28', 'io.modelcontextprotocol/clientCapabilities': {} } } });
  const clients = Array.from({ length: 24 }, () => {
    const req = http.request(`${server.url}/mcp`, { method: 'POST', agent: false, headers: { authorization: `Bearer ${keys.server}`, 'content-type': 'application/json', 'mcp-protocol-version': '2026-07-28', 'mcp-method': 'tools/call', 'mcp-name': 'tools__slow' } });
    req.on('error', () => {});
    req.end(body);
    return req;
  });
  await waitFor(async () => await gauge('parley_mcp_calls') === clients.length, 'the calls to arrive', 30000);
  assert.ok(await gauge('parley_backplane_calls') > 0);
  for (const req of clients) req.destroy();
  await waitFor(async () => await gauge('parley_mcp_calls') === 0, 'the calls to be given up', 30000);
  await waitFor(async () => await gauge('parley_backplane_calls') === 0, 'nothing to wait for them', 30000);
  assert.equal(await call(server, 'tools__add', { a: 1, b: 2 }), 'sum 3');
});

test('many calls at once in one process, from all workers', async (t) => {
  const server = await start(t, [sdk('tools', 'legacy')]);
  await ready(server, 'tools');
  const file = path.join(server.dir, 'go');
  const slow = Array.from({ length: 12 }, () => call(server, 'tools__slow', { file }));
  const quick = await Promise.all(Array.from({ length: 12 }, (_, i) => call(server, 'tools__add', { a: i, b: 0 })));
  assert.deepEqual(quick, quick.map((_, i) => `sum ${i}`));
  fs.writeFileSync(file, '');
  assert.deepEqual(new Set(await Promise.all(slow)), new Set(['at last']));
});

test('per: worker has a process for each', async (t) => {
  const server = await start(t, [sdk('tools', 'legacy', { per: 'worker' })]);
  await ready(server, 'tools');
  const pids = new Set();
  await waitFor(async () => { pids.add(JSON.parse(await call(server, 'tools__where')).pid); return pids.size === 4; }, 'four processes');
});

test('a real server of the project: everything', async (t) => {
  const server = await start(t, [everything('all')]);
  await ready(server, 'all');
  assert.match(await call(server, 'all__echo', { message: 'hi there' }), /hi there/);
  assert.match(JSON.stringify(await call(server, 'all__get-tiny-image')), /image\/png/);
});
