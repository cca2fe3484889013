// Hubs as existing clients speak to them: @microsoft/signalr over its three transports, four workers, a fresh connection for
// each request; and the protocol by hand where the client cannot be made to misbehave.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import * as signalR from '@microsoft/signalr';
import WebSocket from 'ws';
import { ask } from './lib/record.mjs';
import { keys, startServer } from './lib/server.mjs';
import { waitFor, within } from './lib/wait.mjs';

const transports = { WebSockets: 1, ServerSentEvents: 2, LongPolling: 4 };
const END = '\x1e';
const keys_other = { server: 'ps_other_server_key_0123456789abcdef' };
let server;

before(async () => { server = await startServer(null, { config: {
    events: { connect_timeout: '3s', poll_timeout: '5s' },
    apps: [{ id: 'demo', name: 'Demo', org: 'demo' }, { id: 'other', name: 'Other', org: 'demo' }],
    keys: [...Object.entries(keys).map(([kind, secret]) => ({ kind, secret, ...(kind === 'admin' ? {} : { app: 'demo' }), ...(kind === 'client' ? { rate: { limit: 0, window: '60s' } } : {}) })),
      { kind: 'server', app: 'other', secret: keys_other.server }],
  } }); });
after(() => server?.stop());

const announce = async (message) => {
  for (;;) {
    try {
      const { status, text } = await server.request('/admin/v1/announcements', { key: keys.admin, body: { message } });
      assert.equal(status, 202, text);
      return;
    } catch (e) {
      if (e.code === 'ERR_ASSERTION') throw e; // its worker was killed: it is said again
    }
  }
};

function connect(hub, transport, { key = keys.server, retry } = {}) {
  const builder = new signalR.HubConnectionBuilder()
    .withUrl(`${server.url}/hubs/${hub}`, { transport: transports[transport], accessTokenFactory: () => key, logger: signalR.LogLevel.None })
    .configureLogging(signalR.LogLevel.None);
  if (retry) builder.withAutomaticReconnect({ nextRetryDelayInMilliseconds: () => 50 });
  return builder.build();
}

for (const transport of Object.keys(transports)) {
  test(`${transport}: events, invocations, errors, the end`, { timeout: 60000 }, async () => {
    const connection = connect('notifications', transport);
    const heard = [];
    connection.on('SystemAnnouncement', ({ message }) => heard.push(message));
    await within(connection.start(), 'start');
    // The first that comes shows that it hears; what was said before it did was not for it.
    await waitFor(async () => { await announce('first'); return heard.length > 0; }, 'the first');
    for (let i = 0; i < 10; i++) await announce(`${i}`);
    await waitFor(() => heard.includes('9'), 'the last');
    assert.deepEqual(heard.filter((message) => message !== 'first'), Array.from({ length: 10 }, (_, i) => `${i}`));
    await assert.rejects(connection.invoke('NoSuchMethod'), /Method does not exist/);
    await within(connection.stop(), 'stop');

    const tasks = connect('tasks', transport);
    await within(tasks.start(), 'start');
    await assert.rejects(tasks.invoke('SubscribeToTask', 'task_00000000000000000000000000'), /Unauthorized access to task/);
    await assert.rejects(tasks.invoke('SubscribeToTask', 5), /arguments/);
    await tasks.invoke('SubscribeToTaskType', 'image.generation');
    await tasks.invoke('SubscribeToTaskType', 'image.generation');
    await tasks.invoke('UnsubscribeFromTaskType', 'image.generation');
    await tasks.stop();

    const navigation = connect('navigation-state', transport, { key: keys.client });
    await within(navigation.start(), 'start');
    await navigation.invoke('SubscribeToUpdates');
    await navigation.invoke('SubscribeToModel', 'default');
    await navigation.invoke('UnsubscribeFromUpdates');
    await navigation.stop();
  });

  test(`${transport}: the workers are killed one after the other, and the client comes back`, { timeout: 120000 }, async () => {
    const connection = connect('notifications', transport, { retry: true });
    const heard = new Set();
    let reconnected = 0;
    connection.on('SystemAnnouncement', ({ message }) => heard.add(message));
    connection.onreconnected(() => reconnected++);
    await within(connection.start(), 'start');
    for (let slot = 0; slot < 4; slot++) {
      const pid = server.killWorker(slot);
      await server.replaced(slot, pid);
      await waitFor(async () => {
        if (connection.state !== 'Connected') return false;
        await announce(`after ${slot}`);
        return heard.has(`after ${slot}`);
      }, `news after ${slot}`, 30000);
    }
    assert.ok(reconnected >= 1);
    await connection.stop();
  });
}

