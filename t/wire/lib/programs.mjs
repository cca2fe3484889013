// programs - tool servers that are programs, for tests of them: how they are named in the config, waited for, called.
import path from 'node:path';
import { newSession, startServer, streamTurn } from './server.mjs';
import { waitFor } from './wait.mjs';

const wire = path.join(import.meta.dirname, '..');
const node = (name, file, args, more = {}) => ({ name, command: process.execPath, args: [path.join(wire, 'programs', file), ...args], ...more });

/** Entries of mcp.servers: programs/sdk_server.mjs, programs/listening.mjs, programs/strict.mjs, programs/hostile.mjs, and real servers of the project. */
export const sdk = (name, era, more) => node(name, 'sdk_server.mjs', [era], more);
export const strict = (name, dir, more) => node(name, 'strict.mjs', [dir], more);
export const listening = (name, more) => node(name, 'listening.mjs', [], more);
export const hostile = (kind, more) => node(kind, 'hostile.mjs', [kind], more);
export const packaged = (name, of, args = []) => ({ name, command: process.execPath, args: [path.join(wire, `node_modules/@modelcontextprotocol/${of}/dist/index.js`), ...args] });
export const everything = (name) => packaged(name, 'server-everything');

export const start = (t, servers, more = {}) => startServer(t, { config: { ...more, mcp: { backoff: '50ms', backoff_max: '200ms', ...more.mcp, servers } } });

/** Resolves when so many workers have said that the tool server is ready. */
export const ready = (server, name, count = 4) => waitFor(() => server.lines.filter((line) => line.includes(`mcp server ready server=${name} `)).length >= count, `${name} ready in all workers`, 20000);

/** The data of a turn's events of that name. */
export const of = (events, name) => events.filter(({ event }) => event === name).map(({ data }) => data);

/** A turn in a session of its own, on whichever worker: its events. */
export async function run(server, input, more = {}) {
  const { id } = await newSession(server);
  return streamTurn(server, id, { input, ...more });
}

/** What a tool gives: its output or its error. */
export async function call(server, name, args = {}) {
  const [result] = of(await run(server, `[[mock tool=${name} args=${JSON.stringify(args)}]]`), 'tool.result');
  return result?.output ?? result?.error;
}

/** Waits until the tool gives that, again and again, so that it does on every worker. */
export const gives = (server, name, args, expected) => waitFor(async () => {
  for (let i = 0; i < 6; i++) if (await call(server, name, args) !== expected) return false;
  return true;
}, `${name} on all workers`, 20000);

export const is_alive = (pid) => { try { process.kill(pid, 0); return true; } catch { return false; } };
