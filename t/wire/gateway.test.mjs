// The OpenAI-compatible routes, as bytes: what goes through unchanged, what is refused, what a failure looks like, who is held back.
import assert from 'node:assert/strict';
import http from 'node:http';
import net from 'node:net';
import { after, before, beforeEach, test } from 'node:test';
import { parseMetrics, sumOf } from './lib/metrics.mjs';
import { keys, startMock, startServer } from './lib/server.mjs';
import { respondStream, startUpstream } from './lib/upstream.mjs';
import { waitFor } from './lib/wait.mjs';

const narrow = 'ps_test_narrow_key_0123456789abcdef';
const counted = 'ps_test_counted_key_0123456789abcdef';
const tokened = 'ps_test_tokened_key_0123456789abcdef';
let server, mock, upstream;
before(async () => {
  mock = await startMock(null);
  upstream = await startUpstream(null, (request, response) => response.end('{}'));
  server = await startServer(null, { mock, config: {
    providers: [
      { name: 'mock', base_url: mock.url, api_key: 'sk-test', http_client: { max_retries: 0, cooldown_max: '0s', concurrent_requests: 100, max_connections: 100, requests_per_minute: 0 }, breaker: { failures: 0, failure_rate: 0 } },
      { name: 'bytes', base_url: upstream.url, api_key: 'sk-secret', http_client: { max_retries: 0, cooldown_max: '0s', concurrent_requests: 100, max_connections: 100, requests_per_minute: 0 }, breaker: { failures: 0, failure_rate: 0 } },
    ],
    models: [
      { name: 'default', targets: [{ provider: 'mock', model: 'mock' }] },
      { name: 'bytes', targets: [{ provider: 'bytes', model: 'their "model"' }] },
      { name: 'bytes/large', targets: [{ provider: 'bytes', model: 'large' }] },
    ],
    keys: [
      { kind: 'client', app: 'demo', secret: keys.client },
      { kind: 'server', app: 'demo', secret: keys.server },
      { kind: 'server', app: 'demo', secret: narrow, models: ['bytes*'] },
      { kind: 'server', app: 'demo', secret: counted, rpm: 3 },
      { kind: 'server', app: 'demo', secret: tokened, tpm: 100 },
    ],
  } });
  server.expectLog(/provider call failed/);
});
after(async () => {
  await server?.stop();
  await mock?.stop();
  await upstream?.close();
});
beforeEach(() => { upstream.requests.length = 0; });

const user = (content) => [{ role: 'user', content }];
const chat = (body, options = {}) => server.request('/v1/chat/completions', {
  key: keys.server, body: typeof body === 'string' ? { messages: user(body) } : body, ...options });
const raw_chat = (text) => chat(undefined, { method: 'POST', body: text, headers: { 'content-type': 'application/json' } });
const stats = async () => (await fetch(`http://${mock.address}/mock/stats`)).json();
const event = (data) => `data: ${typeof data === 'string' ? data : JSON.stringify(data)}\n\n`;
const delta = (content, more = {}) => ({ id: 'c', object: 'chat.completion.chunk', choices: [{ index: 0, delta: { content }, finish_reason: null }], ...more });
const finish = { id: 'c', choices: [{ index: 0, delta: {}, finish_reason: 'stop' }] };
const usage = { id: 'c', choices: [], usage: { prompt_tokens: 11, completion_tokens: 22, total_tokens: 33 } };

test('an answer and a stream, with the headers that say where it came from', async () => {
  const whole = await chat({ model: 'default', messages: user('hi') });
  assert.equal(whole.status, 200, whole.text);
  assert.equal(whole.json.choices[0].message.content, 'echo: hi');
  assert.equal(whole.headers['x-parley-provider'], 'mock');
  assert.equal(whole.headers['x-parley-model'], 'mock');
  assert.equal(whole.headers['x-parley-attempts'], '1');
  assert.match(whole.headers['x-request-id'], /^req_/);
  const streamed = await chat({ stream: true, messages: user('[[mock tokens=3]]') });
  assert.match(streamed.headers['content-type'], /^text\/event-stream/);
  assert.equal(streamed.headers['x-parley-provider'], 'mock');
  assert.ok(streamed.text.endsWith('data: [DONE]\n\n'));
  assert.ok(!streamed.text.includes('prompt_tokens'), 'the usage that nobody asked for');
});