const newTask = async (text = 'hello') => {
  const { status, json, text: body } = await server.request('/v1/tasks', { key: keys.server,
    body: { type: 'chat.completion', input: { model: 'default', messages: [{ role: 'user', content: text }] } } });
  assert.equal(status, 202, body);
  return json.id;
};
const slow = 'go [[mock tokens=40 interval=50]]';

for (const transport of Object.keys(transports)) {
  test(`${transport}: a task is followed to its end, also by who comes late, and as a stream`, { timeout: 60000 }, async () => {
    const connection = connect('tasks', transport);
    const ended = new Map();
    connection.on('TaskCompleted', (id, result) => ended.set(id, [...(ended.get(id) ?? []), result]));
    await within(connection.start(), 'start');
    const id = await newTask(slow);
    await connection.invoke('SubscribeToTask', id);
    await connection.invoke('SubscribeToTask', id);
    const items = [];
    const streamed = new Promise((resolve, reject) => connection.stream('StreamTask', id).subscribe({ next: (item) => items.push(item), complete: resolve, error: reject }));
    await waitFor(() => ended.has(id), 'TaskCompleted', 30000);
    await within(streamed, 'end of the stream');
    assert.equal(items.at(-1).event, 'task.completed');
    const late = connect('tasks', transport);
    let heard = 0;
    late.on('TaskCompleted', (which) => { if (which === id) heard++; });
    await within(late.start(), 'start');
    await late.invoke('SubscribeToTask', id);
    await waitFor(() => heard === 1, 'how it ended');
    await late.stop();
    await connection.stop();
    assert.equal(ended.get(id).length, 1, 'once for each subscriber');
  });
}

test('an end whose news were lost is told from the record, once', { timeout: 90000 }, async () => {
  const connection = connect('tasks', 'WebSockets');
  const ended = [];
  connection.on('TaskFailed', (...what) => ended.push(what));
  await within(connection.start(), 'start');
  const id = await newTask('go [[mock tokens=4000 interval=50]]');
  await connection.invoke('SubscribeToTask', id);
  // As by a worker that died between the record and the news. Who writes beside the server may hold its writer up.
  server.expectLog(/store write waits /);
  ask(server, `UPDATE tasks SET state = 'failed', error_message = 'by hand', is_retryable = 0, ended_at = ${Date.now()}, owner = 'gone', due_at = NULL, lease_ends_at = NULL WHERE id = '${id}'`);
  await waitFor(() => ended.length > 0, 'the end', 60000);
  assert.deepEqual(ended, [[id, 'by hand', false]]);
  const late = connect('tasks', 'WebSockets');
  late.on('TaskFailed', (...what) => ended.push(what));
  await within(late.start(), 'start');
  await late.invoke('SubscribeToTask', id);
  await waitFor(() => ended.length > 1, 'for who comes late');
  await late.stop();
  await connection.stop();
  assert.equal(ended.length, 2);
});

