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
const endless = '[[mock tokens=100000 interval=20]]';

let plain, secure;
before(async () => {
  const config = { usage: { interval: '1ms' } };
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