test('a request arrives as it was sent but for the model and the usage of a stream', async () => {
  upstream.respond = (request, response) => response.end('{"choices":[]}');
  const sent = '{ "x_vendor" : {"a":[1.50,  2e3,null],"model":"m"},\n"messages":[{"role":"user","content":"h\\u00e4 ü"}],"model":"bytes" ,"temperature":0.10}';
  await chat(undefined, { method: 'POST', body: sent, headers: { 'content-type': 'application/json', 'x-request-id': 'abc', traceparent: '00-1-2-3' } });
  const [first] = upstream.requests;
  assert.equal(first.text, sent.replace('"model":"bytes" ', '"model":"their \\"model\\"" '));
  assert.equal(first.url, '/v1/chat/completions');
  assert.equal(first.headers.authorization, 'Bearer sk-secret');
  assert.equal(first.headers['x-request-id'], 'abc');
  assert.equal(first.headers.traceparent, '00-1-2-3');
  upstream.respond = (request, response) => respondStream(response, [event(delta('a')), event(finish), event('[DONE]')]);
  await raw_chat('{"model":"bytes","stream" : true, "messages":[]}');
  assert.equal(upstream.requests[1].text, '{"model":"their \\"model\\"","stream" : true,"stream_options":{"include_usage":true}, "messages":[]}');
});

test('a stream comes as it was given, whatever it says and however it was cut into pieces', async () => {
  const said = [
    ': a comment\n\n',
    event({ choices: [{ index: 1, delta: { role: 'assistant', content: '' }, logprobs: { content: [] } }] }),
    event({ choices: [{ index: 0, delta: { tool_calls: [{ index: 0, id: 'call_1', type: 'function', function: { name: 'f', arguments: '{"a' } }] } }] }),
    'event: vendor\r\nid: 7\r\ndata: {"choices":[{"index":0,\r\ndata: "delta":{"reasoning_content":"hm \\u00fc ü"}}]}\r\n\r\n',
    event({ choices: [{ index: 0, delta: { content: 'é€😀' }, logprobs: { content: [{ token: 'x', logprob: -0.1 }] } }], x_vendor: 1 }),
    event({ choices: [{ index: 0, delta: {}, finish_reason: 'tool_calls' }] }),
    event({ choices: [{ index: 1, delta: {}, finish_reason: 'stop' }], usage: { prompt_tokens: 1, completion_tokens: 2 } }),
    event('[DONE]'),
  ];
  const bytes = Buffer.from(said.join(''));
  for (const size of [bytes.length, 1, 7, 100]) {
    const pieces = Array.from({ length: Math.ceil(bytes.length / size) }, (_, i) => bytes.subarray(i * size, (i + 1) * size));
    upstream.respond = (request, response) => respondStream(response, pieces);
    const { status, text } = await chat({ model: 'bytes', stream: true, n: 2, messages: [] });
    assert.equal(status, 200);
    assert.equal(text, bytes.toString());
  }
});

test('each event leaves when it has come', async () => {
  let next;
  upstream.respond = async (request, response) => {
    response.writeHead(200, { 'content-type': 'text/event-stream' });
    for (const data of [delta('1'), delta('2'), finish, '[DONE]']) {
      response.write(event(data));
      await new Promise((resolve) => { next = resolve; });
    }
    response.end();
  };
  const events = await server.stream('/v1/chat/completions', { key: keys.server, body: { model: 'bytes', stream: true, messages: [] } });
  let seen = 0;
  for await (const _ of events) { // would wait for ever for an event that is held back
    seen++;
    next();
  }
  assert.equal(seen, 4);
});