test('that one subscriber was told an end does not keep it from another', { timeout: 120000 }, async () => {
  const ws = new WebSocket(`${server.url.replace('http', 'ws')}/ws/events?access_token=${keys.server}`);
  const frames = [];
  ws.on('message', (data) => frames.push(JSON.parse(data)));
  await within(new Promise((resolve, reject) => { ws.on('open', resolve); ws.on('error', reject); }), 'open socket');
  const heard = (status, stream) => frames.filter((frame) => frame.status === status && frame.stream === stream);
  const id = await newTask('go [[mock tokens=4000 interval=50]]');
  const set = (what) => ask(server, `UPDATE tasks SET owner = 'gone', due_at = NULL, lease_ends_at = NULL, ${what} WHERE id = '${id}'`);
  const subscribe = async (request_id) => {
    ws.send(JSON.stringify({ action: 'subscribe', request_id, payload: { topics: [`task:${id}`] } }));
    await waitFor(() => heard('subscribed', request_id).length > 0, 'subscribed');
  };
  await subscribe('a');
  const has_failed = `state = 'failed', error_message = 'by hand', is_retryable = 0, ended_at = ${Date.now() - 60000}`;
  set(has_failed);
  await waitFor(() => heard('event', 'a').some(({ event }) => event === 'task.failed'), 'the end', 60000);
  // As for one whose question came just before the end: the record says that it runs, and the news of it are gone.
  set("state = 'running', ended_at = NULL");
  await subscribe('b');
  set(has_failed);
  await waitFor(() => heard('event', 'b').some(({ event }) => event === 'task.failed'), 'the end, for the other', 60000);
  assert.equal(heard('event', 'a').filter(({ event }) => event === 'task.failed').length, 1);
  ws.close();
});

test('ten streams of one connection', async () => {
  const { say, until, records, ws } = await socket();
  const id = await newTask('go [[mock tokens=60 interval=20]]');
  say(handshake, ...Array.from({ length: 11 }, (_, i) => ({ type: 4, target: 'StreamTask', invocationId: `s${i}`, arguments: [id] })));
  const refused = await until(({ type, error }) => type === 3 && error);
  assert.match(refused.error, /max_streams/);
  say({ type: 5, invocationId: 's0' });
  await until(({ type, invocationId }) => type === 3 && invocationId === 's0');
  await waitFor(() => records.filter(({ type, error }) => type === 3 && !error).length === 10, 'the ends of ten', 30000);
  ws.close();
});

test('what is taken back at once is answered all the same, and leaves nothing behind', async () => {
  const { say, until, records, ws } = await socket();
  const call = (invocationId, target) => ({ type: 1, target, invocationId, arguments: ['image.generation'] });
  say(handshake, call('sub', 'SubscribeToTaskType'), call('unsub', 'UnsubscribeFromTaskType'));
  for (const which of ['unsub', 'sub']) await until(({ type, invocationId }) => type === 3 && invocationId === which);
  const id = await newTask('go [[mock tokens=60 interval=20]]');
  const stream = (invocationId) => ({ type: 4, target: 'StreamTask', invocationId, arguments: [id] });
  // Each before it is known whether there is such a task: more than a connection may have.
  say(...Array.from({ length: 12 }, (_, i) => [stream(`c${i}`), { type: 5, invocationId: `c${i}` }]).flat());
  const cancelled = () => records.filter(({ type, invocationId }) => type === 3 && invocationId[0] === 'c');
  await waitFor(() => cancelled().length === 12, 'ends of what was cancelled', 20000);
  assert.deepEqual(cancelled().filter(({ error }) => error), []);
  say(stream('kept'));
  await until(({ type, invocationId }) => type === 3 && invocationId === 'kept');
  assert.ok(records.some(({ type, item }) => type === 2 && item.event === 'task.completed'));
  assert.deepEqual(records.filter(({ type, invocationId }) => type === 2 && invocationId !== 'kept'), []);
  ws.close();
});

test("somebody else's task does not exist", async () => {
  const id = await newTask();
  const connection = connect('tasks', 'WebSockets', { key: keys_other.server });
  await connection.start();
  for (const which of [id, 'task_00000000000000000000000000', 'nonsense']) {
    await assert.rejects(connection.invoke('SubscribeToTask', which), /Unauthorized access to task/);
  }
  await connection.stop();
  for (const which of [id, 'task_00000000000000000000000000']) {
    assert.equal((await server.request(`/v1/events?topics=task:${which}`, { key: keys_other.server })).status, 404);
  }
  assert.equal((await server.request(`/v1/events?topics=task:${id}`, { method: 'HEAD', key: keys.admin })).status, 404);
});

