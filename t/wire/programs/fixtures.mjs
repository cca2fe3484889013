// fixtures - a tool server with what @modelcontextprotocol/conformance expects of one, made with the official SDK: of 2026-07-28
// and, with sessions, of the 2025 revisions, at one address. Says "listening <port>".
import http from 'node:http';
import { randomBytes, randomUUID } from 'node:crypto';
import { NodeStreamableHTTPServerTransport, toNodeHandler } from '@modelcontextprotocol/node';
import {
  CLIENT_CAPABILITIES_META_KEY, McpServer, ResourceTemplate, acceptedContent, classifyInboundRequest, createMcpHandler, createRequestStateCodec, inputRequired,
} from '@modelcontextprotocol/server';
import { z } from 'zod';

const image = 'iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8DwHwAFBQIAX8jx0gAAAABJRU5ErkJggg==';
const audio = 'UklGRiYAAABXQVZFZm10IBAAAAABAAEAQB8AAAB9AAACABAAZGF0YQIAAAA=';
const codec = createRequestStateCodec({ key: new Uint8Array(randomBytes(32)) });
const say = (...content) => ({ content: content.map((part) => (typeof part === 'string' ? { type: 'text', text: part } : part)) });
const picture = { type: 'image', data: image, mimeType: 'image/png' };
const embedded = (uri, mimeType, text) => ({ type: 'resource', resource: { uri, mimeType, text } });
const pause = () => new Promise((resolve) => setTimeout(resolve, 20));
const form = (message, properties) => ({ message, requestedSchema: { type: 'object', properties, required: Object.keys(properties) } });
const elicit = (message, name, type) => inputRequired.elicit(form(message, { [name]: { type } }));
const sample = (text) => inputRequired.createMessage({ messages: [{ role: 'user', content: { type: 'text', text } }], maxTokens: 50 });

let modern;
const changed = { tools: false, prompts: false }; // what is toggled by the triggers

/** Asks the client in the midst of a call, as older revisions do. */
async function asked(context, method, params, answer) {
  try {
    return say(answer(await context.mcpReq.send({ method, params })));
  } catch (error) {
    return say(`not supported or error: ${error.message}`);
  }
}

const options = (names) => names.map(([value, title]) => ({ const: value, title }));
const defaults = {
  name: { type: 'string', description: 'User name', default: 'John Doe' }, age: { type: 'integer', description: 'User age', default: 30 },
  score: { type: 'number', description: 'User score', default: 95.5 }, status: { type: 'string', enum: ['active', 'inactive', 'pending'], default: 'active' },
  verified: { type: 'boolean', default: true },
};
const enums = {
  untitledSingle: { type: 'string', enum: ['option1', 'option2', 'option3'] },
  titledSingle: { type: 'string', oneOf: options([['value1', 'First Option'], ['value2', 'Second Option'], ['value3', 'Third Option']]) },
  legacyEnum: { type: 'string', enum: ['opt1', 'opt2', 'opt3'], enumNames: ['Option One', 'Option Two', 'Option Three'] },
  untitledMulti: { type: 'array', minItems: 1, maxItems: 3, items: { type: 'string', enum: ['option1', 'option2', 'option3'] } },
  titledMulti: { type: 'array', minItems: 1, maxItems: 3, items: { anyOf: options([['value1', 'First Choice'], ['value2', 'Second Choice'], ['value3', 'Third Choice']]) } },
};
const eliciting = (message, properties) => (_, context) => asked(context, 'elicitation/create', { message, requestedSchema: { type: 'object', properties, required: [] } },
  ({ action, content }) => `Elicitation completed: action=${action}, content=${JSON.stringify(content ?? {})}`);

