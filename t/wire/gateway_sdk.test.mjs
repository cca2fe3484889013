// The OpenAI-compatible routes with the clients that people use: OpenAI's own SDK and Vercel's AI SDK, pinned.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { createOpenAI } from '@ai-sdk/openai';
import { embedMany, generateText, streamText, tool } from 'ai';
import OpenAI from 'openai';
import { z } from 'zod';
import { keys, startMock, startServer } from './lib/server.mjs';
import { waitFor } from './lib/wait.mjs';

let server, mock, client, ai;
before(async () => {
  mock = await startMock(null);
  server = await startServer(null, { mock, config: { providers: [{ name: 'mock', base_url: mock.url, api_key: 'sk-test', http_client: { max_retries: 0, cooldown_max: '0s' }, breaker: { failures: 0, failure_rate: 0 } }] } });
  server.expectLog(/provider call failed/);
  client = new OpenAI({ baseURL: `${server.url}/v1`, apiKey: keys.server, maxRetries: 0 });
  ai = createOpenAI({ baseURL: `${server.url}/v1`, apiKey: keys.server });
});
after(async () => {
  await server?.stop();
  await mock?.stop();
});

const user = (content) => [{ role: 'user', content }];
const stats = async () => (await fetch(`http://${mock.address}/mock/stats`)).json();
const look = { type: 'function', function: { name: 'look', parameters: { type: 'object', properties: { at: { type: 'string' } } } } };

test('openai: an answer, and who gave it', async () => {
  const { data, response } = await client.chat.completions.create({ model: 'default', messages: user('hello') }).withResponse();
  assert.equal(data.choices[0].message.content, 'echo: hello');
  assert.equal(data.usage.completion_tokens, 2);
  assert.equal(response.headers.get('x-parley-model'), 'mock');
});

test('openai: a stream, with the usage when it is asked for', async () => {
  for (const include_usage of [true, false]) {
    const stream = await client.chat.completions.create({ model: 'default', messages: user('[[mock tokens=30]]'), stream: true, stream_options: { include_usage } });
    let text = '', usage;
    for await (const chunk of stream) {
      text += chunk.choices[0]?.delta.content ?? '';
      usage ??= chunk.usage ?? undefined;
    }
    assert.equal(text, Array.from({ length: 30 }, (_, i) => `tok${i}`).join(' '));
    assert.equal(usage?.completion_tokens, include_usage ? 30 : undefined);
  }
});

test('openai: tools, streamed and not, and their results', async () => {
  const messages = user('[[mock tool=look args={"at":"the \\"moon\\""}]] go');
  const whole = await client.chat.completions.create({ model: 'default', messages, tools: [look] });
  assert.equal(whole.choices[0].finish_reason, 'tool_calls');
  const runner = client.chat.completions.stream({ model: 'default', messages, tools: [look] });
  const { choices: [{ message }] } = await runner.finalChatCompletion();
  assert.deepEqual(JSON.parse(message.tool_calls[0].function.arguments), { at: 'the "moon"' });
  const next = await client.chat.completions.create({ model: 'default', tools: [look], messages: [...messages, message, { role: 'tool', tool_call_id: message.tool_calls[0].id, content: 'seen' }] });
  assert.equal(next.choices[0].message.content, 'tool results: seen');
});

test('openai: embeddings, models', async () => {
  const { data } = await client.embeddings.create({ model: 'default', input: ['a', 'b'], dimensions: 3, encoding_format: 'float' });
  assert.equal(data.length, 2);
  assert.equal(data[0].embedding.length, 3);
  const names = [];
  for await (const model of client.models.list()) names.push(model.id);
  assert.deepEqual(names, ['default']);
  assert.equal((await client.models.retrieve('default')).object, 'model');
});