test('the usage is given to who asked for it: the provider\'s own, or an estimate that says so', async () => {
  const ask = (stream_options) => chat({ model: 'bytes', stream: true, messages: [], stream_options });
  upstream.respond = (request, response) => respondStream(response, [event(delta('a')), event(finish), event(usage), event('[DONE]')]);
  assert.equal((await ask(undefined)).text, [delta('a'), finish, '[DONE]'].map(event).join(''));
  assert.equal((await ask({ include_usage: false })).text, [delta('a'), finish, '[DONE]'].map(event).join(''));
  assert.equal((await ask({ include_usage: true })).text, [delta('a'), finish, usage, '[DONE]'].map(event).join(''));
  upstream.respond = (request, response) => respondStream(response, [event(delta('12345678')), event(finish), event('[DONE]')]);
  const parts = (await ask({ include_usage: true })).text.split('\n\n');
  assert.equal(parts.length, 5);
  const { usage: estimate, choices } = JSON.parse(parts[2].slice(6));
  assert.deepEqual(choices, []);
  assert.equal(estimate.completion_tokens, 2);
  assert.equal(estimate.estimated, true);
  assert.equal(parts[3], 'data: [DONE]');
});

test('tokens are counted per model, and their price', async () => {
  const before_count = parseMetrics((await server.request('/metrics')).text);
  upstream.respond = (request, response) => respondStream(response, [event(delta('a')), event(finish), event(usage), event('[DONE]')]);
  await chat({ model: 'bytes', stream: true, messages: [] });
  const now = parseMetrics((await server.request('/metrics')).text);
  const grown = (direction) => sumOf(now, 'parley_tokens_total', { model: 'bytes', direction }) - sumOf(before_count, 'parley_tokens_total', { model: 'bytes', direction });
  assert.equal(grown('input'), 11);
  assert.equal(grown('output'), 22);
});

test('a broken stream ends with an error and without [DONE]', async () => {
  for (const fault of ['cut_mid', 'cut_fin', 'cut_clean', 'malformed', 'no_finish', 'bad_utf8', 'error_event']) {
    const { status, text } = await chat({ stream: true, messages: user(`[[mock tokens=5 fault=${fault}]]`) });
    assert.equal(status, 200, fault);
    assert.ok(!text.includes('[DONE]'), fault);
    const last = text.trimEnd().split('\n\n').at(-1);
    const { error } = JSON.parse(last.slice('data: '.length));
    assert.ok(error.message && error.type && error.code, `${fault}: ${last}`);
    assert.equal(text.match(/"error"/g).length, 1, fault);
    for (const part of text.trimEnd().split('\n\n').slice(0, -1)) JSON.parse(part.slice(6));
  }
});

test('a stream that is whole is whole: no [DONE] from the provider, a linger, CRLF, drips, large events', async () => {
  for (const fault of ['no_done', 'linger', 'crlf', 'drip', 'duplicate_finish', 'huge_line']) {
    const { status, text } = await chat({ stream: true, messages: user(`[[mock tokens=5 fault=${fault}]]`) });
    assert.equal(status, 200, fault);
    assert.match(text, /data: \[DONE\]\r?\n\r?\n$/, fault);
    assert.ok(!text.includes('"error"'), fault);
    if (fault === 'huge_line') assert.ok(text.length > 2 << 20);
  }
});

test('a large event that is cut is ended before the error is told', async () => {
  upstream.respond = (request, response) => respondStream(response, [event(delta('a')), `data: {"x":"${'y'.repeat(40000)}`]);
  const { text } = await chat({ model: 'bytes', stream: true, messages: [] });
  const parts = text.split('\n\n');
  assert.equal(parts.length, 4);
  assert.ok(JSON.parse(parts[2].slice(6)).error);
});

test('a failure before the first token has its status', async () => {
  const cases = { 'status:503': 502, reset: 502, close: 502, wrong_type: 502, empty: 502, 'cut_clean after=0': 502, 'error_event after=0': 502, 'status:429 retry_after=7': 429, 'status:401': 502 };
  for (const [fault, status] of Object.entries(cases)) {
    for (const stream of [true, false]) {
      if (!stream && /error_event|empty/.test(fault)) continue;
      const answer = await chat({ stream, messages: user(`[[mock tokens=5 fault=${fault}]]`) });
      assert.equal(answer.status, status, `${fault}: ${answer.text}`);
      assert.ok(answer.json.error.message && answer.json.request_id, fault);
      assert.equal(answer.headers['x-parley-provider'], 'mock');
      if (status === 429) assert.equal(answer.headers['retry-after'], '7');
    }
  }
});

