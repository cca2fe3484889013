// Budgets and usage: what may be spent, exactly, over all workers, over crashes and restarts; and the rows that say what was.
import assert from 'node:assert/strict';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { test } from 'node:test';
import { parseMetrics, sumOf } from './lib/metrics.mjs';
import { ask, heldCalls, moneyAhead, usageRows } from './lib/record.mjs';
import { keys, newSession, plainProvider, startServer, streamTurn } from './lib/server.mjs';
import { startUpstream } from './lib/upstream.mjs';
import { waitFor } from './lib/wait.mjs';
import { openChat } from './lib/ws.mjs';

const ten = 'ps_test_ten_key_0123456789abcdef01';
const daily = 'ps_test_daily_key_0123456789abcdef';
const user = [{ role: 'user', content: 'hi' }];

/** Output tokens cost 1 each and nothing else does: a call with max_tokens n reserves n and an answer of m tokens costs m. */
const config_of = (upstream, more = {}) => ({
  providers: [plainProvider('bytes', upstream.url, { max_queue: 0 })],
  models: [
    { name: 'default', targets: [{ provider: 'bytes', model: 'm' }], price: { input: 0, output: 1000000 } },
    { name: 'free', targets: [{ provider: 'bytes', model: 'm' }] },
  ],
  keys: [
    { kind: 'client', app: 'demo', secret: keys.client },
    { kind: 'server', app: 'demo', secret: keys.server },
    { kind: 'server', app: 'demo', secret: ten, budget: { amount: 10, period: 'total' } },
    { kind: 'server', app: 'demo', secret: daily, budget: { amount: 1, period: 'day' } },
    { kind: 'admin', secret: keys.admin },
  ],
  ...more,
  // A crowd may wait for the disk.
  store: { acquire_timeout: '60s', ...more.store },
});

const answer_of = (tokens) => JSON.stringify({ choices: [{ message: { content: 'x' }, finish_reason: 'stop' }],
  usage: { prompt_tokens: 7, completion_tokens: tokens } });
const json = (response, text) => {
  response.writeHead(200, { 'content-type': 'application/json' });
  response.end(text);
};
const chat = (server, key, body = {}) => server.request('/v1/chat/completions', { key, body: { messages: user, max_tokens: 1, ...body }, limit_ms: 60000 });
/** A call whose answer is given as soon as it is asked for, and which is settled after it. */
const chat_held = async (server, held) => {
  const before = held.length;
  const asked = chat(server, ten);
  let status;
  asked.then((answer) => { status = answer.status; });
  await waitFor(() => status || held.length > before, 'a call or a refusal');
  if (held.length > before) json(held.at(-1), answer_of(1));
  await asked;
  await waitFor(() => heldCalls(server) === 0, 'settlement');
  return status;
};
/** A record that outlives its server. */
const recordOfItsOwn = () => {
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'parley-record-'));
  process.on('exit', () => fs.rmSync(dir, { recursive: true, force: true })); // after its servers
  return { url: `sqlite:${path.join(dir, 'parley.db')}` };
};
const usage_of = async (server) => {
  const { status, json: body, text } = await server.request('/admin/v1/usage', { key: keys.admin });
  assert.equal(status, 200, text);
  return body.data;
};
const sum = (rows, name) => rows.reduce((all, row) => all + row[name], 0);

