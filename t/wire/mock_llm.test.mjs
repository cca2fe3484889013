// mock_llm - the upstream that all other tests lean on does what its directives say.
import assert from 'node:assert/strict';
import net from 'node:net';
import { after, before, beforeEach, test } from 'node:test';
import { request } from './lib/http.mjs';
import { startMock } from './lib/server.mjs';
import { waitFor } from './lib/wait.mjs';

let mock;
before(async () => { mock = await startMock(null); });
after(() => mock?.stop());
beforeEach(() => request(`http://${mock.address}/mock/reset`, { body: {} }));

const tools = [{ type: 'function', function: { name: 'look' } }];
const stats = async () => (await request(`http://${mock.address}/mock/stats`)).json;
const user = (content) => [{ role: 'user', content }];

function chat(messages, options = {}, headers = {}) {
  return request(`${mock.url}/chat/completions`, { body: { model: 'mock', messages: typeof messages === 'string' ? user(messages) : messages, ...options }, headers });
}

/** The events of a streamed answer: parsed, '[DONE]' as it is. */
async function events(messages, options = {}, headers = {}) {
  const { status, headers: got, text } = await chat(messages, { stream: true, ...options }, headers);
  assert.equal(status, 200);
  assert.match(got['content-type'], /^text\/event-stream/);
  return text.split(/\r?\n/).filter((line) => line.startsWith('data: ')).map((line) => line.slice(6))
    .map((data) => (data === '[DONE]' ? data : JSON.parse(data)));
}

const content = (list) => list.map((event) => event.choices?.[0]?.delta.content ?? '').join('');

/** What a raw socket gets until the other side closes: {text, how}. */
function bytes(body, headers = '') {
  return new Promise((resolve) => {
    const socket = net.connect(Number(mock.address.split(':')[1]), '127.0.0.1');
    const text = JSON.stringify(body);
    let got = '', how = 'fin';
    socket.on('data', (part) => { got += part; });
    socket.on('error', (error) => { how = error.code; });
    socket.on('close', () => resolve({ text: got, how }));
    socket.write(`POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n${headers}content-length: ${Buffer.byteLength(text)}\r\n\r\n${text}`);
  });
}

test('a whole answer echoes the user, with usage', async () => {
  const { json } = await chat('Grüße [[mock cached=1]]');
  assert.equal(json.choices[0].message.content, 'echo: Grüße');
  assert.equal(json.choices[0].finish_reason, 'stop');
  assert.deepEqual(json.usage, { prompt_tokens: 7, completion_tokens: 2, total_tokens: 9, prompt_tokens_details: { cached_tokens: 1 } });
});

test('a streamed answer has role, deltas, finish_reason and [DONE], usage only when asked', async () => {
  const plain = await events('[[mock tokens=3]]');
  assert.equal(plain[0].choices[0].delta.role, 'assistant');
  assert.equal(content(plain), 'tok0 tok1 tok2');
  assert.equal(plain.at(-2).choices[0].finish_reason, 'stop');
  assert.equal(plain.at(-1), '[DONE]');
  const asked = await events('[[mock tokens=3]]', { stream_options: { include_usage: true } });
  assert.deepEqual(asked.at(-2).choices, []);
  assert.equal(asked.at(-2).usage.completion_tokens, 3);
});

test('stamps say when it was asked and when each word was given', async () => {
  const stamps = content(await events('[[mock stamped tokens=4 interval=5]]')).trim().split(' ')
    .map((word) => /^@(\d+):(\d+);$/.exec(word).slice(1).map(Number));
  assert.equal(stamps.length, 4);
  assert.ok(stamps.every(([asked]) => asked === stamps[0][0]));
  const given = stamps.map(([, at]) => at);
  assert.ok(given[0] >= stamps[0][0] && given[3] - given[0] >= 14000, `${given}`); // microseconds, of timers that count ms
  const { json } = await chat('[[mock stamped tokens=2 first=20]]');
  const [, asked, at] = /^tok0 tok1 @(\d+):(\d+);$/.exec(json.choices[0].message.content);
  assert.ok(at - asked >= 19000, `${at - asked}`);
});

test('a burst comes before the interval is kept', async () => {
  const given = content(await events('[[mock stamped tokens=43 burst=40 interval=100]]')).trim().split(' ').map((word) => Number(word.slice(1, -1).split(':')[1]));
  assert.equal(given.length, 43);
  assert.ok(given[39] - given[0] < 3000000 && given[42] - given[39] >= 299000, `${given}`); // 40 at that interval would take 3.9 s
});

