// hostile - a tool server on standard input and output, written by hand, with what argv[2] says is wrong with it:
//   flood     says without end, on both outputs, what nobody asked
//   garbage   lines that are no JSON, before each answer
//   huge      an answer of 11 MiB in one line to the tool `big`, one of 3 MiB to `large`
//   picky     exits at a first request that is not initialize
//   deaf      answers initialize and lists, then reads nothing more
//   shut      closes its input after initialize and lists
//   hungry    takes all the memory that there is when its tool is called
//   mute      never says anything
//   crash     ends at once
//   nosy      asks for a user's answer when a call of `echo` is cancelled, and answers the other with what it was told
//   stubborn  ignores the end of its input and SIGTERM
import fs from 'node:fs';
import readline from 'node:readline';

const [,, kind] = process.argv;
const say = (message) => process.stdout.write(`${JSON.stringify({ jsonrpc: '2.0', ...message })}\n`);
const tool = (name) => ({ name, inputSchema: { type: 'object' } });
let is_first = true;

function answer({ id, method, params }) {
  if (kind === 'garbage') process.stdout.write('Listening on stdio..\n{"not": "for you"}\n[1,2\n\r\n');
  if (method === 'initialize') return say({ id, result: { protocolVersion: '2025-06-18', capabilities: { tools: {} }, serverInfo: { name: kind, version: '1' } } });
  if (method === 'tools/list') {
    say({ id, result: { tools: [tool('echo'), tool('big'), tool('large')] } });
    if (kind === 'deaf') process.stdin.pause();
    if (kind === 'shut') fs.closeSync(0), setInterval(() => {}, 1000);
    return undefined;
  }
  if (method === 'tools/call') {
    for (const eaten = []; kind === 'hungry';) eaten.push(Buffer.alloc(16 << 20, 1));
    const length = { big: 11 << 20, large: 3 << 20 }[params.name];
    return say({ id, result: { content: [{ type: 'text', text: length ? 'x'.repeat(length) : 'echo' }] } });
  }
  return say({ id, error: { code: -32601, message: 'no such method' } });
}

if (kind === 'crash') process.exit(3);
if (kind === 'stubborn') process.on('SIGTERM', () => {});
if (kind === 'stubborn') setInterval(() => {}, 1000);
if (kind === 'flood') {
  const junk = `${JSON.stringify({ jsonrpc: '2.0', method: 'notifications/message', params: { level: 'info', data: 'x'.repeat(1000) } })}\n`.repeat(64);
  const pour = (stream) => { while (stream.write(junk)); stream.once('drain', () => setImmediate(pour, stream)); };
  pour(process.stdout);
  pour(process.stderr);
}
const unanswered = [];
/** True: it was the nosy one's. */
function is_nosy({ id, method, params, result, error }) {
  if (kind !== 'nosy') return false;
  if (method === 'tools/call') unanswered.push(id);
  else if (method === 'notifications/cancelled') {
    unanswered.splice(unanswered.indexOf(params.requestId), 1);
    say({ id: 'nosy', method: 'elicitation/create', params: { message: 'Of the one that was cancelled?', requestedSchema: { type: 'object', properties: {} } } });
  } else if (id === 'nosy') {
    for (const call of unanswered) say({ id: call, result: { content: [{ type: 'text', text: error ? `refused ${error.code}` : JSON.stringify(result) }] } });
  } else return false;
  return true;
}

const lines = readline.createInterface({ input: process.stdin });
lines.on('line', (line) => {
  if (kind === 'mute') return;
  let message;
  try { message = JSON.parse(line); } catch { return; }
  if (kind === 'picky' && is_first && message.method !== 'initialize') process.exit(1);
  is_first = false;
  if (is_nosy(message)) return;
  if (message.id !== undefined && message.method) answer(message);
});
lines.on('close', () => { if (kind !== 'stubborn') process.exit(0); });