for (const workers of [4, 8]) {
  test(`a budget for ten admits ten of a thousand at once, ${workers} workers`, { timeout: 120000 }, async (t) => {
    const held = [];
    const upstream = await startUpstream(t, (request, response) => { held.push(response); });
    const server = await startServer(t, { mock: false, config: config_of(upstream, { workers }) });
    const asked = Array.from({ length: 1000 }, () => chat(server, ten));
    let refused = 0;
    for (const one of asked) one.then(({ status }) => { refused += status === 402; });
    await waitFor(() => refused === 990 && held.length === 10, 'ten calls and 990 refusals', 60000);
    for (const response of held) json(response, answer_of(1));
    const answers = await Promise.all(asked);
    assert.equal(answers.filter(({ status }) => status === 200).length, 10);
    assert.equal(upstream.requests.length, 10);
    await waitFor(() => usageRows(server).length === 10 && heldCalls(server) === 0, 'rows');
    const after = await chat(server, ten);
    assert.equal(after.status, 402);
    assert.deepEqual(after.json.budget, { of: 'key', period: 'total', amount: 10, spent: 10, reserved: 0, requested: 1, resets_at: null });
  });
}

/** Many workers take ahead what most calls will need, and still nobody is refused who could be paid, and nobody let in who could not. */
test('a budget is spent to its last call, by a crowd over 8 workers', { timeout: 120000 }, async (t) => {
  const upstream = await startUpstream(t, (request, response) => json(response, answer_of(1)));
  const many = 'ps_test_many_key_0123456789abcdef0';
  const server = await startServer(t, { mock: false, config: config_of(upstream, { workers: 8,
    keys: [{ kind: 'server', app: 'demo', secret: many, budget: { amount: 2000, period: 'total' } }, { kind: 'admin', secret: keys.admin }] }) });
  const statuses = {};
  let asked = 0, advanced = 0;
  const one_after_another = async () => {
    while (asked < 2100) {
      if (asked++ % 100 === 0) advanced += moneyAhead(server);
      const { status } = await chat(server, many);
      statuses[status] = (statuses[status] ?? 0) + 1;
    }
  };
  await Promise.all(Array.from({ length: 32 }, one_after_another));
  assert.deepEqual(statuses, { 200: 2000, 402: 100 });
  assert.equal(upstream.requests.length, 2000);
  assert.ok(advanced > 0, 'no money was taken ahead');
  await waitFor(() => heldCalls(server) === 0, 'everything settled');
  assert.equal(sum(usageRows(server), 'cost_micros'), 2000e6);
  assert.equal(usageRows(server).length, 2000);
});

test('a worker that is killed while it held money ahead costs the calls it had begun, and no others', { timeout: 120000 }, async (t) => {
  const held = [];
  let holding = false;
  const upstream = await startUpstream(t, (request, response) => { holding ? held.push(response) : json(response, answer_of(1)); });
  const many = 'ps_test_many_key_0123456789abcdef0';
  const server = await startServer(t, { mock: false, config: config_of(upstream, { workers: 1, budgets: { lease: '3s' },
    keys: [{ kind: 'server', app: 'demo', secret: many, budget: { amount: 100000, period: 'total' } }, { kind: 'admin', secret: keys.admin }] }) });
  for (let i = 0; i < 40; i++) assert.equal((await chat(server, many)).status, 200);
  await waitFor(() => usageRows(server).length === 40, 'what has ended to be settled');
  holding = true;
  const cut = Array.from({ length: 20 }, () => chat(server, many, { max_tokens: 3 }).catch(() => 'cut'));
  const own = () => ask(server, "SELECT count(*) AS n FROM budget_holds WHERE substr(id, 1, 4) <> 'adv_'")[0].n;
  await waitFor(() => held.length === 20 && own() === 20, 'calls that have holds of their own');
  server.killWorker(0);
  await Promise.all(cut);
  await waitFor(() => heldCalls(server) === 0, 'leases that lapse', 20000);
  const lost = usageRows(server, "WHERE outcome = 'lost'");
  assert.equal(lost.length, 20);
  assert.equal(sum(lost, 'cost_micros'), 60e6);
  assert.equal(sum(usageRows(server), 'cost_micros'), 100e6);
});

