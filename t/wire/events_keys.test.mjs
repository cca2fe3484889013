// What is heard of events is heard with a key: it ends when the key's time is up, and what a socket asks for counts.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import WebSocket from 'ws';
import { keys, startServer } from './lib/server.mjs';
import { waitFor, within } from './lib/wait.mjs';

const END = '\x1e';
const limited = 'ps_limited_server_key_0123456789abcdef';
let server;

before(async () => { server = await startServer(null, { mock: false, config: { events: { poll_timeout: '5m' }, keys: [
    { kind: 'client', app: 'demo', secret: keys.client, rate: { limit: 0, window: '60s' } },
    { kind: 'server', app: 'demo', secret: keys.server }, { kind: 'server', app: 'demo', secret: limited, rpd: 5 }] } }); });
after(() => server?.stop());

async function open(route, key) {
  const ws = new WebSocket(server.url.replace('http', 'ws') + route, { headers: { authorization: `Bearer ${key}` } });
  const self = { ws, frames: [], code: null };
  ws.on('message', (data) => self.frames.push(...String(data).split(END).filter(Boolean).map((text) => JSON.parse(text))));
  ws.on('close', (code) => { self.code = code; });
  await within(new Promise((resolve, reject) => { ws.on('open', resolve); ws.on('error', reject); }), 'open socket');
  self.say = (...frames) => {
    ws._socket.cork();
    for (const frame of frames) ws.send(typeof frame === 'string' ? frame : JSON.stringify(frame));
    ws._socket.uncork();
  };
  self.until = (wanted) => waitFor(() => self.frames.find(wanted), String(wanted));
  return self;
}

const subscribe = (request_id, ...topics) => ({ action: 'subscribe', request_id, payload: { topics } });

test('when the time of a key is up, all that is heard with it ends', { timeout: 120000 }, async () => {
  const { json: { key } } = await server.request('/v1/client-keys', { key: keys.server, body: { expires_in: 8 } });
  const { json: { connectionToken } } = await server.request('/hubs/notifications/negotiate?negotiateVersion=1', { key, method: 'POST' });
  const poll = async () => (await server.request(`/hubs/notifications?id=${connectionToken}`, { key, limit_ms: 60000 })).text;
  assert.equal(await poll(), '');
  const stream = await server.stream('/v1/events?topics=notifications', { key });
  assert.equal(stream.status, 200, stream.text);
  const [events, hub] = [await open('/ws/events', key), await open('/hubs/notifications', key)];
  events.say(subscribe('a', 'notifications'));
  await events.until(({ status }) => status === 'subscribed');
  hub.say(`{"protocol":"json","version":1}${END}`);
  const [polled, streamed] = await Promise.all([
    poll(),
    within((async () => { const seen = []; for await (const event of stream) seen.push(event); return seen; })(), 'end of the stream', 30000),
    waitFor(() => events.code === 1008, 'close of the socket', 30000),
    waitFor(() => hub.code, 'close of the hub', 30000),
  ]);
  assert.deepEqual([streamed.at(-1).event, streamed.at(-1).data.error.code], ['error', 'unauthorized']);
  assert.match(polled, /"type":7,"error":"The key does not hold any more\."/);
  assert.ok(hub.frames.some(({ type, error }) => type === 7 && /does not hold/.test(error)));
});

test('/ws/events: each subscribe counts against the limits of its key', async () => {
  const socket = await open('/ws/events', limited);
  for (let i = 0; i < 5; i++) socket.say(subscribe(`s${i}`, 'providers'), { action: 'ping' }, { action: 'unsubscribe', request_id: 'u', payload: { stream: 'none' } });
  await waitFor(() => socket.frames.filter(({ status }) => status === 'subscribed').length === 5, 'five streams');
  socket.say(subscribe('more', 'providers'));
  const { error } = await socket.until(({ status, request_id }) => status === 'error' && request_id === 'more');
  assert.equal(error.code, 'rate_limited');
  assert.match(error.message, /requests per day/);
  assert.equal((await server.request('/v1/events?topics=providers', { key: limited })).status, 429, 'it is the same limit');
  socket.say({ action: 'unsubscribe', request_id: 'v', payload: { stream: 's0' } });
  await socket.until(({ status, stream }) => status === 'unsubscribed' && stream === 's0');
  assert.equal(socket.code, null);
  socket.ws.close();
});

test('/ws/events: what is asked of the record for a socket is bounded, also when nobody waits for it', async () => {
  const socket = await open('/ws/events', keys.server);
  const [count, topic] = [30, 'session:sess_00000000000000000000000000'];
  // All before the record has answered.
  socket.say(...Array.from({ length: count }, (_, i) => [subscribe(`s${i}`, topic), { action: 'unsubscribe', request_id: `u${i}`, payload: { stream: `s${i}` } }]).flat());
  await socket.until(({ error }) => error?.code === 'conflict' && /max_streams/.test(error.message));
  await waitFor(() => socket.frames.length > count, 'an answer to each');
  let tries = 0;
  await waitFor(() => {
    if (socket.frames.some(({ status }) => status === 'subscribed')) return true;
    socket.say(subscribe(`again${tries++}`, 'providers'));
    return false;
  }, 'a place', 20000);
  socket.ws.close();
});
