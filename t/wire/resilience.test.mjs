// Providers that fail: every fault, before and after the first token, alone and with another provider behind, over SSE,
// plain HTTP and a WebSocket. Each cell says what the client sees, who was asked how often, and what was billed.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { answer, faults, missing, oddities } from './lib/faults.mjs';
import { parseMetrics, sumOf } from './lib/metrics.mjs';
import { usageRows } from './lib/record.mjs';
import { keys, newSession, plainProvider, startMock, startServer, streamTurn } from './lib/server.mjs';
import { waitFor } from './lib/wait.mjs';
import { openChat } from './lib/ws.mjs';

const spread = 16; // providers of one upstream: the retry budget is a provider's

let server, upstream, backup, mocks;
before(async () => {
  mocks = [upstream, backup] = await Promise.all([startMock(null), startMock(null)]);
  const limits = { max_retries: 1, backoff_factor: 0.01, first_token_timeout: '700ms', stall_timeout: '700ms', read_timeout: '5s' };
  const price = { input: 1, output: 2 };
  const chains = [], providers = [plainProvider('backup', backup.url, limits), plainProvider('prefill', backup.url, limits)];
  for (let i = 0; i < spread; i++) {
    providers.push(plainProvider(`main${i}`, upstream.url, limits));
    chains.push({ name: `alone${i}`, price, targets: [{ provider: `main${i}`, model: 'm' }] },
      { name: `chain${i}`, price, targets: [{ provider: `main${i}`, model: 'm', context: 1000 }, { provider: 'backup', model: 'm', context: 1000 }] });
  }
  // A port that nobody listens on.
  providers.push(plainProvider('gone', 'http://127.0.0.1:1/v1', limits));
  const main = { provider: 'main0', model: 'm', context: 1000 };
  server = await startServer(null, { mock: upstream, config: {
    providers,
    models: [
      { name: 'default', targets: [main], price }, ...chains,
      { name: 'alone-gone', price, targets: [{ provider: 'gone', model: 'm' }] },
      { name: 'chain-gone', price, targets: [{ provider: 'gone', model: 'm' }, { provider: 'backup', model: 'm' }] },
      { name: 'larger', price, targets: [main, { provider: 'backup', model: 'm', context: 1000 }, { provider: 'prefill', model: 'm', context: 9000 }] },
      { name: 'continued', price, targets: [main, { provider: 'prefill', model: 'm', supports_prefill: true }] },
    ],
  } });
  server.expectLog(/WARN +provider call failed/);
});
after(async () => {
  await server?.stop();
  for (const mock of mocks ?? []) await mock.stop();
});

const ask_mock = async (mock, route, body) =>
  (await fetch(`http://${mock.address}/mock/${route}`, body === undefined ? {} : { method: 'POST', body: JSON.stringify(body) })).json();
const upstream_chats = async () => (await ask_mock(upstream, 'stats')).chats;
const stats = () => Promise.all(mocks.map((mock) => ask_mock(mock, 'stats')));
/** What a client of each route has in the end: {text, finish, code, message, retry_after, usage, restarts}. */
const routes = {
  async sse(model, input) {
    const { id } = await newSession(server, { model }, keys.server);
    const events = await streamTurn(server, id, { input }, keys.server);
    let text = '', restarts = 0;
    for (const { event, data } of events) {
      if (event === 'text.delta') { assert.equal(data.offset, text.length); text += data.text; }
      if (event === 'turn.restarted') { text = ''; restarts++; }
    }
    const { event, data } = events.at(-1);
    assert.equal(events.filter(({ event: name }) => /completed|failed/.test(name)).length, 1);
    if (event === 'turn.completed') assert.equal(data.message.content, text);
    const { code, message, retry_after } = data.error ?? {};
    return { text, restarts, finish: data.finish_reason, code, message, retry_after, usage: data.usage };
  },
  async plain(model, input) {
    const { id } = await newSession(server, { model }, keys.server);
    const { status, json, headers } = await server.request(`/v1/sessions/${id}/turns`, { key: keys.server, body: { input, stream: false } });
    if (status === 200) return { text: json.message.content, restarts: 0, finish: json.finish_reason, usage: json.usage };
    const header = headers['retry-after'] ?? headers.get?.('retry-after');
    return { restarts: 0, code: json.error.code, message: json.error.message, retry_after: header && Number(header) };
  },
  async ws(model, input, t) {
    const { id } = await newSession(server, { model }, keys.server);
    const chat = await openChat(t, server, { key: keys.server });
    const frames = await chat.answer(chat.chat({ text: input, session_id: id }));
    await chat.close();
    let text = '', restarts = 0;
    for (const { status, chunk } of frames) {
      if (status === 'chunk' && chunk.type === 'text') text += chunk.data;
      if (status === 'restarted') { text = ''; restarts++; }
    }
    const last = frames.at(-1);
    if (last.status === 'complete') return { text, restarts, finish: last.finish_reason, usage: last.usage };
    return { text, restarts, code: last.chunk.code, message: last.chunk.error };
  },
};

