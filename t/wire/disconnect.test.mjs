// A client that goes: the provider stops within 100 ms, by the provider's own clock, over HTTP/1, TLS and HTTP/2, streamed or
// not; and what becomes of the answer when the client has said that it is to go on.
import assert from 'node:assert/strict';
import http from 'node:http';
import http2 from 'node:http2';
import https from 'node:https';
import { after, before, test } from 'node:test';
import { usageRows } from './lib/record.mjs';
import { keys, newSession, startServer } from './lib/server.mjs';
import { startTls } from './lib/tls.mjs';
import { waitFor, within } from './lib/wait.mjs';

const TRIES = 8, BOUND_US = 100_000;
const other_key = 'ps_test_other_key_0123456789abcdef';
const endless = '[[mock tokens=100000 interval=20]]';

let plain, secure;
before(async () => {
  const config = { usage: { interval: '1ms' }, gateway: { max_kept: '200KiB', keep_answers: '8s' }, keys: [
    { kind: 'client', app: 'demo', secret: keys.client }, { kind: 'server', app: 'demo', secret: keys.server }, { kind: 'server', app: 'demo', secret: other_key },
  ] };
  plain = await startServer(null, { config });
  secure = await startTls(null, { http2: true }, { mock: undefined, config });
});
after(async () => {
  await plain?.stop();
  await secure?.secure.stop();
});

const stats = async (server) => (await fetch(`http://${server.mock.address}/mock/stats`)).json();
const now_us = () => Number(process.hrtime.bigint() / 1000n); // CLOCK_MONOTONIC, as the mock's
const headers = { authorization: `Bearer ${keys.server}`, 'content-type': 'application/json' };
const body = (stream, content = endless) => JSON.stringify({ stream, messages: [{ role: 'user', content }] });

/** Clients: each begins a call, of a stream the first piece is there, and gives the way to leave. */
const clients = {
  'HTTP/1': async (stream) => {
    const req = http.request(`${plain.url}/v1/chat/completions`, { method: 'POST', agent: false, headers });
    return leaves_by_destroy(req, stream);
  },
  'TLS': async (stream) => {
    const req = https.request(`https://127.0.0.1:${secure.port}/v1/chat/completions`, { method: 'POST', agent: false, rejectUnauthorized: false, headers });
    return leaves_by_destroy(req, stream);
  },
  'HTTP/2, the stream is reset': async (stream) => {
    const { session, one } = await over_h2(stream);
    return { leave: () => one.close(http2.constants.NGHTTP2_CANCEL), close: () => session.close() };
  },
  'HTTP/2, the connection ends': async (stream) => {
    const { session } = await over_h2(stream);
    return { leave: () => session.destroy(), close: () => {} };
  },
};

async function leaves_by_destroy(req, stream) {
  req.on('error', () => {});
  const first = new Promise((resolve) => { req.on('response', (response) => { response.on('error', () => {}); response.once('data', resolve); }); });
  req.end(body(stream));
  if (stream) await within(first, 'first piece');
  return { leave: () => req.destroy(), close: () => {} };
}

async function over_h2(stream) {
  const session = http2.connect(`https://127.0.0.1:${secure.port}`, { rejectUnauthorized: false });
  session.on('error', () => {});
  const one = session.request({ ':method': 'POST', ':path': '/v1/chat/completions', ...headers });
  one.on('error', () => {});
  const first = new Promise((resolve) => { one.once('data', resolve); });
  one.end(body(stream));
  if (stream) await within(first, 'first piece');
  return { session, one };
}

/** How long it took until the provider saw the end of a call. */
async function seen_after_us(server, begin) {
  const was = await stats(server);
  const { leave, close } = await begin();
  await waitFor(async () => (await stats(server)).active_requests === was.active_requests + 1, 'request at the provider');
  const left_us = now_us();
  await leave();
  const { aborted_at_us } = await waitFor(async () => { const s = await stats(server); return s.aborted === was.aborted + 1 && s; }, 'end at the provider');
  close();
  return aborted_at_us - left_us;
}

/** All are seen; the machine may be busy with something else, but not each time. */
async function check_bound(server, begin) {
  const took = [];
  for (let i = 0; i < TRIES; i++) took.push(await seen_after_us(server, begin));
  assert.ok(Math.min(...took) < BOUND_US, `${took} us`);
}

for (const [name, client] of Object.entries(clients)) {
  for (const stream of [true, false]) {
    test(`${name}, ${stream ? 'streamed' : 'not streamed'}: the provider stops within 100 ms`, async () => {
      await check_bound(name === 'HTTP/1' ? plain : secure.secure, () => client(stream));
    });
  }
}

test('a turn that is cancelled: the provider stops within 100 ms, whichever worker hears of it', async () => {
  const { id } = await newSession(plain, {}, keys.server);
  await check_bound(plain, async () => {
    const events = await plain.stream(`/v1/sessions/${id}/turns`, { key: keys.server, body: { input: endless, stream: true } });
    const turn = events.headers['x-parley-turn'];
    for await (const { event } of events) if (event === 'text.delta') break;
    return {
      leave: async () => assert.equal((await plain.request(`/v1/sessions/${id}/turns/${turn}/cancel`, { method: 'POST', key: keys.server })).status, 200),
      close: () => events.close(),
    };
  });
});