test('directives come from header, model and message, the later one wins', async () => {
  assert.equal(content(await events('hi', {}, { 'x-mock': 'tokens=2' })), 'tok0 tok1');
  assert.equal(content(await events('hi', { model: 'mock-tokens-1' })), 'tok0');
  assert.equal(content(await events('hi', { model: 'mock-tokens-1' }, { 'x-mock': 'tokens=2' })), 'tok0');
  assert.equal(content(await events('hi [[mock tokens=3]]', { model: 'mock-tokens-1' })), 'tok0 tok1 tok2');
  assert.equal(content(await events('hi [[mock text="a \\"b\\" ü"]] there')), 'a "b" ü');
  assert.equal((await chat('[[mock nonsense=1]]')).status, 400);
  assert.equal((await chat('[[mock tokens=1')).status, 400);
});

test('tools are called in pieces that are interleaved, then their results are told', async () => {
  const list = await events('[[mock tool=look args={"at":[[1]]} tool=b args={"x":"y"}]]', { tools });
  const calls = [];
  for (const event of list) {
    for (const { index, id, function: f } of event.choices?.[0]?.delta.tool_calls ?? []) {
      calls[index] ??= { id, name: f.name, text: '', pieces: 0 };
      calls[index].text += f.arguments;
      calls[index].pieces++;
    }
  }
  assert.deepEqual(calls.map(({ id, name, text }) => [id, name, JSON.parse(text)]), [['call_0', 'look', { at: [[1]] }], ['call_1', 'b', { x: 'y' }]]);
  assert.ok(calls.every(({ pieces }) => pieces > 2));
  assert.equal(list.at(-2).choices[0].finish_reason, 'tool_calls');

  const history = [...user('[[mock tool=look]] go'), { role: 'assistant', tool_calls: [{ id: 'a' }] }, { role: 'tool', tool_call_id: 'a', content: 'seen' }];
  assert.equal((await chat(history, { tools })).json.choices[0].message.content, 'tool results: seen');
  history[0].content = '[[mock tool=look hops=endless]]';
  assert.equal((await chat(history, { tools })).json.choices[0].finish_reason, 'tool_calls');
  assert.equal((await chat('[[mock tool=look]] go')).json.choices[0].message.content, 'echo: go');
});

test('a history that a provider would refuse is refused', async () => {
  const call = { role: 'assistant', tool_calls: [{ id: 'a' }, { id: 'b' }] };
  const result = (id) => ({ role: 'tool', tool_call_id: id, content: '' });
  for (const messages of [[], [...user('x'), call], [...user('x'), call, result('a')], [...user('x'), result('a')],
    [...user('x'), call, result('a'), result('c')], [{ role: 'nobody', content: '' }]]) {
    const { status, json } = await chat(messages);
    assert.equal(status, 400, JSON.stringify(messages));
    assert.equal(json.error.type, 'invalid_request_error');
  }
  assert.equal((await chat([...user('x'), call, result('b'), result('a')])).status, 200);
});

test('statuses, with Retry-After and without', async () => {
  const limited = await chat('[[mock fault=status:429 retry_after=2]]');
  assert.equal(limited.status, 429);
  assert.equal(limited.headers['retry-after'], '2');
  assert.equal(limited.json.error.code, 'rate_limit_exceeded');
  assert.equal((await chat('[[mock fault=status:503]]')).headers['retry-after'], undefined);
});

test('faults for the next requests, and for the first ones with a key', async () => {
  await request(`http://${mock.address}/mock/fault`, { body: { next: 2, fault: 'status:500' } });
  assert.deepEqual([(await chat('a')).status, (await request(`${mock.url}/models`)).status, (await chat('a')).status], [500, 500, 200]);
  const flaky = '[[mock fault=status:500 times=2 key=k1]]';
  assert.deepEqual([(await chat(flaky)).status, (await chat(flaky)).status, (await chat(flaky)).status], [500, 500, 200]);
  assert.equal((await request(`http://${mock.address}/mock/fault`, { body: { fault: 'no such' } })).status, 400);
});

