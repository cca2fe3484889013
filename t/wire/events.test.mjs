// Events over one host of four workers: event streams, /ws/events; who may hear what; who comes back misses nothing.
import assert from 'node:assert/strict';
import net from 'node:net';
import { after, before, test } from 'node:test';
import WebSocket from 'ws';
import { keys, newSession, startServer, streamTurn } from './lib/server.mjs';
import { waitFor, within } from './lib/wait.mjs';

const key = keys.client;
let server;

// Who takes nothing for long is to be told to come back, not to be cut.
before(async () => { server = await startServer(null, { config: { http: { send_timeout: '5m' } } }); });
after(() => server?.stop());

const announce = async (message, more = {}) => {
  const { status, text } = await server.request('/admin/v1/announcements', { key: keys.admin, body: { message, ...more } });
  assert.equal(status, 202, text);
};

/** An open stream: events pile up in `seen`; the last id is `last`. */
async function listen(topics, { after: last, as = key } = {}) {
  const stream = await server.stream(`/v1/events?topics=${topics}`, { key: as, headers: last ? { 'last-event-id': last } : {} });
  assert.equal(stream.status, 200, stream.text);
  const self = { seen: [], last, close: () => stream.close() };
  self.end = (async () => {
    try {
      for await (const event of stream) {
        if (event.id) self.last = event.id;
        self.seen.push(event);
      }
    } catch {
      // closed
    }
  })();
  self.named = (name) => self.seen.filter(({ event }) => event === name);
  self.until = (name, count = 1) => waitFor(() => self.named(name).length >= count && self.named(name), `${count} ${name}`);
  return self;
}

const ready = async (topics, options) => {
  const stream = await listen(topics, options);
  await stream.until('ready');
  return stream;
};

test('an announcement reaches every subscriber, whatever worker has it', async () => {
  const streams = await Promise.all(Array.from({ length: 12 }, () => ready('notifications')));
  await announce('one');
  for (const stream of streams) {
    const [event] = await stream.until('system.announcement');
    assert.equal(event.data.data.message, 'one');
    assert.equal(event.data.topic, 'notifications');
    assert.ok(event.id);
    stream.close();
  }
});

test('a stranger to a topic hears that there is none, as of one that nobody has', async () => {
  const { id } = await newSession(server);
  const of = async (topics, as = key) => (await server.request(`/v1/events?topics=${topics}`, { key: as })).status;
  const unknown = id.slice(0, -4) + '0000';
  assert.equal(await of(`session:${unknown}`), 404);
  assert.equal(await of('session:nonsense'), 404);
  assert.equal(await of('nothing'), 404);
  assert.equal(await of('spend'), 403);
  assert.equal(await of('tasks:image.generation'), 403);
  assert.equal(await of(`session:${id}`, keys.admin), 404);
  assert.equal((await server.request('/v1/events', { key })).status, 400);
  assert.equal((await server.request('/v1/events?topics=notifications')).status, 401);
  const stream = await ready(`session:${id}`);
  stream.close();
});

test('a session tells its turns', async () => {
  const { id } = await newSession(server);
  const stream = await ready(`session:${id}`);
  await streamTurn(server, id, { input: 'hello' });
  const [ended] = await stream.until('turn.completed');
  assert.equal(stream.named('turn.started').length, 1);
  assert.equal(ended.data.data.session_id, id);
  stream.close();
});

test('who comes back to any worker is told what it missed, each once and in order', { timeout: 120000 }, async () => {
  const total = 120;
  const heard = [];
  let done = false;
  const speaker = (async () => {
    for (let i = 0; i < total; i++) await announce(`n${i}`);
    done = true;
  })();
  let last = (await (async () => { const first = await ready('notifications'); first.close(); return first; })()).last;
  const began = last;
  // What was said before `began` is known not to be wanted: start counting at the first that comes.
  while (!done || heard.at(-1) !== `n${total - 1}`) {
    const stream = await listen('notifications', { after: last });
    const some = 1 + Math.floor(Math.random() * 20);
    await waitFor(() => stream.named('system.announcement').length >= some || (done && stream.named('ready').length > 0), 'some events');
    stream.close();
    await stream.end;
    for (const event of stream.named('ready')) assert.equal(event.data.gap, false);
    for (const event of stream.named('system.announcement')) heard.push(event.data.data.message);
    last = stream.last;
  }
  await speaker;
  assert.ok(began);
  const first = Number(heard[0].slice(1));
  assert.deepEqual(heard, Array.from({ length: total - first }, (_, i) => `n${first + i}`));
});