test('what the client has broken off has its row: cancelled, and what was seen of it', async () => {
  await waitFor(() => usageRows(plain, "WHERE outcome <> 'cancelled'").length === 0 && usageRows(plain).length === 3 * TRIES, 'rows');
  for (const row of usageRows(plain)) {
    assert.equal(row.is_estimated, 1);
    assert.ok(row.input_tokens > 0 && row.cost_micros > 0, JSON.stringify(row));
  }
});

// ---- X-Parley-On-Disconnect: continue ----

const kept = (id, key = keys.server) => plain.request(`/v1/answers/${id}`, { key });
let calls = 0;

/** A call of a client that goes when `leaves` says so; returns the id under which its answer will be. */
async function go_on(content, stream, leaves) {
  const id = `call-${process.pid}-${calls++}`;
  const req = http.request(`${plain.url}/v1/chat/completions`, { method: 'POST', agent: false, headers: { ...headers, 'x-request-id': id, 'x-parley-on-disconnect': 'continue' } });
  req.on('error', () => {});
  const response = new Promise((resolve) => { req.on('response', resolve); });
  req.end(body(stream, content));
  await leaves(req, response);
  return id;
}
const at_once = async (req) => {
  await waitFor(async () => (await stats(plain)).active_requests > 0, 'request at the provider');
  req.destroy();
};
const in_the_middle = async (req, response) => {
  const answer = await response;
  answer.on('error', () => {});
  await new Promise((resolve) => { answer.once('data', resolve); });
  req.destroy();
};

test('continue: the answer is read to its end, billed, and kept for the key that asked, on whichever worker', async () => {
  const words = Array.from({ length: 20 }, (_, i) => `tok${i}`).join(' ');
  for (const [stream, leaves] of [[true, in_the_middle], [true, at_once], [false, at_once]]) {
    const was = await stats(plain), rows = usageRows(plain).length;
    const id = await go_on('[[mock tokens=20 interval=20]]', stream, leaves);
    const early = await kept(id);
    if ((await stats(plain)).active_requests > 0) assert.equal(early.status, 404, 'not before its end');
    const answer = await waitFor(async () => { const got = await kept(id); return got.status === 200 && got; }, 'the answer');
    const text = stream ? [...answer.text.matchAll(/"content":"([^"]*)"/g)].map(([, piece]) => piece).join('') : answer.json.choices[0].message.content;
    assert.equal(text, words);
    if (stream) assert.ok(answer.text.endsWith('data: [DONE]\n\n') && /^text\/event-stream/.test(answer.headers['content-type']));
    assert.equal((await stats(plain)).aborted, was.aborted);
    const [row] = await waitFor(() => { const all = usageRows(plain); return all.length > rows && all.slice(-1); }, 'its row');
    assert.deepEqual([row.outcome, row.output_tokens, row.is_estimated, row.attempts], ['ok', 20, 0, 1]);
    assert.equal(row.cost_micros, row.input_tokens + 2 * 20);
    for (let i = 0; i < 8; i++) assert.equal((await kept(id)).text, answer.text);
    assert.equal((await kept(id, other_key)).status, 404, 'nobody else');
    assert.equal((await kept(id, keys.client)).status, 403);
  }
});

test('continue: what fails is kept as the error; who stays finds it, too; what is too large is told', async () => {
  plain.expectLog(/provider call failed/);
  const ended = (id) => waitFor(async () => { const got = await kept(id); return got.status !== 404 && got; }, 'the answer');
  const broken = await ended(await go_on('[[mock tokens=20 interval=20 fault=cut_mid after=8]]', true, in_the_middle));
  assert.deepEqual([broken.status, broken.json.error.code], [502, 'provider_error']);
  const refused = await ended(await go_on('[[mock fault=policy]]', false, async (req, response) => { await response; }));
  assert.deepEqual([refused.status, refused.json.error.code], [400, 'content_policy_violation']);
  const stayed = await ended(await go_on('[[mock tokens=5]]', true, async (req, response) => { for await (const _ of await response); }));
  assert.ok(stayed.text.endsWith('data: [DONE]\n\n'));
  const large = await ended(await go_on('[[mock tokens=2000]]', true, in_the_middle)); // 300 KB
  assert.deepEqual([large.status, large.json.error.code], [413, 'payload_too_large']);
  assert.match(large.json.error.message, /too large to be kept/);
});

test('continue: after gateway.keep_answers it is gone', async () => {
  const id = await go_on('[[mock tokens=2]]', true, async (req, response) => { for await (const _ of await response); });
  await waitFor(async () => (await kept(id)).status === 200, 'the answer');
  await waitFor(async () => (await kept(id)).status === 404, 'its end');
});