const tools = {
  test_simple_text: () => say('This is a simple text response for testing.'),
  test_image_content: () => say(picture),
  test_audio_content: () => say({ type: 'audio', data: audio, mimeType: 'audio/wav' }),
  test_embedded_resource: () => say(embedded('test://embedded-resource', 'text/plain', 'This is an embedded resource content.')),
  test_multiple_content_types: () => say('Multiple content types test:', picture, embedded('test://mixed-content-resource', 'application/json', '{"test":"data","value":123}')),
  test_error_handling: () => { throw new Error('This tool intentionally returns an error for testing'); },
  async test_tool_with_logging(_, { mcpReq }) {
    for (const data of ['Tool execution started', 'Tool processing data', 'Tool execution completed']) {
      await mcpReq.notify({ method: 'notifications/message', params: { level: 'info', data } });
      await pause();
    }
    return say('Tool with logging executed successfully');
  },
  async test_tool_with_progress(_, { mcpReq }) {
    const progressToken = mcpReq._meta?.progressToken ?? 0;
    for (const progress of [0, 50, 100]) {
      await mcpReq.notify({ method: 'notifications/progress', params: { progressToken, progress, total: 100 } });
      await pause();
    }
    return say(String(progressToken));
  },
  async test_logging_tool(_, { mcpReq }) { await mcpReq.log('info', 'for who has named a level'); return say('logged'); },
  test_streaming_elicitation: () => say('no request came on this stream'),
  test_elicitation_sep1034_defaults: eliciting('Please review', defaults),
  test_elicitation_sep1330_enums: eliciting('Please select', enums),
  test_missing_capability: (_, { mcpReq }) => (mcpReq.inputResponses?.llm_answer ? say('sampled') : inputRequired({ inputRequests: { llm_answer: sample('Say pong') } })),
  test_input_required_result_elicitation(_, { mcpReq }) {
    const name = acceptedContent(mcpReq.inputResponses, 'user_name')?.name;
    return typeof name === 'string' ? say(`Hello, ${name}!`) : inputRequired({ inputRequests: { user_name: elicit('What is your name?', 'name', 'string') } });
  },
  test_input_required_result_sampling(_, { mcpReq }) {
    const answer = mcpReq.inputResponses?.capital_question;
    return answer ? say(`Sampling response: ${answer.content?.text}`) : inputRequired({ inputRequests: { capital_question: sample('What is the capital of France?') } });
  },
  test_input_required_result_list_roots(_, { mcpReq }) {
    const roots = mcpReq.inputResponses?.client_roots?.roots;
    return Array.isArray(roots) ? say(`${roots.length} root(s): ${roots.map(({ uri }) => uri)}`) : inputRequired({ inputRequests: { client_roots: inputRequired.listRoots() } });
  },
  async test_input_required_result_request_state(_, { mcpReq }) {
    if (acceptedContent(mcpReq.inputResponses, 'confirm') && mcpReq.requestState()) return say('state-ok: verified');
    return inputRequired({ inputRequests: { confirm: elicit('Please confirm', 'ok', 'boolean') }, requestState: await codec.mint({ tool: 'state', nonce: randomUUID() }) });
  },
  async test_input_required_result_tampered_state(_, { mcpReq }) {
    if (acceptedContent(mcpReq.inputResponses, 'confirm') && mcpReq.requestState() !== undefined) return say('integrity-ok');
    return inputRequired({ inputRequests: { confirm: elicit('Please confirm', 'ok', 'boolean') }, requestState: await codec.mint({ tool: 'tampered', nonce: randomUUID() }) });
  },
  async test_input_required_result_multiple_inputs(_, { mcpReq }) {
    const { greeting, client_roots: roots } = mcpReq.inputResponses ?? {};
    const name = acceptedContent(mcpReq.inputResponses, 'user_name')?.name;
    if (typeof name === 'string' && greeting?.content?.text && Array.isArray(roots?.roots)) return say(`${greeting.content.text} ${name}, ${roots.roots.length} root(s)`);
    return inputRequired({
      inputRequests: { user_name: elicit('What is your name?', 'name', 'string'), greeting: sample('Generate a greeting'), client_roots: inputRequired.listRoots() },
      requestState: await codec.mint({ tool: 'multiple', nonce: randomUUID() }),
    });
  },
  async test_input_required_result_multi_round(_, { mcpReq }) {
    const state = mcpReq.requestState();
    const round = async (next, key, question, member, more = {}) => inputRequired({
      inputRequests: { [key]: elicit(question, member, 'string') }, requestState: await codec.mint({ round: next, nonce: randomUUID(), ...more }),
    });
    if (!state?.round) return round(1, 'step1', 'What is your name?', 'name');
    if (state.round === 1) return round(2, 'step2', 'Which color?', 'color', { name: acceptedContent(mcpReq.inputResponses, 'step1')?.name ?? 'unknown' });
    return say(`Multi-round complete: ${state.name} likes ${acceptedContent(mcpReq.inputResponses, 'step2')?.color}`);
  },
  test_input_required_result_capabilities(_, { mcpReq }) {
    const declared = mcpReq.envelope?.[CLIENT_CAPABILITIES_META_KEY] ?? {};
    const inputRequests = {
      ...(declared.elicitation ? { user_name: elicit('What is your name?', 'name', 'string') } : {}),
      ...(declared.sampling ? { greeting: sample('Generate a greeting') } : {}), ...(declared.roots ? { client_roots: inputRequired.listRoots() } : {}),
    };
    return mcpReq.inputResponses || Object.keys(inputRequests).length === 0 ? say('done') : inputRequired({ inputRequests });
  },
  test_trigger_tool_change: () => { changed.tools = !changed.tools; modern.notify.toolsChanged(); return say('told'); },
  test_trigger_prompt_change: () => { changed.prompts = !changed.prompts; modern.notify.promptsChanged(); return say('told'); },
};

const message = (content) => ({ role: 'user', content });
const text = (value) => ({ type: 'text', text: value });