test('who may use which hub', async () => {
  const negotiate = async (hub, key) => (await server.request(`/hubs/${hub}/negotiate?negotiateVersion=1`, { method: 'POST', key })).status;
  assert.equal(await negotiate('tasks', undefined), 401);
  assert.equal(await negotiate('nothing', keys.server), 404);
  assert.equal(await negotiate('spend', keys.client), 403);
  assert.equal(await negotiate('webhooks', keys.client), 403);
  assert.equal(await negotiate('tasks', keys.admin), 403);
  for (const hub of ['tasks', 'image-generation', 'video-generation', 'navigation-state', 'notifications', 'webhooks', 'spend']) {
    assert.equal(await negotiate(hub, keys.server), 200, hub);
  }
  const { json } = await server.request('/hubs/tasks/negotiate?negotiateVersion=1', { method: 'POST', key: keys.client });
  assert.equal(json.negotiateVersion, 1);
  assert.notEqual(json.connectionId, json.connectionToken);
  assert.deepEqual(json.availableTransports.map(({ transport }) => transport), Object.keys(transports));
});

test('webhooks and spend subscribe', async () => {
  const webhooks = connect('webhooks', 'WebSockets');
  await webhooks.start();
  await webhooks.invoke('SubscribeToWebhooks', ['https://a.example/x', 'https://b.example/y']);
  await webhooks.invoke('UnsubscribeFromWebhooks', ['https://a.example/x']);
  const statistics = [];
  webhooks.on('DeliveryStatisticsUpdated', (one) => statistics.push(one));
  await webhooks.invoke('RequestStatistics');
  assert.deepEqual(statistics, [{ endpoint_count: 0, breakers_open: 0, delivered: 0, failed: 0, dead: 0, endpoints: [] }]);
  await webhooks.stop();
  const spend = connect('spend', 'WebSockets');
  await spend.start();
  await spend.stop();
});

async function socket(hub = 'tasks') {
  const ws = new WebSocket(`${server.url.replace('http', 'ws')}/hubs/${hub}?access_token=${keys.server}`);
  const self = { ws, records: [], code: null };
  ws.on('message', (data) => self.records.push(...String(data).split(END).filter(Boolean).map((text) => JSON.parse(text))));
  ws.on('close', (code) => { self.code = code; });
  await within(new Promise((resolve, reject) => { ws.on('open', resolve); ws.on('error', reject); }), 'open socket');
  self.say = (...records) => ws.send(records.map((record) => (typeof record === 'string' ? record : JSON.stringify(record)) + END).join(''));
  self.until = (wanted) => waitFor(() => self.records.find(wanted), String(wanted));
  return self;
}

const handshake = { protocol: 'json', version: 1 };

test('records by hand: several at once, in pieces, of no known type, too large', async () => {
  const good = await socket();
  good.say(handshake, { type: 6 }, { type: 1, target: 'SubscribeToTaskType', invocationId: '1', arguments: ['video.generation'] });
  await good.until(({ type, invocationId }) => type === 3 && invocationId === '1');
  good.ws.send('{"type":1,"target":"Unsub');
  good.ws.send('scribeFromTaskType","invocationId":"2","arguments":["video.generation"]}' + END);
  await good.until(({ type, invocationId }) => type === 3 && invocationId === '2');
  good.say({ type: 99 });
  await waitFor(() => good.code, 'close');
  assert.ok(good.records.some(({ type, error }) => type === 7 && error));

  const wrong = await socket();
  wrong.say({ protocol: 'messagepack', version: 1 });
  await waitFor(() => wrong.code, 'close');
  assert.ok(wrong.records[0].error);

  const large = await socket();
  large.say(handshake, { type: 1, target: 'x'.repeat(33 * 1024), arguments: [] });
  await waitFor(() => large.code, 'close');

  const silent = await socket();
  await waitFor(() => silent.code, 'close without a handshake', 30000);
});

