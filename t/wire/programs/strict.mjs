// strict - a tool server of 2025-06-18 on standard input and output that takes nothing before notifications/initialized, as some do.
// argv[2] is a folder: a file `hold` there keeps it from answering initialize, of which it writes `asked`. Tools: add, die.
import fs from 'node:fs';
import path from 'node:path';
import readline from 'node:readline';

const dir = process.argv[2];
const say = (message) => process.stdout.write(`${JSON.stringify({ jsonrpc: '2.0', ...message })}\n`);
let is_initialized = false;

async function take({ id, method, params }) {
  if (method === 'initialize') {
    is_initialized = false;
    fs.writeFileSync(path.join(dir, 'asked'), '');
    while (fs.existsSync(path.join(dir, 'hold'))) await new Promise((resolve) => { setTimeout(resolve, 20); });
    say({ id, result: { protocolVersion: '2025-06-18', capabilities: { tools: {} }, serverInfo: { name: 'strict', version: '1' } } });
  } else if (method === 'notifications/initialized') {
    is_initialized = true;
  } else if (id !== undefined && method === 'server/discover') {
    say({ id, error: { code: -32601, message: 'no such method' } });
  } else if (id !== undefined && !is_initialized) {
    say({ id, error: { code: -32602, message: 'Received request before initialization was complete' } });
  } else if (method === 'tools/list') {
    say({ id, result: { tools: ['add', 'die'].map((name) => ({ name, inputSchema: { type: 'object' } })) } });
  } else if (method === 'tools/call') {
    if (params.name === 'die') process.exit(7);
    say({ id, result: { content: [{ type: 'text', text: `sum ${params.arguments.a + params.arguments.b}` }] } });
  }
}

for await (const line of readline.createInterface({ input: process.stdin })) {
  let message;
  try { message = JSON.parse(line); } catch { continue; } // whoever spoke may have gone in the midst of it
  await take(message);
}