test('a place that is not known is a gap, not an error', async () => {
  for (const after of ['nonsense', '1-abc.5']) {
    const stream = await listen('notifications', { after });
    const [event] = await stream.until('ready');
    assert.equal(event.data.gap, true);
    stream.close();
  }
});

test('workers are killed: streams come back elsewhere and miss nothing', { timeout: 120000 }, async () => {
  const count = 8;
  const heard = Array.from({ length: count }, () => []);
  let done = false;
  const follow = async (i) => {
    for (let last; ;) {
      let stream;
      try {
        stream = await listen('notifications', { after: last });
      } catch {
        continue; // its worker was killed in the middle of its request
      }
      await Promise.race([stream.end, waitFor(() => done && stream.named('system.announcement').some(({ data }) => data.data.message === 'last'), 'the last', 60000)]);
      for (const event of stream.named('system.announcement')) heard[i].push(event.data.data.message);
      stream.close();
      last = stream.last ?? last;
      if (heard[i].at(-1) === 'last') return;
    }
  };
  const followers = heard.map((_, i) => follow(i));
  const open = async () => (await server.request('/metrics')).text.match(/parley_events_subscriptions (\d+)/)?.[1] >= count;
  await waitFor(open, 'followers');
  const say = async (text) => {
    for (;;) {
      try {
        return await announce(text);
      } catch {
        // the worker that took it was killed: it is said again
      }
    }
  };
  await say('begin');
  for (let slot = 0; slot < 4; slot++) {
    for (let i = 0; i < 10; i++) await say(`k${slot}.${i}`);
    const pid = server.killWorker(slot);
    for (let i = 10; i < 20; i++) await say(`k${slot}.${i}`);
    await server.replaced(slot, pid);
  }
  await say('last');
  done = true;
  await Promise.all(followers);
  for (const list of heard) {
    const unique = [...new Set(list)];
    // A worker that was killed while it answered may have said it: then it was said twice, and is heard twice.
    assert.ok(list.length - unique.length <= 8, `${list.length - unique.length} twice`);
    for (let slot = 0; slot < 4; slot++) for (let i = 0; i < 20; i++) assert.ok(unique.includes(`k${slot}.${i}`), `k${slot}.${i}`);
  }
});

// ---- /ws/events ----

async function openSocket(as = key) {
  const ws = new WebSocket(`${server.url.replace('http', 'ws')}/ws/events`, { headers: { authorization: `Bearer ${as}` } });
  const self = { ws, frames: [], closed: null };
  ws.on('message', (data) => self.frames.push(JSON.parse(data)));
  ws.on('close', (code, reason) => { self.closed = { code, reason: String(reason) }; });
  await within(new Promise((resolve, reject) => { ws.on('open', resolve); ws.on('error', reject); }), 'open socket');
  self.say = (frame) => ws.send(typeof frame === 'string' ? frame : JSON.stringify(frame));
  self.until = (wanted) => waitFor(() => self.frames.find(wanted), String(wanted));
  return self;
}