test('no more topics are checked at once than a connection may have', async () => {
  const { json } = await server.request('/hubs/tasks/negotiate?negotiateVersion=1', { method: 'POST', key: keys.server });
  const route = `/hubs/tasks?id=${json.connectionToken}`;
  assert.equal((await server.request(route, { key: keys.server })).status, 200);
  const post = async (...records) => {
    const { status, text } = await server.request(route, { method: 'POST', key: keys.server, body: records.map((record) => JSON.stringify(record) + END).join('') });
    assert.equal(status, 200, text);
  };
  const errors = new Map();
  const heard = (count) => waitFor(async () => {
    const { text } = await server.request(route, { key: keys.server });
    for (const { type, invocationId, error } of text.split(END).filter(Boolean).map((record) => JSON.parse(record))) if (type === 3) errors.set(Number(invocationId), error);
    return errors.size === count;
  }, `${count} completions`, 30000);
  const call = (i) => ({ type: 1, target: 'SubscribeToTask', invocationId: `${i}`, arguments: [`task_${String(i).padStart(26, '0')}`] });
  await post(handshake);
  // All of one request are begun before the record has answered any.
  await post(...Array.from({ length: 130 }, (_, i) => call(i)));
  await heard(130);
  for (const [i, error] of errors) assert.match(error, i < 100 ? /Unauthorized access to task/ : /asks for events.max_topics already/);
  // What was checked is not counted any more.
  await post(...Array.from({ length: 100 }, (_, i) => call(i + 200)));
  await heard(230);
  assert.deepEqual([...errors].filter(([i, error]) => i >= 200 && !/Unauthorized access to task/.test(error)), []);
  assert.equal((await server.request(route, { method: 'DELETE', key: keys.server })).status, 202);
});

test('polls have no more connections than there are places', async (t) => {
  const small = await startServer(t, { config: { workers: 1, max_connections: 20, events: { connect_timeout: '60s' } } });
  const answers = [];
  for (let i = 0; i < 30; i++) {
    const { json } = await small.request('/hubs/notifications/negotiate?negotiateVersion=1', { key: keys.server, method: 'POST' });
    answers.push((await small.request(`/hubs/notifications?id=${json.connectionToken}`, { key: keys.server })).status);
  }
  assert.deepEqual([answers.filter((status) => status === 200).length, answers.at(-1)], [20, 503]);
});

test('who polls and never shakes hands is told to begin anew: its connection may have died with its worker', async () => {
  const { json } = await server.request('/hubs/notifications/negotiate?negotiateVersion=1', { key: keys.server, method: 'POST' });
  const poll = () => server.request(`/hubs/notifications?id=${json.connectionToken}`, { key: keys.server });
  const first = await poll();
  assert.deepEqual([first.status, first.text], [200, '']);
  // A poll ends without news sooner than the handshake is missed, or later.
  const said = await waitFor(async () => (await poll()).text, 'the end of it', 20000);
  const { type, error, allowReconnect } = JSON.parse(said.replace(END, ''));
  assert.deepEqual([type, error, allowReconnect], [7, 'The handshake did not come.', true]);
});

test('a poll of a stranger finds nothing', async () => {
  const { json } = await server.request('/hubs/tasks/negotiate?negotiateVersion=1', { method: 'POST', key: keys.server });
  const route = `/hubs/tasks?id=${json.connectionToken}`;
  assert.equal((await server.request(route, { method: 'POST', key: keys.server, body: `${JSON.stringify(handshake)}${END}` })).status, 404);
  assert.equal((await server.request(route, { key: keys.server })).status, 200);
  assert.equal((await server.request(route, { method: 'POST', key: keys.client, body: `${JSON.stringify(handshake)}${END}` })).status, 404);
  assert.equal((await server.request(route, { method: 'POST', key: keys.server, body: `${JSON.stringify(handshake)}${END}` })).status, 200);
  const { status, text } = await server.request(route, { key: keys.server });
  assert.equal(status, 200);
  assert.equal(text, `{}${END}`);
  assert.equal((await server.request(route, { method: 'DELETE', key: keys.server })).status, 202);
  assert.equal((await server.request(route, { method: 'POST', key: keys.server, body: `{"type":6}${END}` })).status, 404, 'it is gone at once');
  assert.equal((await server.request('/hubs/tasks?id=hub_00000000000000000000000000', { key: keys.server })).status, 404);
});
