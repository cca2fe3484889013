// Tool servers that are programs, and what they may do wrong; a reload that changes which there are; 4 workers.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { call, gives, hostile, is_alive, ready, sdk, start } from './lib/programs.mjs';
import { waitFor } from './lib/wait.mjs';

test('hostile ones are borne, and the good one beside them is not disturbed', async (t) => {
  // Those that answer have time to, also on a busy machine; those that never will are given up soon.
  const answering = ['flood', 'garbage', 'huge', 'picky'], hanging = ['deaf', 'shut'], never = ['mute', 'crash'];
  const kinds = [...answering, ...hanging];
  const server = await start(t, [sdk('good', 'modern'),
    ...answering.map((kind) => hostile(kind, { probe_timeout: '30s', timeout: kind === 'huge' ? '5s' : '30s' })),
    ...hanging.map((kind) => hostile(kind, { probe_timeout: '2s', timeout: '1s' })),
    ...never.map((kind) => hostile(kind, { probe_timeout: '500ms', connect_timeout: '500ms' })),
    { name: 'nothere', command: '/no/such/program', connect_timeout: '500ms' }]);
  server.expectLog(/mcp server (away|ended) server=(mute|crash|nothere|picky) /);
  server.expectLog(/mcp line too long server=huge/);
  server.expectLog(/mcp server (hangs|away|restarted too often) server=(deaf|shut|mute|crash|nothere)/);
  for (const name of ['good', ...kinds]) await ready(server, name);
  await server.line(/mcp server says server=nothere text="cannot be started: No such file/);
  for (const name of ['flood', 'garbage', 'huge', 'picky']) assert.equal(await call(server, `${name}__echo`), 'echo', name);
  assert.match(await call(server, 'huge__large'), /^x{1000,}\n\[cut/);
  assert.match(await call(server, 'huge__big'), /did not answer in time/);
  assert.match(await call(server, 'deaf__echo'), /did not answer in time/);
  assert.match(await call(server, 'shut__echo'), /did not answer in time|in progress|went/);
  assert.equal(await call(server, 'huge__echo'), 'echo');
  for (let i = 0; i < 8; i++) assert.equal(await call(server, 'good__add', { a: i, b: 1 }), `sum ${i + 1}`);
  const { status } = await server.request('/health/live');
  assert.equal(status, 200);
});

test('one that hangs is given up call by call, and killed at the end', async (t) => {
  const server = await start(t, [sdk('tools', 'legacy', { timeout: '2s' }), hostile('stubborn')]);
  await ready(server, 'tools');
  await ready(server, 'stubborn');
  const { pid } = JSON.parse(await call(server, 'tools__where'));
  assert.match(await call(server, 'tools__hang'), /did not answer in time/);
  assert.match(await call(server, 'tools__add', { a: 1, b: 1 }), /did not answer in time/);
  assert.equal(await call(server, 'stubborn__echo'), 'echo');
  await server.stop();
  assert.ok(!is_alive(pid));
  assert.match(server.output(), /mcp server killed server=stubborn/);
});

test('one that takes too much memory ends, and is started again', async (t) => {
  const server = await start(t, [hostile('hungry', { max_memory: '600MiB' })]);
  server.expectLog(/mcp server (ended|away) server=hungry/);
  await ready(server, 'hungry');
  assert.match(await call(server, 'hungry__echo'), /ended|gone/);
  await server.line(/mcp server ended server=hungry/); // its pipes end before it does
  await waitFor(() => server.lines.filter((line) => line.includes('mcp server started server=hungry')).length === 2, 'it to be started again');
});

test('a reload ends what is not named any more, keeps what is, starts what is new', async (t) => {
  const server = await start(t, [sdk('one', 'legacy'), sdk('two', 'legacy')]);
  await ready(server, 'one');
  await ready(server, 'two');
  const pid = async (name) => JSON.parse(await call(server, `${name}__where`)).pid;
  const [one, two] = [await pid('one'), await pid('two')];
  server.changeConfig({ mcp: { servers: [sdk('one', 'legacy'), sdk('three', 'legacy')] } });
  process.kill(server.pid, 'SIGHUP');
  await server.line(/reload done/);
  await ready(server, 'three');
  await waitFor(() => !is_alive(two), 'two to end', 20000);
  await gives(server, 'three__add', { a: 1, b: 1 }, 'sum 2');
  assert.equal(await pid('one'), one);
  assert.ok(is_alive(one));
});