test('an answer that is cut is 502, never 200', async () => {
  for (const fault of ['cut_mid', 'cut_fin', 'malformed', 'empty', 'bad_utf8']) {
    const { status, json } = await chat(`[[mock tokens=50 fault=${fault}]]`);
    assert.equal(status, 502, fault);
    assert.equal(json.error.code, 'provider_error', fault);
  }
});

test('a large answer goes by without being held, and one that is cut cannot be taken for whole', async () => {
  const body = JSON.stringify({ data: [{ b64_json: 'A'.repeat(5 << 20) }], usage: { input_tokens: 5, output_tokens: 7 } });
  upstream.respond = (request, response) => response.writeHead(200, { 'content-type': 'application/json' }).end(body);
  const images = (options) => server.request('/v1/images/generations', { key: keys.server, body: { model: 'bytes', prompt: 'x' }, ...options });
  const { status, text, headers } = await images();
  assert.equal(status, 200);
  assert.equal(headers['content-type'], 'application/json');
  assert.ok(text === body);
  assert.equal(upstream.requests[0].url, '/v1/images/generations');
  upstream.respond = (request, response) => {
    response.writeHead(200, { 'content-type': 'application/json', 'content-length': body.length });
    response.write(body.slice(0, 3 << 20), () => response.destroy());
  };
  await assert.rejects(images(), /aborted|terminated|hang up|ECONNRESET/);
});

test('what the provider refuses is told as it said it', async () => {
  const refusal = '{"error": {"message":"no such thing","type":"invalid_request_error","param":"messages","code":"x","vendor":[1]}}';
  upstream.respond = (request, response) => response.writeHead(422, { 'content-type': 'application/json' }).end(refusal);
  for (const stream of [true, false]) {
    const { status, text, headers } = await chat({ model: 'bytes', stream, messages: [] });
    assert.equal(status, 422);
    assert.equal(text, refusal);
    assert.equal(headers['x-parley-attempts'], '1');
  }
  upstream.respond = (request, response) => response.writeHead(400, { 'content-type': 'application/json' }).end('{"error":{"message":"your key sk-secret is odd"}}');
  const { text } = await chat({ model: 'bytes', messages: [] });
  assert.ok(!text.includes('sk-secret'), text);
});

test('a body that cannot be is refused before anybody is asked', async () => {
  const cases = [['', 'invalid_json'], ['[]', 'invalid_json'], ['{"model":', 'invalid_json'], ['{"model":"default","model":"bytes"}', 'invalid_request'],
    [`{"a":${'['.repeat(200)}${']'.repeat(200)}}`, 'invalid_json'], ['{"model":7}', 'invalid_value'], ['{"stream":"yes"}', 'invalid_value'], ['{"model":"nobody"}', 'not_found']];
  for (const [text, code] of cases) {
    const { status, json } = await raw_chat(text);
    assert.equal(json?.error.code, code, text.slice(0, 50));
    assert.ok(status >= 400 && status < 500);
  }
  assert.equal((await chat(undefined, { method: 'POST', body: '{}', headers: { 'content-type': 'text/plain' } })).status, 415);
  assert.equal(upstream.requests.length, 0);
});

test('bodies of megabytes pass', async () => {
  upstream.respond = (request, response) => response.end('{"choices":[]}');
  const content = 'x'.repeat(20 << 20);
  const { status } = await chat({ model: 'bytes', messages: user(content) });
  assert.equal(status, 200);
  assert.equal(upstream.requests[0].text.length, JSON.stringify({ model: 'their "model"', messages: user(content) }).length);
  assert.equal((await chat(undefined, { method: 'POST', body: `{"a":"${'x'.repeat(33 << 20)}"}`, headers: { 'content-type': 'application/json' } })).status, 413);
});

