// Tasks outlive their workers: those of one that was killed go on elsewhere, each ends once; one that kills its workers fails.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ask } from './lib/record.mjs';
import { echo, said, start } from './lib/tasks.mjs';
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