test('/ws/events: subscribe, resume, unsubscribe, errors', async () => {
  const socket = await openSocket();
  socket.say({ action: 'ping', request_id: 'p' });
  await socket.until(({ status }) => status === 'pong');
  socket.say({ action: 'subscribe', request_id: 'a', payload: { topics: ['notifications'] } });
  const { event_id } = await socket.until(({ status, stream }) => status === 'subscribed' && stream === 'a');
  await announce('to sockets');
  const told = await socket.until(({ status, data }) => status === 'event' && data.message === 'to sockets');
  assert.equal(told.stream, 'a');
  assert.equal(told.event, 'system.announcement');
  // From where the first was, another one hears it again.
  socket.say({ action: 'subscribe', request_id: 'b', payload: { topics: ['notifications'], last_event_id: event_id } });
  await socket.until(({ status, stream, data }) => status === 'event' && stream === 'b' && data.message === 'to sockets');
  await socket.until(({ status, stream }) => status === 'subscribed' && stream === 'b');
  socket.say({ action: 'unsubscribe', request_id: 'c', payload: { stream: 'a' } });
  await socket.until(({ status, request_id }) => status === 'unsubscribed' && request_id === 'c');
  await announce('only b');
  await socket.until(({ status, stream, data }) => status === 'event' && stream === 'b' && data.message === 'only b');
  assert.ok(!socket.frames.some(({ stream, data }) => stream === 'a' && data?.message === 'only b'));
  const refused = [['{', 'invalid_request'], [{ action: 'what', request_id: 'x' }, 'invalid_request'],
    [{ action: 'subscribe', request_id: 'y', payload: { topics: [] } }, 'invalid_request'],
    [{ action: 'subscribe', request_id: 'z', payload: { topics: ['session:nobody'] } }, 'not_found'],
    [{ action: 'unsubscribe', request_id: 'w', payload: { stream: 'a' } }, 'not_found']];
  for (const [frame, code] of refused) {
    const before = socket.frames.length;
    socket.say(frame);
    const error = await waitFor(() => socket.frames.slice(before).find(({ status }) => status === 'error'), 'error');
    assert.equal(error.error.code, code, JSON.stringify(error));
  }
  assert.equal(socket.closed, null);
  socket.ws.close();
});

test('/ws/events: ten streams, 32 KB', async () => {
  const socket = await openSocket();
  for (let i = 0; i < 11; i++) socket.say({ action: 'subscribe', request_id: `s${i}`, payload: { topics: ['providers'] } });
  const error = await socket.until(({ status }) => status === 'error');
  assert.equal(error.request_id, 's10');
  await waitFor(() => socket.frames.filter(({ status }) => status === 'subscribed').length === 10, 'ten streams');
  socket.say('x'.repeat(32 * 1024 + 1));
  const { code } = await waitFor(() => socket.closed, 'close');
  assert.equal(code, 1009);
});

test('a revoked key ends its streams and sockets', async () => {
  const made = await server.request('/admin/v1/keys', { key: keys.admin, body: { kind: 'server', app_id: 'demo' } });
  assert.equal(made.status, 201, made.text);
  const stream = await ready('notifications', { as: made.json.key });
  const socket = await openSocket(made.json.key);
  await server.request(`/admin/v1/keys/${made.json.id}`, { method: 'DELETE', key: keys.admin });
  assert.equal((await waitFor(() => socket.closed, 'close')).code, 1008);
  await within(stream.end, 'end of the stream');
  assert.equal(stream.seen.at(-1).event, 'error');
});

test('a provider that fails: its health, its breaker and its models are told', async (t) => {
  const broken = await startServer(t, { config: {
    providers: [{ name: 'mock', dialect: 'openai', base_url: 'http://127.0.0.1:9/v1', api_key: 'sk-test', http_client: { max_retries: 0 },
      breaker: { failures: 2, failure_rate: 0, window: '60s', recovery: '60s' }, health: { interval: '1s', timeout: '1s' } }],
  }, mock: false });
  broken.expectLog(/provider|turn|gateway|model/);
  const stream = await broken.stream('/v1/events?topics=providers,navigation-state,notifications,model:default', { key });
  assert.equal(stream.status, 200);
  const seen = [];
  (async () => { try { for await (const event of stream) seen.push(event); } catch { /* closed */ } })();
  const find = (name) => waitFor(() => seen.find(({ event }) => event === name), name, 20000);
  await find('ready');
  for (let i = 0; i < 4; i++) await broken.request('/v1/chat/completions', { key: keys.server, body: { model: 'default', messages: [{ role: 'user', content: 'x' }] } });
  const breaker = await find('provider.breaker');
  assert.equal(breaker.data.data.breaker, 'open');
  const model = await find('model.availability');
  assert.deepEqual([model.data.data.model, model.data.data.is_available], ['default', false]);
  stream.close();
});

