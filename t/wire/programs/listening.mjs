// listening - a modern tool server on standard input and output that keeps every subscriptions/listen until it is cancelled. Tools:
// listens (how many there are), change (tells each of them that the list has changed).
import readline from 'node:readline';

const listens = new Set();
const say = (message) => process.stdout.write(`${JSON.stringify({ jsonrpc: '2.0', ...message })}\n`);
const tell = (id, method, params = {}) => say({ method, params: { ...params, _meta: { 'io.modelcontextprotocol/subscriptionId': id } } });

const tools = {
  listens: () => String(listens.size),
  change: () => { for (const id of listens) tell(id, 'notifications/tools/list_changed'); return 'told'; },
};
const results = {
  'server/discover': () => ({ supportedVersions: ['2026-07-28'], capabilities: { tools: { listChanged: true } } }),
  'tools/list': () => ({ tools: Object.keys(tools).map((name) => ({ name, inputSchema: { type: 'object' } })) }),
  'tools/call': ({ name }) => ({ content: [{ type: 'text', text: tools[name]() }] }),
};

function take({ id, method, params }) {
  if (method === 'subscriptions/listen') {
    listens.add(id);
    tell(id, 'notifications/subscriptions/acknowledged', { notifications: params.notifications });
  } else if (method === 'notifications/cancelled') {
    listens.delete(params.requestId);
  } else if (results[method] !== undefined) {
    say({ id, result: { resultType: 'complete', ttlMs: 60000, cacheScope: 'public', ...results[method](params) } });
  } else if (id !== undefined) {
    say({ id, error: { code: -32601, message: 'no such method' } });
  }
}

for await (const line of readline.createInterface({ input: process.stdin })) {
  let message;
  try { message = JSON.parse(line); } catch { continue; } // whoever spoke may have died in the midst of it
  take(message);
}