let rows_seen = 0; // the cells come one after another

async function cell(t, { route, model, fault, other_answer = answer }) {
  for (const mock of mocks) await ask_mock(mock, 'reset', {});
  if (fault) await ask_mock(upstream, 'fault', { next: 8, ...fault, text: answer });
  await ask_mock(backup, 'fault', { next: 8, fault: 'none', text: other_answer });
  const seen = await routes[route](model, 'hi', t);
  const rows = usageRows(server).slice(rows_seen); // written with the turn's end, before the client heard of it
  rows_seen += rows.length;
  assert.equal(rows.length, 1);
  const [first, second] = await stats();
  await ask_mock(upstream, 'reset', {});
  await waitFor(async () => (await stats()).every(({ active_requests }) => active_requests === 0), 'nothing goes on upstream');
  return { seen, row: rows[0], first: first.chats, second: second.chats, last: second.last };
}

/** What the client has, and the row of the target that answered, and of nobody else. */
function check_whole({ seen, row }, { text = answer, provider, attempts } = {}) {
  assert.deepEqual({ text: seen.text, finish: seen.finish, code: seen.code }, { text, finish: 'stop', code: undefined });
  assert.deepEqual([row.outcome, row.provider ?? provider, row.attempts], ['ok', provider ?? row.provider, attempts ?? row.attempts]);
  assert.deepEqual([row.input_tokens, row.output_tokens, row.cached_tokens], [seen.usage.input_tokens, seen.usage.output_tokens, seen.usage.cached_tokens]);
  assert.equal(row.cost_micros, row.input_tokens + 2 * row.output_tokens);
  assert.equal(seen.usage.cost, row.cost_micros / 1e6);
  assert.ok(row.output_tokens > 0);
}

function check_failed({ seen, row }, { code, message, retry_after }, route, provider, attempts) {
  assert.equal(seen.code, code, seen.message);
  assert.equal(seen.finish, undefined);
  if (message) assert.equal(seen.message, message);
  if (retry_after && route !== 'ws') // whose frames have no place for it
    assert.ok(seen.retry_after >= retry_after[0] && seen.retry_after <= retry_after[1], `${seen.retry_after}`);
  assert.deepEqual([row.outcome, row.provider, row.attempts], [code, provider, attempts]);
  assert.deepEqual([row.input_tokens, row.output_tokens, row.cached_tokens, row.cost_micros], [0, 0, 0, 0]);
}

let turn = 0;
test('the table has every fault of the mock', () => assert.deepEqual(missing(['huge_line']), [])); // see below

