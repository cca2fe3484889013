// conformance_driver - the client that @modelcontextprotocol/conformance tests: a parleyd of its own, whose only tool server is
// the address that comes last, and turns whose model calls the tools that the scenario wants called.
import { newSession, startServer, streamTurn } from '../lib/server.mjs';
import { waitFor } from '../lib/wait.mjs';

const calls = {
  tools_call: [{ name: 'add_numbers', arguments: { a: 5, b: 3 } }],
  'sse-retry': [{ name: 'test_reconnection', arguments: {} }],
  'http-invalid-tool-headers': [{ name: 'valid_tool', arguments: { region: 'x' } }],
};
const context = JSON.parse(process.env.MCP_CONFORMANCE_CONTEXT || '{}');
const cleanups = [];
let code = 0;
try {
  const server = await startServer({ after: (clean) => cleanups.push(clean) }, {
    config: { workers: 1, mcp: { backoff: '100ms', prefix: false, servers: [{ name: 'suite', url: process.argv.at(-1) }] } },
  });
  server.expectLog(/mcp /);
  await waitFor(() => server.lines.some((line) => line.includes('mcp server ready')), 'the tool server').catch(() => {});
  const { id } = await newSession(server);
  for (const { name, arguments: args } of context.toolCalls ?? calls[process.env.MCP_CONFORMANCE_SCENARIO] ?? []) {
    await streamTurn(server, id, { input: `[[mock tool=${name} args=${JSON.stringify(args)}]]` });
  }
} catch (error) {
  console.error(error);
  code = 1;
}
for (const clean of cleanups) await clean();
process.exit(code);