test('a session that is closed, and another configuration, are told', async (t) => {
  const other = await startServer(t, { mock: false });
  const { id } = await newSession(other);
  const stream = await other.stream(`/v1/events?topics=session:${id},notifications,navigation-state`, { key });
  const seen = [];
  (async () => { try { for await (const event of stream) seen.push(event); } catch { /* closed */ } })();
  const find = (name) => waitFor(() => seen.find(({ event }) => event === name), name, 20000);
  await find('ready');
  assert.equal((await other.request(`/v1/sessions/${id}`, { method: 'DELETE', key })).status, 200);
  assert.equal((await find('session.closed')).data.data.session_id, id);
  stream.close();
  // Streams of workers that are replaced end: this one is opened again where the last was.
  const last = seen.at(-1).id;
  other.changeConfig({ models: [{ name: 'default', targets: [{ provider: 'mock', model: 'another' }] }] });
  other.kill('SIGHUP');
  await other.line(/reloaded|reload done|configuration .*taken/i, 20000).catch(() => {});
  await waitFor(async () => {
    const again = await other.stream(`/v1/events?topics=notifications,navigation-state`, { key, headers: { 'last-event-id': last } }).catch(() => null);
    if (again?.status !== 200) return false;
    const names = [];
    for await (const { event } of again) {
      names.push(event);
      if (event === 'ready') break;
    }
    again.close();
    return names.includes('config.changed') && names.includes('model.mapping') && names.includes('model.capabilities');
  }, 'news of the configuration', 20000);
});

test('a session that has been idle for too long, and a key near its limit, are told', { timeout: 60000 }, async (t) => {
  const other = await startServer(t, { mock: false, config: { sessions: { idle_expiry: '8s', sweep_interval: '1s' },
    keys: [{ kind: 'client', app: 'demo', secret: keys.client, rate: { limit: 0, window: '60s' } }, { kind: 'server', app: 'demo', secret: keys.server, rpm: 20 }] } });
  const { id } = await newSession(other);
  const stream = await other.stream(`/v1/events?topics=session:${id},notifications`, { key });
  const seen = [];
  (async () => { try { for await (const event of stream) seen.push(event); } catch { /* closed */ } })();
  const find = (name) => waitFor(() => seen.find(({ event }) => event === name), name, 30000);
  await find('ready');
  assert.deepEqual((await find('session.expired')).data.data, { session_id: id });
  await waitFor(async () => (await other.request('/v1/sessions', { key: keys.server })).status === 429, 'the limit', 30000);
  const { data: { data: told } } = await find('rate_limit.warning');
  assert.deepEqual([told.app_id, told.limit, told.limit_of], ['demo', 20, 'requests per minute']);
  assert.ok(told.remaining <= 2 && told.key_id, JSON.stringify(told));
  stream.close();
});

test('spend: what a day costs, and a budget that is used up', { timeout: 120000 }, async (t) => {
  const other = await startServer(t, { config: { usage: { spend_interval: '200ms' },
    apps: [{ id: 'demo', name: 'Demo', org: 'demo', budget: { amount: 0.12, period: 'day' } }] } });
  const stream = await other.stream('/v1/events?topics=spend', { key: keys.server });
  assert.equal(stream.status, 200, stream.text);
  const seen = [];
  (async () => { try { for await (const event of stream) seen.push(event); } catch { /* closed */ } })();
  // 3,000 millionths each, so 20 are half of it. What is there at the first look is where it begins: not all at once.
  const ask = () => other.request('/v1/chat/completions', { key: keys.server, body: {
    model: 'default', max_tokens: 1500, messages: [{ role: 'user', content: 'go [[mock tokens=1500 interval=0]]' }] } });
  await waitFor(async () => {
    await ask();
    await new Promise((resolve) => setTimeout(resolve, 100));
    return seen.some(({ event }) => event === 'budget.alert');
  }, 'budget.alert', 30000);
  const update = seen.find(({ event }) => event === 'spend.update').data.data;
  assert.equal(update.app_id, 'demo');
  assert.ok(update.cost > 0 && update.calls > 0, JSON.stringify(update));
  const alert = seen.find(({ event }) => event === 'budget.alert').data.data;
  assert.ok([50, 75, 90, 100].includes(alert.threshold), JSON.stringify(alert));
  assert.equal(alert.amount, 0.12);
  assert.ok(alert.spent >= (0.12 * alert.threshold) / 100);
  stream.close();
});