for (const f of faults) {
  test(`${f.name} ${f.phase}`, async (t) => {
    for (const route of Object.keys(routes)) {
      for (const has_fallback of [false, true]) {
        const at = f.gone ? '-gone' : turn++ % spread, main = f.gone ? 'gone' : `main${at}`;
        const r = await cell(t, { route, model: `${has_fallback ? 'chain' : 'alone'}${at}`, fault: f.fault });
        const what = `${route} ${has_fallback ? 'with' : 'without'} fallback: ${JSON.stringify(r.seen)}`;
        const tries = f.again ? 2 : 1, goes_on = has_fallback && f.elsewhere !== false;
        const first = r.first - (f.reconnects && r.first > tries ? 1 : 0);
        assert.equal(first, f.gone ? 0 : tries, what);
        assert.equal(r.second, goes_on ? 1 : 0, what);
        if (goes_on) check_whole(r, { provider: 'backup', attempts: tries + 1 });
        else check_failed(r, f, route, main, tries);
        assert.equal(r.seen.restarts, 0, what);
        if (!goes_on && route !== 'plain') assert.equal(r.seen.text, f.kept, what);
      }
    }
  });
}

for (const f of oddities) {
  test(`a whole answer: ${f.name}`, async (t) => {
    for (const route of Object.keys(routes)) {
      const at = turn++ % spread;
      const r = await cell(t, { route, model: `chain${at}`, fault: f.fault });
      check_whole(r, { text: f.text, provider: `main${at}`, attempts: 1 });
      assert.deepEqual([r.first, r.second], [1, 0]);
    }
  });
}

test('an event that is too large', async (t) => {
  for (const has_fallback of [false, true]) {
    const at = turn++ % spread;
    const r = await cell(t, { route: 'sse', model: `${has_fallback ? 'chain' : 'alone'}${at}`, fault: { fault: 'huge_line', after: 2, size: 8 << 20 } });
    if (has_fallback) check_whole(r, { provider: 'backup', attempts: 2 });
    else check_failed(r, { code: 'provider_error' }, 'sse', `main${at}`, 1);
    assert.equal(r.seen.text, has_fallback ? answer : 'one two');
  }
});

test('another answer after a break: what the client has is void', async (t) => {
  for (const route of Object.keys(routes)) {
    const r = await cell(t, { route, model: `chain${turn++ % spread}`, fault: { fault: 'cut_mid' }, other_answer: 'one or more' });
    check_whole(r, { text: 'one or more', provider: 'backup', attempts: 2 });
    assert.equal(r.seen.restarts, route === 'plain' ? 0 : 1);
  }
});

test('a target that supports it goes on from what was given', async (t) => {
  for (const route of Object.keys(routes)) {
    const r = await cell(t, { route, model: 'continued', fault: { fault: 'cut_mid' }, other_answer: ' and so on' });
    check_whole(r, { text: 'one two and so on', provider: 'prefill', attempts: 2 });
    assert.equal(r.seen.restarts, 0);
    assert.deepEqual(r.last.body.messages.at(-1), { role: 'assistant', content: 'one two' });
  }
});

test('a context that is too short goes to a larger one', async (t) => {
  const r = await cell(t, { route: 'sse', model: 'larger', fault: { fault: 'context' } });
  check_whole(r);
  assert.deepEqual([r.first, r.second], [1, 1]); // not to the one that is as short
});

test('a breaker opens, is seen everywhere, lets one probe through and closes', async (t) => {
  const own = await startServer(t, { mock: upstream, config: {
    providers: [{ ...plainProvider('mock', upstream.url), breaker: { failures: 3, failure_rate: 0, recovery: '3s' } }],
  } });
  own.expectLog(/WARN +provider (call failed|breaker open)/);
  await ask_mock(upstream, 'reset', {});
  await ask_mock(upstream, 'fault', { next: 3, fault: 'status:500' });
  const say = async () => {
    const { id } = await newSession(own, {}, keys.server);
    return own.request(`/v1/sessions/${id}/turns`, { key: keys.server, body: { input: 'hi', stream: false } });
  };
  for (let i = 0; i < 3; i++) assert.equal((await say()).json.error.code, 'provider_error');
  const refused = await say(); // on whichever worker
  assert.equal(refused.status, 503);
  assert.equal((await upstream_chats()), 3);
  const health = await own.request('/health');
  assert.equal(health.json.checks.providers.providers.mock.breakers.mock, 'open');
  assert.equal(health.json.checks.providers.status, 'degraded');
  assert.equal(health.status, 200);
  await waitFor(async () => sumOf(parseMetrics((await own.request('/metrics')).text), 'parley_provider_breaker_state') === 2, 'the gauge');
  await waitFor(async () => (await say()).status === 200, 'the probe');
  assert.equal((await own.request('/health')).json.checks.providers.providers.mock.breakers.mock, 'closed');
  await own.line(/provider breaker closed/);
});

