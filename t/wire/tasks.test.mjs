// Tasks: stored before they are acknowledged, run once by whoever has room, in order where that was asked for, tried again,
// cancelled, timed out; jobs that providers do in their own time. Over SQLite, and over PostgreSQL in tasks_postgres.test.mjs.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as signalR from '@microsoft/signalr';
import { usageRows } from './lib/record.mjs';
import { keys } from './lib/server.mjs';
import { answer, echo, json, key, said, start } from './lib/tasks.mjs';
import { waitFor, within } from './lib/wait.mjs';

test('a completion: acknowledged, run, waited for at any worker, accounted for once', async (t) => {
  const tasks = await start(t, echo);
  const all = await Promise.all(Array.from({ length: 40 }, async (_, i) => {
    const { status, json: task, headers } = await tasks.chat(`hi ${i}`);
    assert.equal(status, 202);
    assert.match(task.id, /^task_/);
    assert.equal(headers.location, `/v1/tasks/${task.id}`);
    assert.equal(task.status, 'queued');
    return tasks.end(task.id);
  }));
  all.forEach((task, i) => {
    assert.equal(task.status, 'succeeded');
    assert.equal(task.progress, 100);
    assert.equal(task.result.choices[0].message.content, `echo hi ${i}`);
    assert.ok(task.started_at <= task.ended_at && task.created_at <= task.started_at);
  });
  assert.equal(tasks.upstream.requests.length, 40);
  const sent = tasks.upstream.requests.map((r) => r.headers['idempotency-key']);
  assert.deepEqual(sent.sort(), all.map((task) => `${task.id}.0.0`).sort());
  assert.equal(JSON.parse(tasks.upstream.requests[0].text).model, 'theirs');
  const rows = await waitFor(() => { const rows = usageRows(tasks.server); return rows.length === 40 && rows; }, 'usage');
  assert.ok(rows.every((row) => Number(row.output_tokens) === 5 && row.outcome === 'ok' && row.app_id === 'demo'));
  const one = await tasks.server.request('/v1/tasks?limit=30', { key });
  assert.equal(one.json.data.length, 30);
  assert.equal(one.json.has_more, true);
  const rest = await tasks.server.request(`/v1/tasks?limit=30&after=${one.json.data.at(-1).id}`, { key });
  assert.equal(rest.json.data.length, 10);
  assert.equal(new Set([...one.json.data, ...rest.json.data].map((task) => task.id)).size, 40);
  assert.equal((await tasks.server.request('/v1/tasks?status=failed', { key })).json.data.length, 0);
});

test('what is refused, and a request that is repeated', async (t) => {
  const tasks = await start(t, echo);
  const input = { messages: [{ role: 'user', content: 'x' }] };
  for (const [body, code] of [
    [{ type: 'x', input }, 'invalid_value'], [{ type: 'chat.completion' }, 'invalid_value'], [{ input }, 'invalid_value'],
    [{ type: 'chat.completion', input: {} }, 'invalid_value'], [{ type: 'image.generation', input }, 'invalid_value'],
    [{ type: 'chat.completion', input: { ...input, stream: true } }, 'invalid_value'], [{ type: 'chat.completion', input: { ...input, model: 'none' } }, 'not_found'],
    [{ type: 'chat.completion', input, timeout_s: 0 }, 'invalid_value'],
  ]) assert.equal((await tasks.post(body)).json.error.code, code, JSON.stringify(body));
  assert.equal((await tasks.server.request('/v1/tasks', { key: keys.client, body: { type: 'chat.completion', input } })).status, 403);
  for (const id of ['task_00000000000000000000000000', 'x']) {
    assert.equal((await tasks.server.request(`/v1/tasks/${id}`, { key })).status, 404);
    assert.equal((await tasks.cancel(id)).status, 404);
    assert.equal((await tasks.retry(id)).status, 404);
  }
  const headers = { 'idempotency-key': 'once' };
  const [a, b] = [await tasks.chat('x', {}), await tasks.post({ type: 'chat.completion', input }, { headers })];
  const c = await tasks.post({ type: 'chat.completion', input }, { headers });
  assert.equal(b.json.id, c.json.id);
  assert.notEqual(a.json.id, b.json.id);
  await tasks.end(a.json.id);
  await tasks.end(b.json.id);
  assert.equal(tasks.upstream.requests.length, 2);
});

