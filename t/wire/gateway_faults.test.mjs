// The OpenAI-compatible routes before providers that fail: every fault of the mock at every phase, streamed and not, with and
// without another provider behind. Each cell: the client's bytes, who was asked how often, and the row of usage.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { answer, faults, missing, oddities } from './lib/faults.mjs';
import { usageRows } from './lib/record.mjs';
import { keys, plainProvider, startMock, startServer } from './lib/server.mjs';
import { waitFor } from './lib/wait.mjs';

const dialect = process.env.PARLEY_TEST_DIALECT ?? 'openai';
const spread = 16; // providers of one upstream: the retry budget is a provider's
const statuses = { provider_error: 502, provider_timeout: 504, rate_limited: 429 };

let server, upstream, backup, mocks;
before(async () => {
  mocks = [upstream, backup] = await Promise.all([startMock(null), startMock(null)]);
  // Only who is to be found too slow has little time: a machine with much else to do is slow, too.
  const limits = { max_retries: 1, backoff_factor: 0.01 };
  const brief = { ...limits, first_token_timeout: '1s', stall_timeout: '1s', read_timeout: '1s' };
  const provider = (name, url, more = limits) => ({ ...plainProvider(name, url, more), dialect });
  const providers = [provider('backup', backup.url), provider('gone', 'http://127.0.0.1:1/v1'), provider('brief', upstream.url, brief)];
  const price = { input: 1, output: 2 };
  const models = ['gone', 'brief'].flatMap((name) => [
    { name: `alone-${name}`, price, targets: [{ provider: name, model: 'm' }] },
    { name: `chain-${name}`, price, targets: [{ provider: name, model: 'm' }, { provider: 'backup', model: 'm' }] },
  ]);
  for (let i = 0; i < spread; i++) {
    const target = { provider: `main${i}`, model: 'm', context: 1000 };
    providers.push(provider(`main${i}`, upstream.url));
    models.push({ name: `alone-${i}`, price, targets: [target] }, { name: `chain-${i}`, price, targets: [target, { provider: 'backup', model: 'm', context: 1000 }] });
  }
  server = await startServer(null, { mock: upstream, config: { providers, models, usage: { interval: '1ms' } } });
  server.expectLog(/WARN +provider call failed/);
});
after(async () => {
  await server?.stop();
  for (const mock of mocks ?? []) await mock.stop();
});

const ask_mock = async (mock, route, body) =>
  (await fetch(`http://${mock.address}/mock/${route}`, body === undefined ? {} : { method: 'POST', body: JSON.stringify(body) })).json();

let rows_seen = 0, turn = 0;

/** Which provider is asked first. */
function main_of(f) {
  if (f.gone) return 'gone';
  return f.code === 'provider_timeout' || f.is_long ? 'brief' : `main${turn++ % spread}`;
}

async function cell({ is_streamed, has_fallback, f }) {
  for (const mock of mocks) await ask_mock(mock, 'reset', {});
  if (f.fault) await ask_mock(upstream, 'fault', { next: 8, ...f.fault, text: answer });
  await ask_mock(backup, 'fault', { next: 8, fault: 'none', text: answer });
  const main = main_of(f), model = `${has_fallback ? 'chain' : 'alone'}-${main.replace('main', '')}`;
  const seen = await server.request('/v1/chat/completions', { key: keys.server,
    body: { model, stream: is_streamed, stream_options: is_streamed ? { include_usage: true } : undefined, messages: [{ role: 'user', content: 'hi' }] } });
  const rows = await waitFor(() => { const all = usageRows(server); return all.length > rows_seen && all.slice(rows_seen); }, 'a row of usage');
  rows_seen += rows.length;
  assert.equal(rows.length, 1);
  const [first, second] = await Promise.all(mocks.map((mock) => ask_mock(mock, 'stats')));
  await ask_mock(upstream, 'reset', {});
  await waitFor(async () => (await Promise.all(mocks.map((mock) => ask_mock(mock, 'stats')))).every(({ active_requests }) => active_requests === 0), 'nothing goes on upstream');
  return { model, main, seen, row: rows[0], first: first.chats, second: second.chats };
}

/** What a client makes of a stream: {text, finish, usage, error, is_done}. */
function read_stream(text) {
  const got = { text: '', is_done: false };
  for (const part of text.split(/\r?\n\r?\n/)) {
    const data = part.split(/\r?\n/).filter((line) => line.startsWith('data:')).map((line) => line.slice(5).trim()).join('\n');
    if (data === '') continue;
    assert.ok(!got.error && !got.is_done, `something follows the end: ${part}`);
    if (data === '[DONE]') { got.is_done = true; continue; }
    const chunk = JSON.parse(data);
    got.text += chunk.choices?.[0]?.delta?.content ?? '';
    got.finish = chunk.choices?.[0]?.finish_reason ?? got.finish;
    got.usage = chunk.usage ?? got.usage;
    got.error = chunk.error;
  }
  return got;
}

