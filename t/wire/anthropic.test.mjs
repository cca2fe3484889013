// A provider that speaks Anthropic's Messages: turns and the OpenAI-compatible routes do not notice.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import OpenAI from 'openai';
import { keys, newSession, startMock, startServer, streamTurn } from './lib/server.mjs';

let server, mock, client;
before(async () => {
  mock = await startMock(null);
  server = await startServer(null, { mock, config: { providers: [{ name: 'mock', dialect: 'anthropic', base_url: mock.url, api_key: 'sk-ant-test',
    http_client: { max_retries: 0, cooldown_max: '0s' }, breaker: { failures: 0, failure_rate: 0 } }] } });
  server.expectLog(/provider call failed/);
  client = new OpenAI({ baseURL: `${server.url}/v1`, apiKey: keys.server, maxRetries: 0 });
});
after(async () => {
  await server?.stop();
  await mock?.stop();
});

const user = (content) => [{ role: 'user', content }];
const look = { type: 'function', function: { name: 'look', description: 'looks', parameters: { type: 'object', properties: {} } } };
const last = async () => (await (await fetch(`http://${mock.address}/mock/stats`)).json()).last;

async function text_of(params) {
  let text = '', usage, finish;
  for await (const chunk of await client.chat.completions.create({ model: 'default', stream: true, stream_options: { include_usage: true }, ...params })) {
    text += chunk.choices[0]?.delta.content ?? '';
    finish = chunk.choices[0]?.finish_reason ?? finish;
    usage = chunk.usage ?? usage;
  }
  return { text, usage, finish };
}

test('what is asked arrives in the other dialect', async () => {
  await client.chat.completions.create({ model: 'default', max_completion_tokens: 77, temperature: 0.5, stop: 'END', user: 'u1', tools: [look], tool_choice: 'required', parallel_tool_calls: false,
    messages: [{ role: 'system', content: 'Be brief.' }, ...user('one'), ...user([{ type: 'text', text: 'two' }, { type: 'image_url', image_url: { url: 'data:image/png;base64,aGk=' } }]),
      { role: 'assistant', content: null, tool_calls: [{ id: 'call_a', type: 'function', function: { name: 'look', arguments: '{"at":"x"}' } }] },
      { role: 'tool', tool_call_id: 'call_a', content: 'seen' }, ...user('three')] });
  const { path, headers, body } = await last();
  assert.equal(path, '/v1/messages');
  assert.equal(headers['x-api-key'], 'sk-ant-test');
  assert.equal(headers['anthropic-version'], '2023-06-01');
  assert.equal(headers.authorization, undefined);
  assert.deepEqual(body, { model: 'mock', max_tokens: 77, temperature: 0.5, stop_sequences: ['END'], metadata: { user_id: 'u1' }, system: [{ type: 'text', text: 'Be brief.' }],
    messages: [
      { role: 'user', content: [{ type: 'text', text: 'one' }, { type: 'text', text: 'two' }, { type: 'image', source: { type: 'base64', media_type: 'image/png', data: 'aGk=' } }] },
      { role: 'assistant', content: [{ type: 'tool_use', id: 'call_a', name: 'look', input: { at: 'x' } }] },
      { role: 'user', content: [{ type: 'tool_result', tool_use_id: 'call_a', content: [{ type: 'text', text: 'seen' }] }, { type: 'text', text: 'three' }] }],
    tools: [{ name: 'look', description: 'looks', input_schema: { type: 'object', properties: {} } }], tool_choice: { type: 'any', disable_parallel_tool_use: true } });
});

test('an answer, streamed and not: text, usage, the reason of its end', async () => {
  const whole = await client.chat.completions.create({ model: 'default', messages: user('hello [[mock cached=1]]') });
  assert.equal(whole.choices[0].message.content, 'echo: hello');
  assert.equal(whole.choices[0].finish_reason, 'stop');
  assert.equal(whole.object, 'chat.completion');
  assert.deepEqual([whole.usage.prompt_tokens, whole.usage.completion_tokens, whole.usage.prompt_tokens_details.cached_tokens], [6, 2, 1]);
  const { text, usage, finish } = await text_of({ messages: user('[[mock tokens=30 reasoning=2]]') });
  assert.equal(text, Array.from({ length: 30 }, (_, i) => `tok${i}`).join(' '));
  assert.equal(usage.completion_tokens, 32);
  assert.equal(finish, 'stop');
  assert.equal((await text_of({ messages: user('[[mock tokens=3 finish=length]]') })).finish, 'length');
  assert.equal((await client.chat.completions.create({ model: 'default', messages: user('[[mock tokens=3 refusal]]') })).choices[0].finish_reason, 'content_filter');
});

