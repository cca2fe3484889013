// Tasks outlive their workers: those of one that was killed go on elsewhere, each ends once; one that kills its workers fails.
import assert from 'node:assert/strict';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { sharedPostgres } from './lib/postgres.mjs';
import { ask, change } from './lib/record.mjs';
import { startServer } from './lib/server.mjs';
import { subscribe } from './lib/subscriber.mjs';
import { configOf, echo, said, start, tasksOf } from './lib/tasks.mjs';
import { waitFor } from './lib/wait.mjs';

/** Of the worker that the record names: host.row.number, in hex. */
function slotOf(server, owner) {
  const number = parseInt(owner.split('.')[2], 16);
  const line = server.lines.map((text) => /worker is up slot=(\d+) pid=\d+ incarnation=(\d+) /.exec(text)).find((match) => match && Number(match[2]) === number);
  assert.ok(line, `no worker ${owner}`);
  return Number(line[1]);
}

test('workers are killed in the middle of 300 tasks: none is lost, none ends twice', async (t) => {
  const tasks = await start(t, (request, response) => { setTimeout(() => echo(request, response), 40); }, { tasks: { max_losses: 100 } });
  tasks.server.expectLog(/worker died|backplane|store/);
  const ids = [];
  let killed = 0;
  const post = async (n) => {
    for (;;) {
      const { status, json } = await tasks.chat(`n ${n}`, {}).catch(() => ({}));
      if (status === 202) return ids.push(json.id);
      await new Promise(setImmediate);
    }
  };
  for (let at = 0; at < 300; at += 30) {
    await Promise.all(Array.from({ length: 30 }, (_, i) => post(at + i)));
    if (at % 60 === 0) tasks.server.killWorker(killed++ % 4);
  }
  assert.equal(new Set(ids).size, 300);
  for (const id of ids) {
    const task = await waitFor(() => tasks.end(id).catch(() => null), 'the end of a task', 60000);
    assert.equal(task.status, 'succeeded', JSON.stringify(task));
  }
  // Who was begun twice said the same key to the provider.
  const keys = new Map();
  for (const request of tasks.upstream.requests) keys.set(said(request), (keys.get(said(request)) ?? new Set()).add(request.headers['idempotency-key']));
  assert.equal(keys.size, 300);
  for (const [text, set] of keys) assert.equal(set.size, 1, text);
});

test('a task that three workers died over has failed', async (t) => {
  const asked = [];
  const tasks = await start(t, (request, response) => {
    if (said(request) === 'deadly') asked.push(request);
    else echo(request, response);
  });
  tasks.server.expectLog(/worker died|task failed task=\S+ code=worker_lost|backplane|store/);
  const { json: task } = await tasks.chat('deadly');
  for (let n = 1; n <= 3; n++) {
    await waitFor(() => asked.length === n, `attempt ${n}`, 20000);
    const slot = slotOf(tasks.server, ask(tasks.server, `SELECT owner FROM tasks WHERE id = '${task.id}'`)[0].owner);
    const pid = tasks.server.killWorker(slot);
    await tasks.server.replaced(slot, pid);
  }
  const end = await tasks.end(task.id);
  assert.deepEqual([end.status, end.error.code], ['failed', 'worker_lost']);
  assert.equal((await tasks.end((await tasks.chat('x')).json.id)).status, 'succeeded');
});

test('a worker died after it had written an end and before it told it: another tells it, once', async (t) => {
  const asked = [];
  const tasks = await start(t, (request) => { asked.push(said(request)); });
  tasks.server.expectLog(/worker died|backplane|store/);
  const ids = [];
  for (let i = 0; i < 3; i++) ids.push((await tasks.chat(`n ${i}`)).json.id);
  const listeners = [`task:${ids[0]}`, `task:${ids[1]}`, 'tasks:chat.completion'].map((topics) => subscribe(() => [tasks.server], topics));
  for (const one of listeners) await one.ready();
  await waitFor(() => asked.length === 3, 'all to run');
  // Of all three; those whose worker lives go on, and find that somebody else has ended them.
  const owners = ask(tasks.server, 'SELECT id, owner FROM tasks');
  const { owner } = owners.find(({ id }) => id === ids[0]);
  const dead = owners.filter((row) => row.owner === owner).map(({ id }) => id);
  change(tasks.server, `UPDATE tasks SET state = 'succeeded', progress = 100, result = '{"choices":[]}', ended_at = updated_at WHERE owner = '${owner}'`);
  const slot = slotOf(tasks.server, owner);
  const pid = tasks.server.killWorker(slot);
  await tasks.server.replaced(slot, pid);
  await waitFor(() => dead.every((id) => listeners[2].heard.has(id)) && listeners[0].heard.has(ids[0]), 'what the dead one had not told', 30000);
  await tasks.server.line(/end of a task told for a dead worker/);
  for (const id of ids.filter((one) => !dead.includes(one))) await tasks.cancel(id);
  await waitFor(() => listeners[2].heard.size === 3 && listeners[1].heard.size === 1, 'the others', 30000);
  for (const id of ids) assert.deepEqual(listeners[2].heard.get(id), [dead.includes(id) ? 'task.completed' : 'task.cancelled']);
  assert.deepEqual(listeners[0].heard.get(ids[0]), ['task.completed']);
  for (const one of listeners) await one.close();
});