test('a request that is repeated before it was answered is the same task', async (t) => {
  const tasks = await start(t, echo);
  const input = { messages: [{ role: 'user', content: 'x' }] };
  for (let n = 0; n < 5; n++) {
    const headers = { 'idempotency-key': `key ${n}` };
    const all = await Promise.all(Array.from({ length: 16 }, () => tasks.post({ type: 'chat.completion', input }, { headers })));
    for (const { status, text } of all) assert.equal(status, 202, text);
    const ids = new Set(all.map(({ json: { id } }) => id));
    assert.equal(ids.size, 1);
    assert.equal((await tasks.end([...ids][0])).status, 'succeeded');
  }
  assert.equal(tasks.upstream.requests.length, 5);
});

test('tried again with back-off, what may be; begun anew on demand', async (t) => {
  let failures = 2;
  const tasks = await start(t, (request, response) => {
    if (said(request) === 'bad') return json(response, { error: { message: 'no such thing', type: 'invalid_request_error' } }, 400);
    if (said(request) !== 'good' && failures-- > 0) return json(response, { error: { message: 'later' } }, 500);
    return echo(request, response);
  });
  const one = await tasks.end((await tasks.chat('flaky')).json.id);
  assert.equal(one.status, 'succeeded');
  assert.equal(one.attempts, 2);
  assert.deepEqual(tasks.upstream.requests.map((r) => r.headers['idempotency-key']), [0, 1, 2].map((n) => `${one.id}.0.${n}`));
  failures = 1e9;
  const two = await tasks.end((await tasks.chat('never')).json.id);
  assert.equal(two.status, 'failed');
  assert.equal(two.attempts, 4);
  assert.deepEqual([two.error.code, two.error.retryable], ['provider_error', true]);
  const bad = await tasks.end((await tasks.chat('bad')).json.id);
  assert.deepEqual([bad.status, bad.attempts, bad.error.code, bad.error.message, bad.error.retryable], ['failed', 0, 'provider_refused', 'no such thing', false]);
  const good = await tasks.end((await tasks.chat('good')).json.id);
  assert.equal((await tasks.retry(good.id)).json.error.code, 'conflict');
  failures = 0;
  const again = await tasks.retry(two.id);
  assert.deepEqual([again.status, again.json.status, again.json.error], [200, 'queued', null]);
  assert.equal((await tasks.end(two.id)).status, 'succeeded');
  assert.equal(tasks.upstream.requests.at(-1).headers['idempotency-key'], `${two.id}.1.0`);
});

test('cancelled: one that waits, and one that runs, whose provider is stopped at once', async (t) => {
  const held = [];
  const tasks = await start(t, (request, response) => { if (said(request) === 'hold') held.push(request); else echo(request, response); }, { tasks: { concurrency: 4, prefetch: 0 } });
  const ids = [];
  for (let i = 0; i < 5; i++) ids.push((await tasks.chat('hold')).json.id);
  await waitFor(() => held.length === 4, 'four that run');
  const by_id = async (status) => (await tasks.server.request(`/v1/tasks?status=${status}`, { key })).json.data.map((task) => task.id);
  const [queued] = await waitFor(async () => { const left = await by_id('queued'); return left.length === 1 && left; }, 'one that waits');
  const { status, json: gone } = await tasks.cancel(queued);
  assert.deepEqual([status, gone.status, gone.error.code], [200, 'cancelled', 'cancelled']);
  assert.equal((await tasks.cancel(queued)).status, 200);
  const [running] = await by_id('running');
  const waiting = tasks.end(running);
  const at = Date.now();
  assert.equal((await tasks.cancel(running)).json.status, 'cancelled');
  assert.equal((await waiting).status, 'cancelled');
  await waitFor(() => held.some((request) => request.is_aborted), 'the end of its call', 3000);
  assert.ok(Date.now() - at < 9000);
  // Its place is free: another one runs.
  assert.equal((await tasks.end((await tasks.chat('next')).json.id)).status, 'succeeded');
  for (const id of ids) await tasks.cancel(id);
  await waitFor(() => held.every((request) => request.is_aborted), 'no call');
});