test('server keys only, and only for the models of the key', async () => {
  assert.equal((await chat({ messages: [] }, { key: undefined })).status, 401);
  assert.equal((await chat({ messages: [] }, { key: keys.client })).status, 403);
  assert.equal((await server.request('/v1/models', { key: keys.client })).status, 403);
  const refused = await chat({ model: 'default', messages: user('x') }, { key: narrow });
  assert.equal(refused.status, 403);
  assert.equal(refused.json.error.param, 'model');
  upstream.respond = (request, response) => response.end('{"choices":[]}');
  assert.equal((await chat({ model: 'bytes/large', messages: [] }, { key: narrow })).status, 200);
  const list = await server.request('/v1/models', { key: narrow });
  assert.deepEqual(list.json.data.map(({ id, object }) => [id, object]), [['bytes', 'model'], ['bytes/large', 'model']]);
  assert.equal((await server.request('/v1/models', { key: keys.server })).json.data.length, 3);
  assert.equal((await server.request('/v1/models/bytes%2Flarge', { key: narrow })).json.id, 'bytes/large');
  assert.equal((await server.request('/v1/models/default', { key: narrow })).status, 404);
});

test('a key\'s requests per minute hold over all workers; the refusal names the limit and its end', async () => {
  const all = await Promise.all(Array.from({ length: 12 }, () => chat('x', { key: counted })));
  assert.equal(all.filter(({ status }) => status === 200).length, 3);
  const refused = all.find(({ status }) => status === 429);
  assert.match(refused.json.error.message, /3 requests per minute; try again in \d+ s/);
  assert.ok(Number(refused.headers['retry-after']) > 0 && Number(refused.headers['retry-after']) <= 60);
  assert.equal(refused.headers['x-ratelimit-limit'], '3');
  const { of, unit, amount, remaining, resets_at } = refused.json.limit;
  assert.deepEqual([of, unit, amount, remaining], ['key', 'requests per minute', 3, 0]);
  assert.ok(new Date(resets_at) > Date.now() - 1000 && new Date(resets_at) - Date.now() <= 60000);
  assert.ok(refused.json.request_id);
});

test('tokens per minute: reserved before, settled after', async () => {
  const ask = (max_tokens) => chat({ model: 'bytes', messages: [], max_tokens }, { key: tokened });
  upstream.respond = (request, response) => response.writeHead(500).end();
  assert.equal((await ask(90)).status, 502);
  assert.equal((await ask(90)).status, 502, 'a call that failed has used nothing');
  let release;
  upstream.respond = (request, response) => { release = () => response.end(JSON.stringify({ choices: [], usage: { prompt_tokens: 30, completion_tokens: 10 } })); };
  const first = ask(80);
  await waitFor(() => release, 'request at the provider');
  const refused = await ask(80);
  assert.equal(refused.status, 429);
  assert.match(refused.json.error.message, /100 tokens per minute/);
  release();
  assert.equal((await first).status, 200);
  upstream.respond = (request, response) => response.end(JSON.stringify({ choices: [], usage: { prompt_tokens: 500, completion_tokens: 10 } }));
  assert.equal((await ask(20)).status, 200, 'what was not used was given back');
  assert.equal((await ask(1)).status, 429, 'what was used beyond the reservation counts');
});