function read_whole(json) {
  return { text: json.choices[0].message.content, finish: json.choices[0].finish_reason, usage: json.usage, is_done: true };
}

function check_whole(r, is_streamed, text, provider, attempts) {
  assert.equal(r.seen.status, 200, r.seen.text);
  const got = is_streamed ? read_stream(r.seen.text) : read_whole(r.seen.json);
  assert.deepEqual({ text: got.text, finish: got.finish, error: got.error, is_done: got.is_done }, { text, finish: 'stop', error: undefined, is_done: true });
  assert.equal(r.seen.headers['x-parley-provider'], provider);
  assert.equal(r.seen.headers['x-parley-attempts'], String(attempts));
  assert.deepEqual([r.row.outcome, r.row.provider, r.row.attempts, r.row.model], ['ok', provider, attempts, r.model]);
  assert.deepEqual([r.row.input_tokens, r.row.output_tokens], [got.usage.prompt_tokens, got.usage.completion_tokens]);
  assert.equal(r.row.cost_micros, got.usage.prompt_tokens + 2 * got.usage.completion_tokens);
  assert.ok(r.row.output_tokens > 0);
}

/** Nothing that looks like a whole answer, and nothing to be paid. */
function check_failed(r, f, is_streamed, provider, attempts) {
  const code = f.code;
  if (is_streamed && f.kept !== '') {
    const got = read_stream(r.seen.text);
    assert.equal(r.seen.status, 200);
    assert.deepEqual({ text: got.text, finish: got.finish, is_done: got.is_done }, { text: f.kept, finish: undefined, is_done: false });
    assert.ok(got.error.message && got.error.type && got.error.code, JSON.stringify(got.error));
  } else {
    assert.equal(r.seen.status, f.passed_on ?? statuses[code], r.seen.text);
    assert.ok(r.seen.json.error.message);
    if (!f.passed_on) assert.equal(r.seen.json.error.code, code);
    if (f.message) assert.match(f.message, new RegExp(`^${r.seen.json.error.message.replace(/[.()]/g, '\\$&')}`));
    if (f.retry_after) assert.ok(Number(r.seen.headers['retry-after']) >= f.retry_after[0] && Number(r.seen.headers['retry-after']) <= f.retry_after[1]);
  }
  assert.equal(r.seen.headers['x-parley-attempts'], String(attempts));
  assert.deepEqual([r.row.outcome, r.row.provider, r.row.attempts], [code, provider, attempts]);
  assert.deepEqual([r.row.input_tokens, r.row.output_tokens, r.row.cached_tokens, r.row.cost_micros], [0, 0, 0, 0]);
}

test('the table has every fault of the mock', () => assert.deepEqual(missing(['huge_line']), [])); // which gateway.test has

for (const f of faults) {
  test(`${f.name} ${f.phase}`, async () => {
    for (const is_streamed of [true, false]) {
      if (!is_streamed && f.whole === null) continue;
      for (const has_fallback of [false, true]) {
        const g = is_streamed ? f : { ...f, ...f.whole };
        const r = await cell({ is_streamed, has_fallback, f });
        // What is no stream is held until it is whole: nothing was given yet.
        const has_given = is_streamed && f.kept !== '';
        const tries = g.again ? 2 : 1, goes_on = has_fallback && f.elsewhere !== false && !has_given;
        const what = `${is_streamed ? 'streamed' : 'whole'} ${has_fallback ? 'with' : 'without'} fallback: ${r.seen.status} ${r.seen.text}`;
        assert.equal(r.first - (f.reconnects && r.first > tries ? 1 : 0), f.gone ? 0 : tries, what);
        assert.equal(r.second, goes_on ? 1 : 0, what);
        if (goes_on) check_whole(r, is_streamed, answer, 'backup', tries + 1);
        else check_failed(r, g, is_streamed, r.main, tries);
      }
    }
  });
}

for (const f of oddities) {
  test(`a whole answer: ${f.name}`, async () => {
    for (const is_streamed of [true, false]) {
      const r = await cell({ is_streamed, has_fallback: true, f });
      check_whole(r, is_streamed, is_streamed ? f.text ?? answer : answer, r.main, 1);
      assert.deepEqual([r.first, r.second], [1, 0]);
    }
  });
}