test('a task whose time is up, waiting or running', async (t) => {
  const tasks = await start(t, (request, response) => {
    if (!request.url.endsWith('/images/generations') && said(request) !== 'hold') echo(request, response);
  }, { tasks: { concurrency: 4, prefetch: 0 } });
  const all = [];
  for (let i = 0; i < 6; i++) all.push((await tasks.chat('hold', { timeout_s: 2 })).json.id);
  for (const id of all) {
    const task = await tasks.end(id);
    assert.deepEqual([task.status, task.error.code], ['timed_out', 'timeout']);
  }
  await waitFor(() => tasks.upstream.requests.length >= 4 && tasks.upstream.requests.every((r) => r.is_aborted), 'calls that were stopped');
  // Hubs of images and videos know no such end: there it is a failure, with its reason.
  const heard = {};
  for (const name of ['tasks', 'image-generation']) {
    const hub = new signalR.HubConnectionBuilder().withUrl(`${tasks.server.url}/hubs/${name}`, { accessTokenFactory: () => key }).configureLogging(signalR.LogLevel.None).build();
    for (const event of ['TaskTimedOut', 'ImageGenerationFailed']) hub.on(event, (...what) => { heard[event] = what; });
    await within(hub.start(), 'start');
    t.after(() => hub.stop());
    heard[name] = hub;
  }
  const image = (await tasks.post({ type: 'image.generation', input: { prompt: 'hold' }, timeout_s: 2 })).json.id;
  for (const name of ['tasks', 'image-generation']) await within(heard[name].invoke('SubscribeToTask', image), 'subscribe');
  await waitFor(() => heard.TaskTimedOut && heard.ImageGenerationFailed, 'the end over hubs', 30000);
  assert.deepEqual(heard.TaskTimedOut, [image, 2]);
  const { failedAt, ...failed } = heard.ImageGenerationFailed[0];
  assert.deepEqual(failed, { taskId: image, error: 'The task took too long.', isRetryable: true });
  assert.ok(Date.parse(failedAt));
  assert.equal((await tasks.end((await tasks.chat('x')).json.id)).status, 'succeeded');
});

test('one after the other among equal partition keys, side by side otherwise', async (t) => {
  const order = {};
  let live = 0, most = 0;
  const running = new Set();
  const tasks = await start(t, async (request, response) => {
    const [partition, n] = said(request).split(' ');
    assert.ok(!running.has(partition), `two of ${partition}`);
    running.add(partition);
    (order[partition] ??= []).push(Number(n));
    most = Math.max(most, ++live);
    await new Promise((done) => { setTimeout(done, 5); });
    live--;
    running.delete(partition);
    echo(request, response);
  });
  const partitions = Array.from({ length: 10 }, (_, i) => `p${i}`);
  const ids = [];
  await Promise.all(partitions.map(async (partition) => {
    for (let n = 0; n < 8; n++) ids.push((await tasks.chat(`${partition} ${n}`, { partition_key: partition })).json.id);
  }));
  for (const id of ids) assert.equal((await tasks.end(id)).status, 'succeeded');
  for (const partition of partitions) assert.deepEqual(order[partition], [0, 1, 2, 3, 4, 5, 6, 7]);
  assert.ok(most > 1, 'partitions run side by side');
});

test('a key that is revoked while its task waits: the task does not run', async (t) => {
  const held = [];
  const tasks = await start(t, (request, response) => { if (said(request) === 'hold') held.push(() => echo(request, response)); else echo(request, response); });
  const { status, json: made, text } = await tasks.server.request('/admin/v1/keys', { key: keys.admin, body: { kind: 'server', app_id: 'demo' } });
  assert.equal(status, 201, text);
  const partition_key = 'one after the other';
  const first = (await tasks.chat('hold', { partition_key })).json.id;
  await waitFor(() => held.length === 1, 'the first to run');
  const input = { messages: [{ role: 'user', content: 'not any more' }] };
  const waits = await tasks.post({ type: 'chat.completion', input, partition_key }, { key: made.key });
  assert.equal(waits.status, 202, waits.text);
  const still = await tasks.chat('still', { partition_key });
  assert.equal((await tasks.server.request(`/admin/v1/keys/${made.id}`, { key: keys.admin, method: 'DELETE' })).status, 200);
  held[0]();
  assert.equal((await tasks.end(first)).status, 'succeeded');
  const task = await tasks.end(waits.json.id);
  assert.deepEqual([task.status, task.error.code, task.error.retryable], ['failed', 'unauthorized', false]);
  assert.equal((await tasks.end(still.json.id)).status, 'succeeded');
  assert.deepEqual(tasks.upstream.requests.map(said), ['hold', 'still']);
});