test('streams end as their faults say', async () => {
  const body = (fault) => ({ model: 'mock', stream: true, messages: user(`[[mock tokens=4 ${fault}]]`) });
  const is_whole = /"finish_reason":"stop"/;
  for (const [fault, how, has, has_not] of [
    ['fault=reset', 'ECONNRESET', /^$/, /HTTP/],
    ['fault=close', 'fin', /^$/, /HTTP/],
    ['fault=cut_mid', 'ECONNRESET', /tok1/, /tok2/],
    ['fault=cut_fin', 'fin', /tok1/, /tok2|\r\n0\r\n/],
    ['fault=cut_mid after=1', 'ECONNRESET', /tok0/, /tok1/],
  ]) {
    const got = await bytes(body(fault));
    assert.equal(got.how, how, fault);
    assert.match(got.text, has, fault);
    assert.doesNotMatch(got.text, has_not, fault);
  }
  for (const [fault, has, has_not] of [
    ['fault=cut_clean', /tok1[^]*\r\n0\r\n\r\n$/, /tok2|DONE/],
    ['fault=malformed', /"del\n\n[^]*tok3[^]*DONE/, /^$/],
    ['fault=no_done', is_whole, /DONE/],
    ['fault=no_finish', /tok3[^]*DONE/, is_whole],
    ['fault=duplicate after=1', /tok1[^]*tok1[^]*tok2/, /tok0[^]*tok0/],
    ['fault=duplicate_finish', /"stop"[^]*"stop"/, /^$/],
    ['fault=error_event', /"error":\{/, /tok2|DONE/],
    ['fault=empty', /\r\n\r\n0\r\n\r\n$/, /data:/],
    ['fault=crlf', /: comment\r\n\r\n[^]*tok3/, /[^\r]\n/],
    ['fault=drip', /\r\n1\r\nd\r\n1\r\na\r\n1\r\nt/, /tok/],
    ['fault=wrong_type', /text\/html/, /data:/],
    ['fault=huge_line size=100000', /x{100000}/, /^$/],
    ['fault=bad_utf8', /"content":"\ufffd"/, /^$/],
  ]) {
    const got = await bytes(body(fault), 'connection: close\r\n');
    assert.match(got.text, has, fault);
    assert.doesNotMatch(got.text, has_not, fault);
  }
});

test('who leaves a silent, stalled or slow answer is counted', async () => {
  let gone = 0;
  for (const fault of ['fault=silence', 'fault=stall', 'fault=slow_first first=60000', 'tokens=100000 interval=10', 'fault=linger']) {
    const socket = net.connect(Number(mock.address.split(':')[1]), '127.0.0.1');
    const text = JSON.stringify({ model: 'mock', stream: true, messages: user(`[[mock ${fault}]]`) });
    socket.write(`POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: ${text.length}\r\n\r\n${text}`);
    await waitFor(async () => (await stats()).active_streams === 1, `${fault} to begin`);
    socket.destroy();
    await waitFor(async () => (await stats()).active_streams === 0, `${fault} to end`);
    assert.equal((await stats()).aborted, ++gone, fault);
  }
});

test('the pace is kept, whole answers take their time too', async () => {
  for (const stream of [true, false]) {
    const begun = performance.now();
    await chat('[[mock tokens=5 interval=30 first=50]]', { stream });
    assert.ok(performance.now() - begun >= 50 + 4 * 30 - 5);
  }
});

test('the last request is shown with its headers and its body', async () => {
  await chat('hello', { temperature: 0.5 }, { 'x-some': 'thing' });
  const { last, chats } = await stats();
  assert.equal(chats, 1);
  assert.equal(last.headers['x-some'], 'thing');
  assert.equal(last.body.temperature, 0.5);
  assert.equal((await request(`http://${mock.address}/mock/requests`)).json.length, 1);
});

test('embeddings and models', async () => {
  const ask = async (body) => (await request(`${mock.url}/embeddings`, { body })).json;
  const one = await ask({ model: 'e', input: 'text', dimensions: 4 });
  assert.equal(one.data[0].embedding.length, 4);
  const two = await ask({ model: 'e', input: ['text', 'other'], dimensions: 4 });
  assert.deepEqual(two.data[0].embedding, one.data[0].embedding);
  assert.notDeepEqual(two.data[1].embedding, one.data[0].embedding);
  const { json } = await request(`${mock.url}/models`);
  assert.ok(json.data.some(({ id }) => id === 'mock'));
  assert.equal((await request(`${mock.url}/nothing`)).status, 404);
});