test('a refusal says which budget, what is left of it, and when it begins anew', async (t) => {
  let tokens = 1;
  const upstream = await startUpstream(t, (request, response) => json(response, answer_of(tokens)));
  const server = await startServer(t, { mock: false, config: config_of(upstream) });
  tokens = 0;
  assert.equal((await chat(server, daily)).status, 200);
  await waitFor(() => heldCalls(server) === 0, 'settlement');
  const over = await chat(server, daily, { max_tokens: 2 });
  assert.equal(over.status, 402, over.text);
  assert.equal(over.json.error.type, 'budget_exceeded');
  assert.equal(over.json.error.code, 'budget_exceeded');
  assert.equal(over.json.error.param, null);
  assert.equal(over.json.request_id, over.headers['x-request-id']);
  assert.equal(over.json.budget.of, 'key');
  assert.equal(over.json.budget.period, 'day');
  assert.equal(over.json.budget.requested, 2);
  const midnight = new Date(over.json.budget.resets_at);
  assert.equal(midnight.getTime() % 86400000, 0);
  assert.ok(midnight > Date.now() && midnight - Date.now() <= 86400000);
  assert.match(over.json.error.message, /The key's budget of 1 a day is used up.*begins anew at 20/);
  // Without max_tokens the default is reserved; n of them n times.
  assert.equal((await chat(server, daily, { max_tokens: undefined })).json.budget.requested, 4096);
  assert.equal((await chat(server, daily, { max_tokens: undefined, n: 2 })).json.budget.requested, 8192);
  // A model without a price, and a key without a budget.
  const free = await chat(server, daily, { model: 'free' });
  assert.equal(free.status, 403);
  assert.match(free.json.error.message, /no price/);
  assert.equal((await chat(server, keys.server, { model: 'free' })).status, 200);
});

test('the budget of an app holds for all its keys, and for turns', async (t) => {
  const upstream = await startUpstream(t, (request, response) => json(response, answer_of(1)));
  const server = await startServer(t, { mock: false, config: config_of(upstream,
    { apps: [{ id: 'demo', name: 'Demo', org: 'demo', client_may: ['tools'], budget: { amount: 3, period: 'month' } }] }) });
  const statuses = [];
  for (const key of [keys.server, ten, keys.server, ten]) {
    statuses.push((await chat(server, key)).status);
    await waitFor(() => heldCalls(server) === 0, 'settlement');
  }
  assert.deepEqual(statuses, [200, 200, 200, 402]);
  const over = await chat(server, keys.server);
  assert.equal(over.json.budget.of, 'app');
  assert.equal(over.json.budget.period, 'month');
  const session = await newSession(server);
  const [last] = (await streamTurn(server, session.id, { input: 'hi' })).slice(-1);
  assert.equal(last.event, 'turn.failed');
  assert.equal(last.data.error.code, 'budget_exceeded');
  assert.match(last.data.error.message, /The app's budget of 3 a month/);
  assert.deepEqual({ ...last.data.budget, requested: 0 }, { ...over.json.budget, requested: 0 });
  const plain = await server.request(`/v1/sessions/${session.id}/turns`, { key: keys.client, body: { input: 'hi' } });
  assert.equal(plain.status, 402, plain.text);
  assert.equal(plain.json.error.code, 'budget_exceeded');
  assert.deepEqual({ ...plain.json.budget, requested: 0 }, { ...over.json.budget, requested: 0 });
  assert.equal(new Date(plain.json.budget.resets_at).getUTCDate(), 1);
  const shown = await server.request(`/v1/sessions/${session.id}/turns/${last.id.split('.')[0]}`, { key: keys.client });
  assert.equal(shown.json.budget.of, 'app');
  const chat_socket = await openChat(t, server, { key: keys.client });
  const frame = (await chat_socket.answer(chat_socket.chat({ text: 'hi', session_id: session.id }))).at(-1);
  assert.deepEqual([frame.status, frame.chunk.code, frame.chunk.budget.of], ['error', 'budget_exceeded', 'app']);
  await chat_socket.close();
  assert.equal(heldCalls(server), 0);
});

test("tokens per minute of a server key count its turns, too, and its calls count for the turns", async (t) => {
  const tokened = 'ps_test_tokened_key_0123456789abcdef';
  const server = await startServer(t, { config: { keys: [
    { kind: 'client', app: 'demo', secret: keys.client },
    { kind: 'server', app: 'demo', secret: tokened, tpm: 60 },
    { kind: 'server', app: 'demo', secret: ten, tpm: 60 },
  ] } });
  const say = async (key, input) => {
    const session = await newSession(server, {}, key);
    return server.request(`/v1/sessions/${session.id}/turns`, { key, body: { input } });
  };
  const over = (answer) => {
    assert.equal(answer.status, 429, answer.text);
    assert.equal(answer.json.error.code, 'rate_limited');
    assert.match(answer.json.error.message, /60 tokens per minute; try again in \d+ s/);
    const { of, unit, amount, remaining, resets_at } = answer.json.limit;
    assert.deepEqual([of, unit, amount], ['key', 'tokens per minute', 60]);
    assert.ok(remaining < 60);
    const wait_s = Number(answer.headers['retry-after']);
    assert.ok(wait_s >= 1 && wait_s <= 60);
    assert.ok(Math.abs(new Date(resets_at) - Date.now() - wait_s * 1000) < 5000, resets_at);
  };
  const first = await say(tokened, 'x'.repeat(200));
  assert.equal(first.status, 200, first.text);
  over(await say(tokened, 'again'));
  over(await chat(server, tokened));
  assert.equal((await say(keys.client, 'again')).status, 200, 'whose key has no such limit');
  // What was not used goes back: a call for all of it that fails leaves room for the next.
  server.expectLog(/provider call failed/);
  for (let i = 0; i < 3; i++) assert.equal((await say(ten, `[[mock fault=status:500]] ${'x'.repeat(150)}`)).status, 502);
  assert.equal((await chat(server, ten, { messages: [{ role: 'user', content: 'x'.repeat(200) }] })).status, 200);
  over(await say(ten, 'x'.repeat(200)));
});

test('what failed is given back; what the client broke off costs what was given', async (t) => {
  let respond;
  const upstream = await startUpstream(t, (request, response) => respond(request, response));
  const server = await startServer(t, { mock: false, config: config_of(upstream) });
  server.expectLog(/provider call failed/);
  respond = (request, response) => {
    response.writeHead(500, { 'content-type': 'application/json' });
    response.end('{"error":{"message":"no"}}');
  };
  for (let i = 0; i < 12; i++) {
    assert.equal((await chat(server, daily)).status, 502);
    await waitFor(() => heldCalls(server) === 0, 'what was held to be given back');
  }
  await waitFor(() => usageRows(server).length === 12, 'rows');
  const [row] = usageRows(server);
  assert.equal(row.outcome, 'provider_error');
  assert.equal(row.cost_micros, 0);
  assert.equal(row.input_tokens + row.output_tokens, 0);
  assert.equal(row.attempts, 1);
  assert.equal(row.org_id, 'demo');
  const [day] = await usage_of(server);
  assert.equal(day.failed_calls, 12);
  // A client that goes in the middle of a stream pays for what came.
  respond = (request, response) => {
    response.writeHead(200, { 'content-type': 'text/event-stream' });
    response.write(`data: {"choices":[{"index":0,"delta":{"content":"abcdefgh"}}]}\n\n`);
  };
  const events = await server.stream('/v1/chat/completions', { key: ten, body: { messages: user, max_tokens: 9, stream: true } });
  for await (const _ of events) break;
  events.close();
  await waitFor(() => usageRows(server, `WHERE outcome = 'cancelled'`).length === 1, 'a row of the cancelled call');
  const [cancelled] = usageRows(server, `WHERE outcome = 'cancelled'`);
  assert.equal(cancelled.is_estimated, 1);
  assert.equal(cancelled.cost_micros, 2000000); // eight bytes
  assert.equal(heldCalls(server), 0);
});

test('a worker that is killed spends what it had reserved, once; a restart keeps what was spent', { timeout: 60000 }, async (t) => {
  const held = [];
  const upstream = await startUpstream(t, (request, response) => { held.push(response); });
  const config = config_of(upstream, { budgets: { lease: '3s' }, store: recordOfItsOwn() });
  const server = await startServer(t, { mock: false, config });
  const asked = Array.from({ length: 8 }, () => chat(server, ten).catch((error) => ({ error })));
  await waitFor(() => held.length === 8, 'eight calls');
  assert.equal(heldCalls(server), 8);
  const old = [0, 1, 2, 3].map((slot) => server.killWorker(slot));
  for (const [slot, pid] of old.entries()) await server.replaced(slot, pid);
  await Promise.all(asked);
  // Until it is known that nobody renews it, it is reserved.
  assert.equal((await chat(server, ten, { max_tokens: 3 })).status, 402);
  await waitFor(() => heldCalls(server) === 0, 'the leases to run out', 20000);
  const lost = usageRows(server);
  assert.equal(lost.length, 8);
  assert.equal(sumOf(parseMetrics((await server.request('/metrics')).text), 'parley_budget_lost_total'), 8);
  assert.ok(lost.every((row) => row.outcome === 'lost' && row.cost_micros === 1000000 && row.is_estimated === 1), JSON.stringify(lost[0]));
  const over = await chat(server, ten, { max_tokens: 3 });
  assert.equal(over.status, 402);
  assert.equal(over.json.budget.spent, 8);
  assert.equal(over.json.budget.reserved, 0);
  // The next life of the same record.
  await server.stop();
  const next = await startServer(t, { mock: false, config });
  assert.equal((await chat(next, ten, { max_tokens: 3 })).json.budget.spent, 8);
});

test('workers that die in the middle of the race admit no eleventh', { timeout: 120000 }, async (t) => {
  const held = [];
  const upstream = await startUpstream(t, (request, response) => { held.push(response); });
  const server = await startServer(t, { mock: false, config: config_of(upstream, { budgets: { lease: '3s' } }) });
  server.expectLog(/budget leases not renewed|store write/);
  let ended = 0;
  const asked = Array.from({ length: 400 }, () => chat(server, ten).then(({ status }) => status, () => 0).finally(() => { ended++; }));
  await waitFor(() => ended + held.length > 40, 'the race to have begun');
  const old = [0, 1, 2].map((slot) => server.killWorker(slot)); // among them, most likely, who writes the record
  for (const [slot, pid] of old.entries()) await server.replaced(slot, pid);
  await waitFor(() => ended + held.filter((response) => !response.destroyed).length >= 400, 'the end of the race', 60000);
  for (const response of held) if (!response.destroyed) json(response, answer_of(1));
  await Promise.all(asked);
  assert.ok(upstream.requests.length <= 10, `${upstream.requests.length} calls`);
  await waitFor(() => heldCalls(server) === 0, 'everything to be settled', 20000);
  const rows = usageRows(server);
  const spent = sum(rows, 'cost_micros');
  assert.ok(spent <= 10000000 && spent >= upstream.requests.length * 1000000, `${spent} of ${upstream.requests.length} calls: ${
    JSON.stringify(rows.map(({ outcome, cost_micros, attempts }) => ({ outcome, cost_micros, attempts })))}`);
  // What is left can be spent, and not more.
  let more = 0;
  while ((await chat_held(server, held)) === 200) more++;
  assert.equal(spent + more * 1000000, 10000000);
});

test('a long call keeps what it reserved past its lease', { timeout: 60000 }, async (t) => {
  const held = [];
  const upstream = await startUpstream(t, (request, response) => { held.push(response); });
  const server = await startServer(t, { mock: false, config: config_of(upstream, { budgets: { lease: '3s' } }) });
  const asked = chat(server, ten, { max_tokens: 10 });
  await waitFor(() => held.length === 1, 'the call');
  const lapses = () => new Date(ask(server, 'SELECT lapses_at FROM budget_holds')[0].lapses_at).getTime();
  const first = lapses();
  await waitFor(() => lapses() > first + 4000, 'renewals');
  assert.equal((await chat(server, ten)).json.budget.reserved, 10);
  json(held[0], answer_of(4));
  assert.equal((await asked).status, 200);
  await waitFor(() => heldCalls(server) === 0, 'settlement');
  assert.equal(usageRows(server)[0].cost_micros, 4000000);
  assert.equal((await chat(server, ten, { max_tokens: 7 })).json.budget.spent, 4);
});

test('rows, their sums and the metrics agree, over turns and routes; nothing is lost by a stop', { timeout: 60000 }, async (t) => {
  const store = recordOfItsOwn();
  const server = await startServer(t, { config: { usage: { interval: '10s' }, store } });
  server.expectLog(/provider call failed/);
  const session = await newSession(server);
  const calls = [];
  for (let i = 0; i < 20; i++) calls.push(server.request('/v1/chat/completions', { key: keys.server, body: { messages: user } }));
  for (let i = 0; i < 5; i++) calls.push(server.request('/v1/chat/completions', { key: keys.server, body: { messages: [{ role: 'user', content: '[[mock fault=status:500]]' }] } }));
  await Promise.all(calls);
  for (let i = 0; i < 3; i++) await streamTurn(server, session.id, { input: `hi ${i}` });
  const metrics = parseMetrics((await server.request('/metrics')).text);
  // The rows of the routes wait for others; a stop does not wait so long, and writes them.
  await server.stop();
  const rows = { rows: ask(server, 'SELECT * FROM usage'), days: ask(server, 'SELECT * FROM usage_days') };
  assert.equal(rows.rows.length, 28);
  assert.equal(sum(rows.days, 'calls'), 28);
  assert.equal(sum(rows.days, 'failed_calls'), 5);
  for (const [direction, name] of [['input', 'input_tokens'], ['output', 'output_tokens'], ['cached', 'cached_tokens']]) {
    assert.equal(sum(rows.rows, name), sumOf(metrics, 'parley_tokens_total', { direction }), name);
    assert.equal(sum(rows.days, name), sum(rows.rows, name), name);
  }
  assert.equal(sum(rows.rows, 'cost_micros'), Math.round(sumOf(metrics, 'parley_cost_total') * 1e6));
  assert.ok(sum(rows.rows, 'cost_micros') > 0);
  assert.ok(rows.rows.every((row) => row.total_ms >= row.first_ms && row.provider === 'mock'));
});

test('a stop in the midst of load: as many rows as answers, of routes and of turns', { timeout: 60000 }, async (t) => {
  const store = recordOfItsOwn();
  // Rows wait for others longer than the stop takes; turns and streams of 200 ms are in progress when it comes.
  const server = await startServer(t, { config: { usage: { interval: '10s' }, store, drain: { pause: '0s', timeout: '20s' } } });
  const content = '[[mock tokens=10 interval=20]]', messages = [{ role: 'user', content }];
  const given = { whole: 0, streamed: 0, turn: 0 };
  let is_stopping = false;
  const refused = (answer) => is_stopping && [503].includes(answer.status);
  const ways = {
    whole: async () => {
      const answer = await server.request('/v1/chat/completions', { key: keys.server, body: { messages } });
      assert.ok(answer.status === 200 || refused(answer), answer.text);
      return answer.status === 200;
    },
    streamed: async () => {
      const answer = await server.request('/v1/chat/completions', { key: keys.server, body: { messages, stream: true } });
      assert.ok(answer.status === 200 ? answer.text.endsWith('data: [DONE]\n\n') : refused(answer), answer.text);
      return answer.status === 200;
    },
    turn: async () => {
      const opened = await server.request('/v1/sessions', { key: keys.server, body: {} });
      if (opened.status !== 201) return assert.ok(refused(opened), opened.text);
      const answer = await server.request(`/v1/sessions/${opened.json.id}/turns`, { key: keys.server, body: { input: content, stream: false } });
      assert.ok(answer.status === 200 || refused(answer), answer.text);
      return answer.status === 200;
    },
  };
  const users = Object.entries(ways).flatMap(([name, way]) => Array.from({ length: 12 }, async () => {
    for (;;) {
      try {
        if (await way()) given[name]++;
        else if (is_stopping) return;
      } catch (error) {
        if (is_stopping && /ECONNREFUSED|ECONNRESET|socket hang up/.test(`${error.code} ${error.message} ${error.cause?.code}`)) return;
        throw error;
      }
    }
  }));
  await waitFor(() => Object.values(given).every((n) => n > 30), 'load of all kinds');
  is_stopping = true;
  await server.stop();
  await Promise.all(users);
  const rows = usageRows({ config: { store } });
  const of = (where) => rows.filter((row) => row.outcome === 'ok' && where(row)).length;
  assert.equal(of((row) => row.turn_id === null), given.whole + given.streamed);
  assert.equal(of((row) => row.turn_id !== null), given.turn);
  assert.equal(rows.length, given.whole + given.streamed + given.turn);
});

test('without the record there is no call under a budget', { timeout: 60000 }, async (t) => {
  const upstream = await startUpstream(t, (request, response) => json(response, answer_of(1)));
  const server = await startServer(t, { mock: false, config: config_of(upstream, { store: { acquire_timeout: '2s' } }) });
  server.expectLog(/store write waits|store|usage not written|sweep/);
  assert.equal((await chat(server, ten)).status, 200);
  const db = new DatabaseSync(server.config.store.url.slice('sqlite:'.length));
  db.exec('PRAGMA busy_timeout = 5000');
  db.exec('BEGIN IMMEDIATE');
  const refused = await chat(server, ten);
  assert.equal(refused.status, 503, refused.text);
  assert.equal(refused.json.error.code, 'store_unavailable');
  assert.equal((await chat(server, keys.server)).status, 200);
  db.exec('ROLLBACK');
  db.close();
  await waitFor(async () => (await chat(server, ten)).status === 200, 'the record');
});

test('usage by day, app, key and model; for admins', async (t) => {
  const upstream = await startUpstream(t, (request, response) => json(response, answer_of(2)));
  const server = await startServer(t, { mock: false, config: config_of(upstream) });
  for (const key of [keys.server, keys.server, ten]) assert.equal((await chat(server, key, { max_tokens: 2 })).status, 200);
  await chat(server, keys.server, { model: 'free' });
  const rows = await waitFor(async () => { const all = await usage_of(server); return sum(all, 'calls') === 4 && all; }, 'rows');
  assert.equal(rows.length, 3);
  assert.ok(rows.every((row) => row.day === new Date().toISOString().slice(0, 10) && row.app_id === 'demo'));
  assert.equal(sum(rows, 'cost'), 6);
  assert.equal(sum(rows, 'input_tokens'), 28);
  const get = async (query) => (await server.request(`/admin/v1/usage?${query}`, { key: keys.admin }));
  assert.equal((await get('model=free')).json.data.length, 1);
  assert.equal((await get('app=other')).json.data.length, 0);
  assert.equal((await get(`key=${rows[0].key_id}&model=${rows[0].model}`)).json.data.length, 1);
  assert.equal((await get('from=2020-01-01&to=2020-12-31')).json.data.length, 0);
  assert.equal((await get('limit=1')).json.has_more, true);
  assert.equal((await get('from=yesterday')).status, 422);
  assert.equal((await server.request('/admin/v1/usage', { key: keys.server })).status, 403);
});