function addPrompts(server) {
  server.registerPrompt('test_simple_prompt', { description: 'Simple' }, () => ({ messages: [message(text('This is a simple prompt for testing.'))] }));
  server.registerPrompt('test_prompt_with_arguments', { description: 'With arguments', argsSchema: z.object({ arg1: z.string(), arg2: z.string() }) },
    ({ arg1, arg2 }) => ({ messages: [message(text(`Prompt with arguments: arg1='${arg1}', arg2='${arg2}'`))] }));
  server.registerPrompt('test_prompt_with_embedded_resource', { description: 'With a resource', argsSchema: z.object({ resourceUri: z.string() }) },
    ({ resourceUri }) => ({ messages: [message(embedded(resourceUri, 'text/plain', 'Embedded resource content for testing.')), message(text('Please process it.'))] }));
  server.registerPrompt('test_prompt_with_image', { description: 'With an image' }, () => ({ messages: [message(picture), message(text('Please analyze the image above.'))] }));
  server.registerPrompt('test_input_required_result_prompt', { description: 'Asks first' }, (context) => {
    const given = acceptedContent(context.mcpReq.inputResponses, 'user_context')?.context;
    if (typeof given === 'string') return { messages: [message(text(`Use the following context: ${given}`))] };
    return inputRequired({ inputRequests: { user_context: elicit('What context?', 'context', 'string') } });
  });
}

function addResources(server) {
  const give = (name, uri, mimeType, part) => server.registerResource(name, uri, { mimeType, description: name }, () => ({ contents: [{ uri, mimeType, ...part }] }));
  give('static-text', 'test://static-text', 'text/plain', { text: 'This is the content of the static text resource.' });
  give('static-binary', 'test://static-binary', 'image/png', { blob: image });
  give('watched-resource', 'test://watched-resource', 'text/plain', { text: 'Watched resource content' });
  server.registerResource('template', new ResourceTemplate('test://template/{id}/data', { list: undefined }), { mimeType: 'application/json' },
    (uri, { id }) => ({ contents: [{ uri: uri.toString(), mimeType: 'application/json', text: JSON.stringify({ id, templateTest: true, data: `Data for ID: ${id}` }) }] }));
  for (const method of ['resources/subscribe', 'resources/unsubscribe', 'logging/setLevel']) server.server.setRequestHandler(method, () => ({}));
  server.server.setRequestHandler('completion/complete', () => ({ completion: { values: [], total: 0, hasMore: false } }));
}

function create() {
  const changes = { listChanged: true };
  const server = new McpServer({ name: 'fixtures', version: '1.0.0' }, {
    capabilities: { tools: changes, resources: { subscribe: true, ...changes }, prompts: changes, logging: {}, completions: {} }, requestState: { verify: codec.verify },
  });
  for (const [name, run] of Object.entries(tools)) server.registerTool(name, { description: name, inputSchema: z.object({}) }, async (...args) => run(...args));
  server.registerTool('test_sampling', { description: 'Samples', inputSchema: z.object({ prompt: z.string() }) }, ({ prompt }, context) => asked(context, 'sampling/createMessage',
    { messages: [message(text(prompt))], maxTokens: 100 }, ({ content }) => `LLM response: ${content?.text}`));
  server.registerTool('test_elicitation', { description: 'Elicits', inputSchema: z.object({ message: z.string() }) }, (args, context) => asked(context, 'elicitation/create',
    form(args.message, { response: { type: 'string' } }), ({ action, content }) => `User response: action=${action}, content=${JSON.stringify(content ?? {})}`));
  if (changed.tools) server.registerTool('test_appeared', { description: 'Appeared', inputSchema: z.object({}) }, () => say('here'));
  if (changed.prompts) server.registerPrompt('test_appeared', { description: 'Appeared' }, () => ({ messages: [message(text('here'))] }));
  addPrompts(server);
  addResources(server);
  return server;
}

modern = createMcpHandler(create);
const handle = toNodeHandler(modern);
const sessions = new Map();

async function read(req) {
  const parts = [];
  for await (const part of req) parts.push(part);
  return parts.length ? JSON.parse(Buffer.concat(parts).toString()) : undefined;
}

async function serve(req, res) {
  const body = req.method === 'POST' ? await read(req) : undefined;
  const { 'mcp-session-id': id, 'mcp-protocol-version': protocolVersionHeader, 'mcp-method': mcpMethodHeader } = req.headers;
  if (body && classifyInboundRequest({ httpMethod: req.method, protocolVersionHeader, mcpMethodHeader, body }).kind !== 'legacy') { await handle(req, res, body); return; }
  let transport = sessions.get(id);
  if (!transport && body?.method !== 'initialize') { res.writeHead(id ? 404 : 400, { 'content-type': 'application/json' }).end('{"jsonrpc":"2.0","error":{"code":-32001,"message":"no session"},"id":null}'); return; }
  if (!transport) {
    transport = new NodeStreamableHTTPServerTransport({ sessionIdGenerator: randomUUID, onsessioninitialized: (session) => { sessions.set(session, transport); } });
    await create().connect(transport);
  }
  await transport.handleRequest(req, res, body);
}

const server = http.createServer((req, res) => { serve(req, res).catch((error) => { console.error(error); res.destroy(); }); });
server.listen(0, '127.0.0.1', () => console.log(`listening ${server.address().port}`));
