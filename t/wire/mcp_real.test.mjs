// Real programs of the project at both ends: server-everything and server-filesystem behind us, with nothing lost of what they
// offer to a client that speaks to them directly; the inspector before us; progress from a program to clients of any worker.
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { promisify } from 'node:util';
import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import { StdioClientTransport } from '@modelcontextprotocol/sdk/client/stdio.js';
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js';
import { call, everything, packaged, ready, start } from './lib/programs.mjs';
import { keys } from './lib/server.mjs';

let dir, server;
before(async () => {
  dir = fs.realpathSync(fs.mkdtempSync(path.join(os.tmpdir(), 'parley-files-')));
  fs.writeFileSync(path.join(dir, 'hello.txt'), 'hello, world\n');
  server = await start(null, [{ ...everything('all'), prefix: 'false' }, { ...packaged('files', 'server-filesystem', [dir]), prefix: 'false' }]);
  for (const name of ['all', 'files']) await ready(server, name);
});
after(async () => {
  await server?.stop();
  fs.rmSync(dir, { recursive: true, force: true });
});

async function connected(t, transport) {
  const client = new Client({ name: 'test', version: '1' });
  await client.connect(transport);
  t.after(() => client.close());
  return client;
}

/** A client of that program, and one of ours; each of its requests is a connection of its own. */
async function both(t, { command, args }) {
  const headers = { authorization: `Bearer ${keys.server}`, connection: 'close' };
  return Promise.all([connected(t, new StdioClientTransport({ command, args, stderr: 'ignore' })),
    connected(t, new StreamableHTTPClientTransport(new URL(`${server.url}/mcp`), { requestInit: { headers } }))]);
}

/** Each of its items is among ours, as it is. */
function assertOffered(theirs, given, key) {
  const ours = new Map(given.map((item) => [item[key], item]));
  assert.ok(theirs.length > 0);
  for (const item of theirs) assert.deepEqual(ours.get(item[key]), item, item[key]);
}

describe('server-everything', () => {
  test('all that it offers is offered, as it is, on any worker', async (t) => {
    const [direct, client] = await both(t, everything('all'));
    for (let i = 0; i < 4; i++) {
      assertOffered((await direct.listTools()).tools, (await client.listTools()).tools, 'name');
      assertOffered((await direct.listPrompts()).prompts, (await client.listPrompts()).prompts, 'name');
      assertOffered((await direct.listResources()).resources, (await client.listResources()).resources, 'uri');
      assertOffered((await direct.listResourceTemplates()).resourceTemplates, (await client.listResourceTemplates()).resourceTemplates, 'uriTemplate');
    }
  });

  test('its answers are the same as without us', async (t) => {
    const [direct, client] = await both(t, everything('all'));
    const calls = [['echo', { message: 'ünïcode \u0000 "quoted"' }], ['get-sum', { a: 2, b: 0.5 }], ['get-tiny-image', {}], ['get-structured-content', { location: 'Chicago' }],
      ['get-annotated-message', { messageType: 'error', includeImage: true }], ['get-resource-links', { count: 3 }], ['get-sum', { a: 'two' }]];
    const known = new Set((await direct.listTools()).tools.map(({ name }) => name));
    assert.ok(calls.every(([name]) => known.has(name)), [...known].join(' '));
    for (const [name, args] of calls) {
      const expected = await direct.callTool({ name, arguments: args });
      for (let i = 0; i < 4; i++) assert.deepEqual(await client.callTool({ name, arguments: args }), expected, name);
    }
    for (const { uri } of (await direct.listResources()).resources) assert.deepEqual(await client.readResource({ uri }), await direct.readResource({ uri }));
    assert.deepEqual(await client.getPrompt({ name: 'simple-prompt' }), await direct.getPrompt({ name: 'simple-prompt' }));
    assert.deepEqual(await client.getPrompt({ name: 'args-prompt', arguments: { city: 'Oslo' } }), await direct.getPrompt({ name: 'args-prompt', arguments: { city: 'Oslo' } }));
  });

  test('progress of one program reaches clients of all workers, each its own', async (t) => {
    const [, client] = await both(t, everything('all'));
    await Promise.all(Array.from({ length: 12 }, async (_, i) => {
      const seen = [], steps = 3 + i % 3;
      await client.callTool({ name: 'trigger-long-running-operation', arguments: { duration: 1, steps } }, undefined, { onprogress: (p) => seen.push(p) });
      // The last comes with the answer, or not.
      assert.ok(seen.length >= steps - 1, JSON.stringify(seen));
      assert.deepEqual(seen.map(({ progress, total }) => [progress, total]), seen.map((_value, k) => [k + 1, steps]));
    }));
  });
});

describe('server-filesystem', () => {
  test('all that it offers is offered, and its answers are the same', async (t) => {
    const [direct, client] = await both(t, packaged('files', 'server-filesystem', [dir]));
    assertOffered((await direct.listTools()).tools, (await client.listTools()).tools, 'name');
    for (const [name, args] of [['list_allowed_directories', {}], ['list_directory', { path: dir }], ['read_text_file', { path: path.join(dir, 'hello.txt') }],
      ['read_text_file', { path: '/etc/passwd' }], ['directory_tree', { path: dir }], ['read_text_file', {}]]) {
      assert.deepEqual(await client.callTool({ name, arguments: args }), await direct.callTool({ name, arguments: args }), name);
    }
  });

  test('a model writes, reads and lists in turns', async () => {
    const file = path.join(dir, 'written.txt');
    assert.match(JSON.stringify(await call(server, 'write_file', { path: file, content: 'by a model' })), /Successfully wrote/);
    assert.equal(fs.readFileSync(file, 'utf8'), 'by a model');
    for (let i = 0; i < 4; i++) assert.match(JSON.stringify(await call(server, 'read_text_file', { path: file })), /by a model/);
    assert.match(JSON.stringify(await call(server, 'read_text_file', { path: '/etc/passwd' })), /denied|outside/i);
  });
});

describe('the inspector', () => {
  const bin = path.join(import.meta.dirname, 'node_modules/@modelcontextprotocol/inspector/clients/launcher/build/index.js');

  /** What it prints, for a method. */
  async function inspect(...args) {
    const all = [bin, '--cli', `${server.url}/mcp`, '--transport', 'http', '--header', `Authorization: Bearer ${keys.server}`, '--method', ...args];
    const { stdout } = await promisify(execFile)(process.execPath, all, { timeout: 60000, env: { PATH: process.env.PATH, HOME: dir } })
      .catch((e) => { throw new Error(`${args.join(' ')}: ${e.message}\n${e.stdout}\n${e.stderr}`); });
    return JSON.parse(stdout);
  }

  test('lists and calls tools, reads resources, gets prompts', async () => {
    const { tools } = await inspect('tools/list');
    assert.ok(tools.some(({ name }) => name === 'echo') && tools.some(({ name }) => name === 'read_text_file'));
    assert.match((await inspect('tools/call', '--tool-name', 'echo', '--tool-arg', 'message=hi there')).content[0].text, /hi there/);
    const [{ uri }] = (await inspect('resources/list')).resources;
    assert.equal((await inspect('resources/read', '--uri', uri)).contents[0].uri, uri);
    assert.ok((await inspect('resources/templates/list')).resourceTemplates.length > 0);
    assert.ok((await inspect('prompts/list')).prompts.some(({ name }) => name === 'args-prompt'));
    assert.match(JSON.stringify(await inspect('prompts/get', '--prompt-name', 'args-prompt', '--prompt-args', 'city=Oslo')), /Oslo/);
  });
});