test('openai: errors have their classes', async () => {
  const ask = (content, options = {}) => client.chat.completions.create({ model: 'default', messages: user(content), ...options });
  await assert.rejects(ask('[[mock fault=status:400]]'), (e) => e instanceof OpenAI.BadRequestError && /mock fault status 400/.test(e.message));
  await assert.rejects(ask('[[mock fault=status:429 retry_after=3]]'), (e) => e instanceof OpenAI.RateLimitError && e.headers.get('retry-after') === '3');
  await assert.rejects(ask('[[mock fault=status:500]]'), OpenAI.InternalServerError);
  await assert.rejects(ask('x', { model: 'nobody' }), OpenAI.NotFoundError);
  await assert.rejects(new OpenAI({ baseURL: `${server.url}/v1`, apiKey: 'ps_of_nobody_0123456789abcdef01', maxRetries: 0 }).models.list(), OpenAI.AuthenticationError);
  await assert.rejects(new OpenAI({ baseURL: `${server.url}/v1`, apiKey: keys.client, maxRetries: 0 }).models.list(), OpenAI.PermissionDeniedError);
});

test('openai: a stream that breaks throws', async () => {
  for (const fault of ['cut_mid', 'malformed', 'no_finish', 'error_event']) {
    const stream = await client.chat.completions.create({ model: 'default', messages: user(`[[mock tokens=9 fault=${fault}]]`), stream: true });
    let text = '';
    await assert.rejects(async () => {
      for await (const chunk of stream) text += chunk.choices[0]?.delta.content ?? '';
    }, OpenAI.APIError, fault);
    assert.equal(text.split(' ').length, fault === 'no_finish' ? 9 : 2, fault);
  }
});

test('openai: abort stops the provider', async () => {
  const { aborted } = await stats();
  const stream = await client.chat.completions.create({ model: 'default', messages: user('[[mock tokens=1000 interval=20]]'), stream: true });
  for await (const _ of stream) {
    stream.controller.abort();
    break;
  }
  await waitFor(async () => (await stats()).aborted > aborted, 'end at the provider');
});

test('ai: text, streamed and not', async () => {
  const whole = await generateText({ model: ai.chat('default'), prompt: 'hello', maxRetries: 0 });
  assert.equal(whole.text, 'echo: hello');
  assert.equal(whole.finishReason, 'stop');
  const streamed = streamText({ model: ai.chat('default'), prompt: '[[mock tokens=20]]', maxRetries: 0 });
  let text = '';
  for await (const part of streamed.textStream) text += part;
  assert.equal(text.split(' ').length, 20);
  assert.equal((await streamed.usage).outputTokens, 20);
});

test('ai: a tool is called and its result told', async () => {
  const calls = [];
  const tools = { look: tool({ description: 'looks', inputSchema: z.object({ at: z.string() }), execute: async ({ at }) => { calls.push(at); return `${at} seen`; } }) };
  const prompt = '[[mock tool=look args={"at":"moon"}]] go';
  const { stepCountIs } = await import('ai');
  const whole = await generateText({ model: ai.chat('default'), prompt, tools, stopWhen: stepCountIs(3), maxRetries: 0 });
  assert.match(whole.text, /moon seen/);
  const streamed = streamText({ model: ai.chat('default'), prompt, tools, stopWhen: stepCountIs(3), maxRetries: 0 });
  assert.match(await streamed.text, /moon seen/);
  assert.deepEqual(calls, ['moon', 'moon']);
});

test('ai: embeddings, errors, abort', async () => {
  const { embeddings } = await embedMany({ model: ai.embedding('default'), values: ['a', 'b'], maxRetries: 0 });
  assert.equal(embeddings.length, 2);
  await assert.rejects(generateText({ model: ai.chat('default'), prompt: '[[mock fault=status:400]]', maxRetries: 0 }), /mock fault status 400/);
  const errors = [];
  const broken = streamText({ model: ai.chat('default'), prompt: '[[mock tokens=9 fault=cut_mid]]', maxRetries: 0, onError: ({ error }) => errors.push(error) });
  for await (const _ of broken.textStream);
  assert.equal(errors.length, 1);
  const { aborted } = await stats();
  const abort = new AbortController();
  const stopped = streamText({ model: ai.chat('default'), prompt: '[[mock tokens=1000 interval=20]]', maxRetries: 0, abortSignal: abort.signal });
  for await (const _ of stopped.textStream) abort.abort();
  await waitFor(async () => (await stats()).aborted > aborted, 'end at the provider');
});