test('a Retry-After holds for all workers of the host: nobody asks, the next target is asked at once', async (t) => {
  const limits = { cooldown_max: '1m', max_retries: 0 };
  const own = await startServer(t, { mock: upstream, config: {
    providers: [plainProvider('mock', upstream.url, limits), plainProvider('spare', backup.url, limits)],
    models: [{ name: 'default', targets: [{ provider: 'mock', model: 'm' }] },
      { name: 'chain', targets: [{ provider: 'mock', model: 'm' }, { provider: 'spare', model: 'm' }] },
      { name: 'other', targets: [{ provider: 'mock', model: 'other' }] }],
  } });
  own.expectLog(/WARN +provider call failed/);
  for (const mock of mocks) await ask_mock(mock, 'reset', {});
  await ask_mock(upstream, 'fault', { next: 1, fault: 'status:429', retry_after: 40 });
  const say = (model) => own.request('/v1/chat/completions', { key: keys.server, body: { model, messages: [{ role: 'user', content: 'hi' }] } });
  assert.equal((await say('default')).headers['retry-after'], '40');
  for (const answer_of of await Promise.all(Array.from({ length: 16 }, () => say('default')))) {
    assert.equal(answer_of.status, 429, answer_of.text);
    const wait_s = Number(answer_of.headers['retry-after']);
    assert.ok(wait_s > 30 && wait_s <= 40, `${wait_s}`);
  }
  for (const answer_of of await Promise.all(Array.from({ length: 16 }, () => say('chain')))) {
    assert.equal(answer_of.status, 200, answer_of.text);
    assert.deepEqual([answer_of.headers['x-parley-provider'], answer_of.headers['x-parley-attempts']], ['spare', '1']);
  }
  assert.equal((await say('other')).status, 200, 'another model of the provider');
  assert.deepEqual((await stats()).map(({ chats }) => chats), [2, 16]);
  const { cooling_s } = (await own.request('/health')).json.checks.providers.providers.mock;
  assert.ok(cooling_s.m > 30 && cooling_s.m <= 40 && cooling_s.other === undefined, JSON.stringify(cooling_s));
  assert.equal(sumOf(parseMetrics((await own.request('/metrics')).text), 'parley_provider_rejected_total', { reason: 'cooldown' }), 16);
  assert.equal(own.lines.filter((line) => /provider cools down provider=mock model=m ms=40000/.test(line)).length, 1);
});

test('concurrent_requests holds for the host, and a killed worker gives its places back', async (t) => {
  const own = await startServer(t, { mock: upstream, config: {
    providers: [plainProvider('mock', upstream.url, { concurrent_requests: 4, pool_timeout: '10s', first_token_timeout: '30s' })],
  } });
  await ask_mock(upstream, 'reset', {});
  const begin = async () => {
    const { id } = await newSession(own, {}, keys.server);
    return own.request(`/v1/sessions/${id}/turns`, { key: keys.server, body: { input: '[[mock tokens=20 interval=20]]', stream: false } });
  };
  let most = 0;
  const all = Promise.all(Array.from({ length: 24 }, begin));
  const watch = setInterval(async () => { most = Math.max(most, (await ask_mock(upstream, 'stats')).active_requests); }, 20);
  const answers = await all;
  clearInterval(watch);
  for (const { status, text } of answers) assert.equal(status, 200, text);
  assert.ok(most <= 4 && most >= 2, `${most}`);
  // All places are held by turns that never end; their workers die.
  const sessions = await Promise.all(Array.from({ length: 4 }, () => newSession(own, {}, keys.server)));
  const open = await Promise.all(sessions.map(({ id }) => own.stream(`/v1/sessions/${id}/turns`, { key: keys.server, body: { input: '[[mock fault=stall after=1]]', stream: true } })));
  await waitFor(async () => (await ask_mock(upstream, 'stats')).active_requests === 4, 'all places taken');
  assert.equal((await own.request('/health')).json.checks.providers.providers.mock.in_use, 4);
  const pids = own.workers();
  for (let slot = 0; slot < 4; slot++) own.killWorker(slot);
  for (let slot = 0; slot < 4; slot++) await own.replaced(slot, pids[slot]);
  assert.equal((await begin()).status, 200);
  for (const events of open) events.close?.();
});