test('tools: several calls in one answer, their pieces interleaved, their results', async () => {
  const messages = user('[[mock tool=look args={"at":"the \\"moon\\" ü"} tool=look args={"at":2}]] go');
  const runner = client.chat.completions.stream({ model: 'default', messages, tools: [look] });
  const { choices: [{ message, finish_reason }] } = await runner.finalChatCompletion();
  assert.equal(finish_reason, 'tool_calls');
  assert.deepEqual(message.tool_calls.map((call) => JSON.parse(call.function.arguments)), [{ at: 'the "moon" ü' }, { at: 2 }]);
  const whole = await client.chat.completions.create({ model: 'default', messages, tools: [look] });
  assert.deepEqual(whole.choices[0].message.tool_calls.map((call) => JSON.parse(call.function.arguments)), [{ at: 'the "moon" ü' }, { at: 2 }]);
  const results = message.tool_calls.map(({ id }, i) => ({ role: 'tool', tool_call_id: id, content: `seen ${i}` }));
  assert.equal((await text_of({ tools: [look], messages: [...messages, message, ...results] })).text, 'tool results: seen 0; seen 1');
});

test('what the model thinks is told, signed, and goes back before the results of its tools', async () => {
  const messages = user('[[mock reasoning=3 tool=look args={}]] go');
  const whole = (await client.chat.completions.create({ model: 'default', messages, tools: [look] })).choices[0].message;
  const streamed = { role: 'assistant', content: null, tool_calls: whole.tool_calls, thinking_blocks: [] };
  let reasoning = '';
  for await (const { choices } of await client.chat.completions.create({ model: 'default', stream: true, messages, tools: [look] })) {
    reasoning += choices[0]?.delta.reasoning_content ?? '';
    streamed.thinking_blocks.push(...choices[0]?.delta.thinking_blocks ?? []);
  }
  assert.equal(reasoning, whole.reasoning_content);
  assert.ok(whole.thinking_blocks[0].signature && whole.thinking_blocks[0].thinking === reasoning, JSON.stringify(whole));
  for (const message of [whole, streamed]) {
    const more = [...messages, message, { role: 'tool', tool_call_id: whole.tool_calls[0].id, content: 'seen' }];
    assert.match((await text_of({ messages: more, tools: [look] })).text, /seen/);
    const [block] = (await last()).body.messages[1].content;
    assert.deepEqual(block, whole.thinking_blocks[0]);
  }
});

test('turns speak it, too: text, a tool, a history', async () => {
  const { id } = await newSession(server, {}, keys.server);
  const first = await streamTurn(server, id, { input: 'hi [[mock tokens=5]]' }, keys.server);
  assert.equal(first.at(-1).event, 'turn.completed');
  assert.equal(first.at(-1).data.message.content, 'tok0 tok1 tok2 tok3 tok4');
  assert.equal(first.at(-1).data.usage.output_tokens, 5);
  const second = await streamTurn(server, id, { input: 'and you?' }, keys.server);
  assert.equal(second.at(-1).data.message.content, 'echo: and you?');
  assert.deepEqual((await last()).body.messages.map(({ role }) => role), ['user', 'assistant', 'user']);
});

test('a failure is one: before the answer, in its midst, in what is no stream', async () => {
  const ask = (fault, stream) => server.request('/v1/chat/completions', { key: keys.server, body: { stream, messages: user(`[[mock tokens=5 fault=${fault}]]`) } });
  for (const fault of ['cut_mid', 'cut_fin', 'cut_clean', 'malformed', 'no_finish', 'bad_utf8', 'error_event']) {
    const { status, text } = await ask(fault, true);
    assert.equal(status, 200, fault);
    assert.ok(!text.includes('[DONE]'), `${fault}: ${text}`);
    assert.ok(JSON.parse(text.trimEnd().split('\n\n').at(-1).slice(6)).error.message, fault);
  }
  for (const fault of ['cut_mid', 'malformed', 'empty', 'status:503', 'wrong_type']) assert.equal((await ask(fault, false)).status, 502, fault);
  const refused = await ask('status:400', false);
  assert.equal(refused.status, 400);
  assert.match(refused.json.error.message, /mock fault status 400/);
  assert.equal((await ask('status:429 retry_after=2', true)).status, 429);
});

test('what the dialect cannot say is refused, with the reason', async () => {
  const ask = (route, body) => server.request(route, { key: keys.server, body });
  const n = await ask('/v1/chat/completions', { n: 2, messages: user('x') });
  assert.match(n.json.error.message, /one choice/);
  assert.equal(n.status, 400);
  assert.match((await ask('/v1/chat/completions', { response_format: { type: 'json_object' }, messages: user('x') })).json.error.message, /response_format/);
  assert.match((await ask('/v1/chat/completions', { messages: user([{ type: 'input_audio', input_audio: {} }]) })).json.error.message, /texts and images/);
  assert.match((await ask('/v1/embeddings', { input: 'x' })).json.error.message, /no such route/);
});