test('a slow reader is told to come back, and then misses nothing', { timeout: 120000 }, async () => {
  const count = 1500, text = 'x'.repeat(4000);
  const first = await ready('notifications');
  let last = first.last;
  first.close();
  const slow = net.connect({ port: server.port, host: '127.0.0.1' });
  slow.on('error', () => {});
  slow.write(`GET /v1/events?topics=notifications HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${key}\r\nLast-Event-ID: ${last}\r\n\r\n`);
  await within(new Promise((resolve) => slow.once('data', resolve)), 'an answer');
  slow.pause();
  for (let i = 0; i < count; i += 20) await Promise.all(Array.from({ length: 20 }, (_, k) => announce(`${i + k}.${text}`)));
  const gone = new Promise((resolve) => slow.once('close', resolve));
  let told = '';
  slow.on('data', (data) => { told += data; });
  slow.resume();
  await within(gone, 'end of the slow stream', 30000);
  assert.match(told, /retry: \d+/);
  const numbers = new Set([...told.matchAll(/"message":"(\d+)\.x/g)].map(([, n]) => Number(n)));
  assert.ok(numbers.size < count, 'it was not slow enough');
  const ids = [...told.matchAll(/^id: (\S+)$/gm)];
  last = ids.at(-1)?.[1] ?? last;
  // What it missed is more than waits for one reader at once: it comes in pieces.
  for (let is_ready = false; !is_ready;) {
    const again = await listen('notifications', { after: last });
    await Promise.race([again.end, again.until('ready')]);
    is_ready = again.named('ready').length > 0;
    for (const { data } of again.named('system.announcement')) {
      const n = Number(data.data.message.split('.')[0]);
      assert.ok(!numbers.has(n), `${n} twice`);
      numbers.add(n);
    }
    for (const { data } of again.named('ready')) assert.equal(data.gap, false);
    last = again.last;
    again.close();
  }
  assert.equal(numbers.size, count);
});

test('drained: each is told to come back', { timeout: 60000 }, async () => {
  const other = await startServer(null, { mock: false });
  const stream = await other.stream('/v1/events?topics=notifications', { key });
  const seen = [];
  const end = (async () => { try { for await (const event of stream) seen.push(event); } catch { /* closed */ } })();
  await waitFor(() => seen.length > 0, 'ready');
  const sockets = [];
  for (const route of ['/ws/events', '/hubs/notifications']) {
    const ws = new WebSocket(`${other.url.replace('http', 'ws')}${route}`, { headers: { authorization: `Bearer ${key}` } });
    const socket = { frames: [], closed: null };
    ws.on('message', (data) => socket.frames.push(String(data)));
    ws.on('close', (code, reason) => { socket.closed = { code, reason: String(reason) }; });
    await within(new Promise((resolve, reject) => { ws.on('open', resolve); ws.on('error', reject); }), 'open');
    if (route.startsWith('/hubs')) {
      ws.send('{"protocol":"json","version":1}\x1e');
      await waitFor(() => socket.frames.length > 0, 'handshake');
    }
    sockets.push(socket);
  }
  await other.stop();
  await within(end, 'end of the stream');
  for (const socket of sockets) assert.equal((await waitFor(() => socket.closed, 'close')).code, 1001);
  assert.match(sockets[0].closed.reason, /draining; retry_after_ms=\d+/);
  assert.ok(sockets[1].frames.some((text) => text.includes('"type":7') && text.includes('"allowReconnect":true')));
});