test('requests_per_minute is exact for the host', async (t) => {
  const own = await startServer(t, { mock: upstream, config: {
    providers: [plainProvider('mock', upstream.url, { requests_per_minute: 7, pool_timeout: '100ms' })],
  } });
  own.expectLog(/WARN +provider call failed .*rate_limited/);
  await ask_mock(upstream, 'reset', {});
  const answers = await Promise.all(Array.from({ length: 30 }, async () => {
    const { id } = await newSession(own, {}, keys.server);
    return own.request(`/v1/sessions/${id}/turns`, { key: keys.server, body: { input: 'hi', stream: false } });
  }));
  assert.equal(answers.filter(({ status }) => status === 200).length, 7);
  for (const { status, json } of answers.filter(({ status: code }) => code !== 200)) {
    assert.equal(status, 429);
    assert.equal(json.error.code, 'rate_limited');
  }
  assert.equal(await upstream_chats(), 7);
});

test('equal deployments share the calls by weight; the rest of the chain is for failures', async (t) => {
  const names = ['heavy', 'light', 'spare'];
  const own = await startServer(t, { mock: upstream, config: {
    providers: names.map((name) => plainProvider(name, upstream.url)),
    models: [{ name: 'default', targets: [{ provider: 'heavy', model: 'm', weight: 4 }, { provider: 'light', model: 'm', weight: 1 }, { provider: 'spare', model: 'm' }] }],
  } });
  const { id } = await newSession(own, {}, keys.server);
  for (let i = 0; i < 60; i++) {
    const { status, text } = await own.request(`/v1/sessions/${id}/turns`, { key: keys.server, body: { input: 'hi', stream: false } });
    assert.equal(status, 200, text);
  }
  const families = parseMetrics((await own.request('/metrics')).text);
  const [heavy, light, spare] = names.map((provider) => sumOf(families, 'parley_provider_requests_total', { provider }));
  assert.equal(heavy + light, 60);
  assert.equal(spare, 0);
  assert.ok(light >= 1 && light < heavy, `${heavy} ${light}`); // 12 of 60 are expected; none, or half, once in 500,000 runs or less
});

test('a provider is looked at: up, misconfigured, down', async (t) => {
  const own = await startServer(t, { mock: upstream, config: {
    providers: [{ ...plainProvider('mock', upstream.url), health: { interval: '100ms' } }, { ...plainProvider('gone', 'http://127.0.0.1:1/v1'), health: { interval: '100ms' } }],
  } });
  own.expectLog(/WARN +provider health/);
  await ask_mock(upstream, 'reset', {});
  const health_of = async (name) => (await own.request('/health')).json.checks.providers.providers[name].health;
  await waitFor(async () => await health_of('mock') === 'up' && await health_of('gone') === 'down', 'both seen');
  // Each worker keeps its answer for a moment.
  await waitFor(async () => (await own.request('/health')).json.checks.providers.status === 'degraded', 'a host that says so');
  await ask_mock(upstream, 'fault', { next: 1000, fault: 'status:401' });
  await waitFor(async () => await health_of('mock') === 'misconfigured', 'a key that is refused');
  assert.equal((await upstream_chats()), 0);
});