test('embeddings, and /responses where the provider has it', async () => {
  const embeddings = await server.request('/v1/embeddings', { key: keys.server, body: { input: ['a', 'b'], dimensions: 4 } });
  assert.equal(embeddings.json.data.length, 2);
  const ended = 'event: response.completed\ndata: {"type":"response.completed","response":{"usage":{"input_tokens":1,"output_tokens":2}}}\n\n';
  const said = 'event: response.output_text.delta\ndata: {"type":"response.output_text.delta","delta":"hi"}\n\n';
  const ask = () => server.request('/v1/responses', { key: keys.server, body: { model: 'bytes', stream: true, input: 'x' } });
  upstream.respond = (request, response) => respondStream(response, [said, ended]);
  assert.equal((await ask()).text, said + ended);
  assert.equal(upstream.requests[0].text, '{"model":"their \\"model\\"","stream":true,"input":"x"}');
  upstream.respond = (request, response) => respondStream(response, [said]);
  assert.match((await ask()).text, /^event: response.output_text.delta\n.*\n\nevent: error\ndata: \{"type":"error","error":/);
  assert.equal((await server.request('/v1/responses', { key: keys.server, body: { input: 'x' } })).status, 404, 'the mock has none');
});

const named = (type, more = {}) => `event: ${type}\ndata: ${JSON.stringify({ type, ...more })}\n\n`;
/** The tokens that a call is counted with, and what it says. */
async function counted_call(route, body) {
  const tokens = async () => {
    const families = parseMetrics((await server.request('/metrics')).text);
    return ['input', 'output', 'cached'].map((direction) => sumOf(families, 'parley_tokens_total', { model: 'bytes', direction }));
  };
  const was = await tokens();
  const answer = await server.request(route, { key: keys.server, body: { model: 'bytes', ...body } });
  return { ...answer, tokens: (await tokens()).map((n, i) => n - was[i]) };
}

test('/responses: the usage is picked out of the last event, however large it is, and of what is no stream', async () => {
  const usage = { input_tokens: 11, input_tokens_details: { cached_tokens: 4 }, output_tokens: 22, output_tokens_details: { reasoning_tokens: 9 }, total_tokens: 33 };
  const begun = named('response.created', { response: { id: 'resp_1', usage: null } }) + named('response.output_text.delta', { delta: 'hi' });
  for (const length of [1, 15000, 100000, 2000000]) {
    const output = [{ type: 'message', content: [{ type: 'output_text', text: `"usage": {"input_tokens": 9999, "output_tokens": 9999}, \\"${'é'.repeat(length)}` }] }];
    for (const response of [{ id: 'resp_1', output, usage }, { usage, output, id: 'resp_1' }]) {
      for (const size of [1 << 30, 1000, 16411]) {
        const bytes = Buffer.from(begun + named('response.completed', { response }));
        if (bytes.length / size > 200) continue;
        upstream.respond = (request, answer) => respondStream(answer, Array.from({ length: Math.ceil(bytes.length / size) }, (_, i) => bytes.subarray(i * size, (i + 1) * size)));
        const streamed = await counted_call('/v1/responses', { stream: true, input: 'x' });
        assert.ok(streamed.text === bytes.toString());
        assert.deepEqual(streamed.tokens, [11, 22, 4], `${length} in pieces of ${size}`);
      }
      const body = JSON.stringify({ ...response, object: 'response', status: 'completed' });
      upstream.respond = (request, answer) => answer.writeHead(200, { 'content-type': 'application/json' }).end(body);
      const whole = await counted_call('/v1/responses', { input: 'x' });
      assert.ok(whole.text === body);
      assert.deepEqual(whole.tokens, [11, 22, 4], `${length}`);
    }
  }
});

test('/responses: ends properly, fails explicitly', async () => {
  const begun = named('response.created', { response: { id: 'resp_1' } }), said = named('response.output_text.delta', { delta: 'hi' });
  const ask = async (pieces, options) => {
    upstream.respond = (request, answer) => respondStream(answer, pieces, options);
    return counted_call('/v1/responses', { stream: true, input: 'x' });
  };
  for (const end of [named('response.completed', { response: { usage: null } }), named('response.incomplete', { response: { incomplete_details: { reason: 'max_output_tokens' } } })])
    assert.equal((await ask([begun, said, end], { end: false })).text, begun + said + end, 'without waiting for the end of the body');
  // The provider's own words, once; nothing is billed.
  for (const words of [named('response.failed', { response: { error: { code: 'server_error', message: 'no' } } }), named('error', { code: 'x', message: 'no', param: null })]) {
    const failed = await ask([begun, said, words]);
    assert.equal(failed.text, begun + said + words);
    assert.deepEqual(failed.tokens, [0, 0, 0]);
  }
  // Ours, where it has none.
  for (const pieces of [[begun, said], [begun, said, 'event: response.output_text.delta\ndata: {"delta":\n\n'], [begun, said, 'event: response.completed\ndata: {"type":"resp']]) {
    const { text, tokens } = await ask(pieces);
    const last = text.trimEnd().split('\n\n').at(-1);
    assert.match(last, /^event: error\ndata: /);
    const { type, error } = JSON.parse(last.split('\n')[1].slice(6));
    assert.deepEqual([type, error.code], ['error', 'provider_error']);
    assert.deepEqual(tokens, [0, 0, 0]);
  }
  // Before anything was said it is an answer with a status.
  assert.equal((await ask([begun])).status, 502);
  assert.equal((await ask([begun, named('response.failed', { response: { error: { code: 'rate_limit_exceeded', message: 'no' } } })])).status, 429);
  const refused = await ask([begun, named('response.failed', { response: { error: { code: 'invalid_prompt', message: 'no' } } })]);
  assert.equal(refused.status, 200);
  assert.match(refused.text, /invalid_prompt/);
});

test('/images/generations: as it comes, with its usage; one that was begun and has no end is an error', async () => {
  const usage = { input_tokens: 5, output_tokens: 7, total_tokens: 12 };
  const part = named('image_generation.partial_image', { b64_json: 'A'.repeat(100000), partial_image_index: 0 });
  const done = named('image_generation.completed', { b64_json: 'B'.repeat(200000), usage });
  const ask = (pieces) => {
    upstream.respond = (request, answer) => respondStream(answer, pieces);
    return counted_call('/v1/images/generations', { stream: true, partial_images: 1, prompt: 'x' });
  };
  const whole = await ask([part, done]);
  assert.ok(whole.text === part + done);
  assert.deepEqual(whole.tokens, [5, 7, 0]);
  const cut = await ask([part]);
  assert.ok(cut.text.startsWith(part));
  assert.equal(JSON.parse(cut.text.slice(part.length + 6)).error.code, 'provider_error');
  assert.deepEqual(cut.tokens, [0, 0, 0]);
  upstream.respond = (request, answer) => answer.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify({ created: 1, data: [{ b64_json: 'C'.repeat(3 << 20) }], usage }));
  assert.deepEqual((await counted_call('/v1/images/generations', { prompt: 'x' })).tokens, [5, 7, 0]);
});