test('a result with characters and numbers that few expect comes whole, to who asks and to who is told', async (t) => {
  const text = answer('a\u0000b').replace('{', '{"seed": 18446744073709551615, ');
  const tasks = await start(t, (request, response) => json(response, text));
  const hub = new signalR.HubConnectionBuilder().withUrl(`${tasks.server.url}/hubs/tasks`, { accessTokenFactory: () => key }).configureLogging(signalR.LogLevel.None).build();
  const told = [];
  hub.on('TaskCompleted', (...what) => told.push(what));
  await within(hub.start(), 'start');
  t.after(() => hub.stop());
  await within(hub.invoke('SubscribeToTaskType', 'chat.completion'), 'subscription');
  const task = await tasks.end((await tasks.chat('x')).json.id);
  assert.deepEqual([task.status, task.attempts, tasks.upstream.requests.length], ['succeeded', 0, 1]);
  await waitFor(() => told.length > 0, 'news', 30000);
  assert.equal(told[0][0], task.id);
  for (const { seed, choices } of [task.result, told[0][1]]) {
    assert.equal(choices[0].message.content, 'a\u0000b');
    assert.equal(seed, 2 ** 64);
  }
});

test('a large result: whole in the record, cut in the news of it', async (t) => {
  const text = 'x'.repeat(3 << 20);
  const tasks = await start(t, (request, response) => (said(request) === 'large' ? json(response, answer(text)) : echo(request, response)));
  const stream = await tasks.server.stream('/v1/events?topics=tasks:chat.completion', { key });
  const { json: { id } } = await tasks.chat('large');
  assert.equal((await tasks.end(id)).result.choices[0].message.content, text);
  for await (const { event, data } of stream) {
    if (event !== 'task.completed') continue;
    assert.deepEqual([data.topic, data.data], [`task:${id}`, { task_id: id, type: 'chat.completion', status: 'succeeded', duration_seconds: data.data.duration_seconds, is_cut: true, see: `task:${id}` }]);
    break;
  }
  stream.close();
});

test('what is too large for its news is missing there, and nothing else: a hub tells which task it is', async (t) => {
  const long = 'y'.repeat(30 << 10), picture = 'x'.repeat(1 << 20);
  const tasks = await start(t, (request, response) => {
    if (!request.url.endsWith('/images/generations')) return json(response, answer(long));
    const has_address = JSON.parse(request.text).n === 1;
    return json(response, { created: 1, data: has_address ? [{ url: 'http://images/0', revised_prompt: long }] : [{ b64_json: picture }] });
  });
  const heard = {};
  const hub = async (name, events, topics) => {
    const connection = new signalR.HubConnectionBuilder().withUrl(`${tasks.server.url}/hubs/${name}`, { accessTokenFactory: () => key }).configureLogging(signalR.LogLevel.None).build();
    for (const event of events) connection.on(event, (...what) => { (heard[event] ??= []).push(what); });
    await within(connection.start(), 'start');
    t.after(() => connection.stop());
    for (const [method, topic] of topics) await within(connection.invoke(method, topic), method);
  };
  const of = (event, id) => heard[event]?.find(([what]) => (what?.taskId ?? what) === id);
  await hub('tasks', ['TaskStarted', 'TaskCompleted'], [['SubscribeToTaskType', 'image.generation'], ['SubscribeToTaskType', 'chat.completion']]);
  const chat = (await tasks.chat('long')).json.id;
  const image = (await tasks.post({ type: 'image.generation', input: { prompt: long, n: 2 } })).json.id;
  const small = (await tasks.post({ type: 'image.generation', input: { prompt: 'a fish', n: 1 } })).json.id;
  await waitFor(() => of('TaskCompleted', chat) && of('TaskCompleted', image) && of('TaskCompleted', small), 'the ends', 30000);
  assert.deepEqual(of('TaskStarted', image), [image, 'image.generation', null]);
  assert.deepEqual([of('TaskCompleted', chat), of('TaskCompleted', image)], [[chat, null], [image, null]]);
  await hub('image-generation', ['ImageGenerationCompleted'], [['SubscribeToTask', image], ['SubscribeToTask', small]]);
  await waitFor(() => of('ImageGenerationCompleted', image) && of('ImageGenerationCompleted', small), 'the ends of images', 30000);
  assert.deepEqual([of('ImageGenerationCompleted', image)[0].imageUrls, of('ImageGenerationCompleted', small)[0].imageUrls], [[], ['http://images/0']]);
});