test('what a dead worker had told is not told again, however much was said since', async (t) => {
  let held = 0;
  const tasks = await start(t, (request, response) => {
    if (said(request) === 'hold') held++;
    else echo(request, response);
  });
  tasks.server.expectLog(/worker died|backplane|store/);
  const all = subscribe(() => [tasks.server], 'tasks:chat.completion');
  await all.ready();
  for (let i = 0; i < 8; i++) await tasks.chat('hold');
  await waitFor(() => held === 8, 'all to run');
  // Of the worker that has most of them one has ended and was told, and many after it, of 32 pieces each in the log.
  const by_owner = Map.groupBy(ask(tasks.server, 'SELECT id, owner FROM tasks'), ({ owner }) => owner);
  const [owner, [{ id: untold }]] = [...by_owner].sort((a, b) => b[1].length - a[1].length)[0];
  const post = async (text) => {
    const { id } = (await tasks.chat(text)).json;
    await tasks.end(id);
    return id;
  };
  let told;
  while (ask(tasks.server, `SELECT owner FROM tasks WHERE id = '${told}'`)[0]?.owner !== owner) told = await post('told');
  for (let i = 0; i < 10; i++) await Promise.all(Array.from({ length: 10 }, () => post('x'.repeat(16000))));
  change(tasks.server, `UPDATE tasks SET state = 'succeeded', progress = 100, result = '{"choices":[]}', ended_at = started_at WHERE id = '${untold}'`);
  const slot = slotOf(tasks.server, owner);
  const pid = tasks.server.killWorker(slot);
  await tasks.server.replaced(slot, pid);
  // It ended before the others, and is looked at last.
  await waitFor(() => all.heard.has(untold), 'what the dead one had not told', 30000);
  for (const [id, ends] of all.heard) assert.deepEqual(ends, ['task.completed'], id === told ? 'told long ago' : id);
  await all.close();
});

test('who subscribes when no log of events knows the end any more hears it from the record', async (t) => {
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'parley-record-'));
  process.on('exit', () => fs.rmSync(dir, { recursive: true, force: true }));
  const store = { url: process.env.PARLEY_TEST_STORE === 'postgres' ? await (await sharedPostgres()).newDatabase() : `sqlite:${dir}/parley.db` };
  const tasks = await start(t, (request, response) => { if (said(request) !== 'hold') echo(request, response); }, { store });
  const ids = [];
  for (let i = 0; i < 5; i++) ids.push((await tasks.chat(`n ${i}`)).json.id);
  for (const id of ids) await tasks.end(id);
  const held = (await tasks.chat('hold')).json.id;
  // Another life of the host, with the same record.
  await tasks.server.stop();
  const other = tasksOf(await startServer(t, { mock: false, config: configOf(tasks.upstream, { store }) }));
  const all = subscribe(() => [other.server], [...ids, held].map((id) => `task:${id}`).join(','));
  await waitFor(() => ids.every((id) => all.heard.has(id)), 'all ends', 30000);
  await other.cancel(held);
  await waitFor(() => all.heard.has(held), 'one that ends now');
  for (const id of ids) assert.deepEqual(all.heard.get(id), ['task.completed']);
  assert.deepEqual(all.heard.get(held), ['task.cancelled']);
  assert.equal(all.told.get(ids[0]).result.choices[0].message.content, 'echo n 0');
  await all.close();
  // Who comes back with the id of what it has heard is not told again.
  const again = subscribe(() => [other.server], ids.map((id) => `task:${id}`).join(','), { last: all.last });
  await again.ready();
  assert.equal((await other.end((await other.chat('x')).json.id)).status, 'succeeded');
  assert.equal(again.heard.size, 0);
  await again.close();
});