test('a stream leaves its connection to the next request, whatever that is', async () => {
  const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
  const seen = [];
  const ask = (body, headers = {}) => new Promise((resolve, reject) => {
    const request = http.request(`${server.url}/v1/chat/completions`, { method: 'POST', agent,
      headers: { authorization: `Bearer ${keys.server}`, 'content-type': 'application/json', ...headers } });
    request.on('response', async (response) => {
      let text = '';
      for await (const part of response) text += part;
      seen.push(request.reusedSocket);
      resolve({ text, connection: response.headers.connection });
    });
    request.on('error', reject);
    request.end(JSON.stringify(body));
  });
  // A body with its length, one in chunks, a plain answer in between, one that is larger than what is put back.
  for (const [i, headers] of [{ 'content-length': 0 }, { 'transfer-encoding': 'chunked' }, {}].entries()) {
    const body = { stream: true, messages: user(`[[mock tokens=${100 * i + 1}]]`) };
    if ('content-length' in headers) headers['content-length'] = JSON.stringify(body).length;
    const { text, connection } = await ask(body, headers);
    assert.equal(text.match(/"content":"/g).length, 100 * i + 2); // the first says the role
    assert.ok(text.endsWith('data: [DONE]\n\n'));
    assert.equal(connection, 'keep-alive');
    assert.equal(JSON.parse((await ask({ messages: user('hi') })).text).choices[0].message.content, 'echo: hi');
  }
  assert.deepEqual(seen, [false, true, true, true, true, true]);
  const large = await ask({ stream: true, messages: user('x'.repeat(100000)) });
  assert.equal(large.connection, 'close');
  assert.ok(large.text.endsWith('data: [DONE]\n\n'));
  assert.equal(JSON.parse((await ask({ messages: user('hi') })).text).choices[0].message.content, 'echo: hi');
  assert.deepEqual(seen.slice(-2), [true, false]);
  agent.destroy();
});

test('what a client sends during a stream is answered after it; what came with the stream ends the connection', async () => {
  const head = (length) => `POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${keys.server}\r\nContent-Type: application/json\r\nContent-Length: ${length}\r\n`;
  const body = JSON.stringify({ stream: true, messages: user('[[mock tokens=20 interval=10]]') });
  const first = `${head(body.length)}\r\n${body}`, last = 'GET /health/live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n';
  for (const is_early of [true, false]) {
    const socket = net.connect(...server.address.split(':').reverse());
    let text = '';
    socket.write(is_early ? first + last : first);
    for await (const part of socket) {
      if (text === '' && !is_early) socket.write(last);
      text += part;
    }
    assert.match(text, /data: \[DONE\]/);
    assert.equal(text.match(/HTTP\/1\.1 200 OK/g).length, is_early ? 1 : 2);
    assert.equal(/^Connection: (.*)\r$/m.exec(text)[1], is_early ? 'close' : 'keep-alive');
  }
});

test('clients that go right behind their second request harm nobody', async () => {
  const workers = server.workers();
  const body = JSON.stringify({ stream: true, messages: user('[[mock tokens=3]]') });
  const request = `POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${keys.server}\r\nContent-Type: application/json\r\nContent-Length: ${body.length}\r\n\r\n${body}`;
  for (let i = 0; i < 500; i++) {
    const socket = net.connect(...server.address.split(':').reverse());
    let has_left = false;
    socket.on('error', () => {}).on('data', (part) => {
      if (has_left || !String(part).includes('[DONE]')) return;
      has_left = true;
      socket.write(request);
      if (i % 2 === 0) socket.end();
      else socket.destroy();
    });
    socket.write(request);
    await new Promise((resolve) => { socket.on('close', resolve); });
  }
  for (let i = 0; i < 20; i++) assert.equal((await chat('hi')).status, 200);
  assert.deepEqual(server.workers(), workers);
});

test('a client that goes stops the provider at once; one that said so does not', async () => {
  for (const stream of [true, false]) {
    const before_stats = await stats();
    const abort = new AbortController();
    const asked = fetch(`${server.url}/v1/chat/completions`, { method: 'POST', signal: abort.signal, headers: { authorization: `Bearer ${keys.server}`, 'content-type': 'application/json', connection: 'close' },
      body: JSON.stringify({ stream, messages: user('[[mock tokens=1000 interval=20]]') }) });
    if (stream) await (await asked).body.getReader().read();
    await waitFor(async () => (await stats()).active_requests > before_stats.active_requests, 'request at the provider');
    const left_at = Date.now();
    asked.catch(() => {});
    abort.abort();
    await waitFor(async () => (await stats()).aborted > before_stats.aborted, 'end at the provider', 5000);
    assert.ok(Date.now() - left_at < 15000, 'before its own end');
  }
  // Also one that has had answers over that connection before.
  const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
  for (const content of ['hi', 'ho', '[[mock tokens=1000 interval=20]]']) {
    const before_stats = await stats();
    const response = await new Promise((resolve, reject) => {
      const request = http.request(`${server.url}/v1/chat/completions`, { method: 'POST', agent, headers: { authorization: `Bearer ${keys.server}`, 'content-type': 'application/json' } }, resolve);
      request.on('error', reject);
      request.end(JSON.stringify({ stream: true, messages: user(content) }));
    });
    if (content.startsWith('h')) {
      for await (const part of response) assert.ok(part.length > 0);
      continue;
    }
    assert.ok(response.req.reusedSocket);
    response.once('error', () => {});
    response.socket.destroy();
    await waitFor(async () => (await stats()).aborted > before_stats.aborted, 'end at the provider', 5000);
  }
  agent.destroy();
  const before_stats = await stats();
  const abort = new AbortController();
  const answer = await fetch(`${server.url}/v1/chat/completions`, { method: 'POST', signal: abort.signal, headers: { authorization: `Bearer ${keys.server}`, 'content-type': 'application/json', 'x-parley-on-disconnect': 'continue' },
    body: JSON.stringify({ stream: true, messages: user('[[mock tokens=50 interval=10]]') }) });
  await answer.body.getReader().read();
  abort.abort();
  await waitFor(async () => (await stats()).completed > before_stats.completed, 'whole answer at the provider');
  assert.equal((await stats()).aborted, before_stats.aborted);
});
