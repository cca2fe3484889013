// parley_load - each scenario small against the real server, and what the program says of it.
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { once } from 'node:events';
import fs from 'node:fs';
import { createServer } from 'node:http';
import os from 'node:os';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { WebSocketServer } from 'ws';
import { readJournal } from './lib/journal.mjs';
import { parseMetrics, sumOf } from './lib/metrics.mjs';
import { Child, build } from './lib/process.mjs';
import { keys, startServer } from './lib/server.mjs';
import { waitFor, within } from './lib/wait.mjs';

let server;
before(async () => {
  server = await startServer(null, { config: { workers: 2, turns: { max_listeners: 1000 } } });
  server.expectLog(/accepting paused reason=queue/);
});
after(() => server?.stop());

/** Runs to the end: {code, result, stderr}. */
function run(address, args, key = keys.client) {
  const all = ['--target', address, '--limit', '60', ...(key ? ['--key', key] : []), ...args.map(String)];
  return new Promise((resolve) => {
    execFile(path.join(build, 'parley_load'), all, { timeout: 90000 }, (error, stdout, stderr) => {
      const last = stdout.trim().split('\n').at(-1);
      resolve({ code: error ? error.code : 0, result: last.startsWith('{') ? JSON.parse(last) : null, stderr, stdout });
    });
  });
}

/** A run that must pass: its result, after what holds for every scenario. */
async function passed(args, key) {
  const { code, result, stderr, stdout } = await run(server.address, args, key);
  assert.equal(code, 0, `${args.join(' ')}: ${stdout}${stderr}`);
  assert.equal(result.passed, true);
  assert.equal(result.scenario, args.at(-1));
  assert.equal(result.failed, 0);
  assert.equal(result.refused, 0);
  assert.equal(result.missing, 0);
  assert.equal(result.died, 0);
  assert.equal(result.done, result.started);
  assert.ok(result.seconds > 0);
  assert.equal(typeof result.generator.saturated, 'boolean');
  assert.ok(result.generator.cpu_share_max >= 0);
  assert.ok(result.expect.every(({ holds }) => holds));
  return result;
}

function ordered({ count, p50, p90, p99, p999, max }, expected_count) {
  assert.equal(count, expected_count);
  const values = [p50, p90, p99, p999, max];
  assert.deepEqual(values, [...values].sort((a, b) => a - b));
  assert.ok(p50 > 0);
}

test('turns, streamed: every one has a first event and its tokens', async () => {
  const result = await passed(['--users', 4, '--count', 40, '--tokens', 5, '--interval', 2, '--turns', 3, 'turns']);
  assert.equal(result.done, 40);
  ordered(result.whole_us, 40);
  ordered(result.first_us, 40);
  assert.ok(result.deltas > 40 && result.deltas <= 200, `${result.deltas}`);
  assert.ok(result.first_us.p50 < result.whole_us.p50);
});

test('turns, not streamed, in three processes: shares and counts add up', async () => {
  const result = await passed(['--processes', 3, '--users', 7, '--count', 50, '--plain', 'turns']);
  assert.equal(result.processes, 3);
  assert.equal(result.done, 50);
  assert.equal(result.deltas, 0);
  ordered(result.whole_us, 50);
});

test('from several source addresses', async () => {
  const result = await passed(['--processes', 2, '--sources', 3, '--users', 12, '--count', 24, 'connect']);
  assert.equal(result.connects, 24);
  ordered(result.connect_us, 24);
});

test('the mock asked directly', async () => {
  const { code, result } = await run(server.mock.address, ['--users', 2, '--count', 20, 'direct'], null);
  assert.equal(code, 0);
  ordered(result.first_us, 20);
});

/** Chat completions by way of ours, and of the mock itself, through the same scenario. */
for (const [what, address, key] of [['ours', () => server.address, keys.server], ['the mock', () => server.mock.address, null]]) {
  test(`chat completions by way of ${what}, streamed and plain`, async () => {
    const model = what === 'ours' ? ['--model', 'default'] : [];
    const stream = await run(address(), ['--users', 3, '--count', 12, '--tokens', 10, '--interval', 2, '--first', 4, ...model, 'gateway'], key);
    assert.equal(stream.code, 0, stream.stdout + stream.stderr);
    assert.ok(stream.result.chunks >= 12 * 11, `${stream.result.chunks}`);
    assert.equal(stream.result.chunk_us.count, 120);
    ordered(stream.result.added_us, 12);
    ordered(stream.result.first_us, 12);
    assert.ok(stream.result.whole_us.p50 > 20000 && stream.result.added_us.p50 < stream.result.whole_us.p50);
    const plain = await run(address(), ['--users', 3, '--count', 12, '--plain', ...model, 'gateway'], key);
    assert.equal(plain.code, 0, plain.stdout + plain.stderr);
    assert.equal(plain.result.chunks, 0);
    ordered(plain.result.added_us, 12);
  });
}

test('a stream that is not whole has failed, and the header that was asked for is sent', async () => {
  const { code, result } = await run(server.mock.address,
    ['--users', 1, '--count', 2, '--tokens', 5, '--header', 'X-Mock: fault=cut_fin:3', 'gateway'], null);
  assert.equal(code, 1);
  assert.equal(result.failed, 2);
});

test('chat at a pace, for a time', async () => {
  const result = await passed(['--users', 10, '--duration', 1, '--pace', 0.2, 'chat']);
  // 10 users, 5 a second each at most 10; what the pace allows, not what the server could.
  assert.ok(result.done > 10 && result.done < 110, `${result.done}`);
});

test('arrivals come at their rate, users begin at theirs', async () => {
  const result = await passed(['--users', 30, '--rate', 300, '--offer', 60, '--count', 60, 'arrivals']);
  assert.equal(result.unoffered, 0);
  assert.ok(result.seconds > 0.9 && result.seconds < 10, `${result.seconds}`);
});

test('arrivals for which there are no users are told from what the server does', async () => {
  const { result, stderr } = await run(server.address, ['--users', 1, '--offer', 100, '--tokens', 5, '--interval', 20, '--duration', 1, 'arrivals']);
  assert.ok(result.unoffered > 10);
  assert.equal(result.generator.saturated, true);
  assert.match(result.generator.why, /generator saturated/);
  assert.match(stderr, /generator saturated/);
});

test('tools of the client', async () => {
  const result = await passed(['--users', 4, '--count', 20, 'client-tools']);
  ordered(result.tool_us, 20);
  ordered(result.first_us, 20);
});

test('results posted again and again', async () => {
  const result = await passed(['--users', 4, '--count', 100, 'tool-results']);
  ordered(result.whole_us, 100);
});

test('a turn replayed again and again, and results, on the host that --other names', async () => {
  const result = await passed(['--users', 2, '--count', 20, '--tokens', 10, '--interval', 3, '--other', server.address, 'replay']);
  ordered(result.whole_us, 20);
  ordered(result.first_us, 20);
  assert.ok(result.deltas >= 20 * 4, `${result.deltas}`);
  const { code } = await run(server.address, ['--users', 1, '--count', 1, '--limit', 5, '--other', '127.0.0.1:9', 'tool-results']);
  assert.notEqual(code, 0);
});

test('followers of one turn have all events, together', async () => {
  const result = await passed(['--users', 20, '--count', 40, '--tokens', 10, '--interval', 10, 'followers']);
  assert.ok(result.deltas >= 40 * 2, `${result.deltas}`);
  assert.ok(result.spread_us.count > 0);
  ordered(result.whole_us, 40);
});

test('streams cut in the middle are resumed where they were', async () => {
  const result = await passed(['--users', 4, '--count', 20, '--tokens', 10, '--interval', 3, 'resume']);
  ordered(result.resume_us, 20);
});

test('a storm: all cut, all back', async () => {
  const result = await passed(['--processes', 2, '--users', 60, '--count', 120, 'storm']);
  ordered(result.resume_us, 120);
  assert.ok(result.connects >= 180);
});

test('slow readers do not hold up the others', async () => {
  const result = await passed(['--users', 4, '--duration', 2, '--pace', 0.1, '--stall', 1, 'slow-readers']);
  assert.ok(result.done > 10, `${result.done}`);
});

test('a mixed day', async () => {
  const result = await passed(['--users', 40, '--duration', 6, '--pace', 0.3, '--interval', 2, '--stall', 1, 'mixed']);
  assert.ok(result.tool_us.count > 0);
  assert.ok(result.resume_us.count > 0);
  assert.ok(result.deltas > 0);
  assert.ok(result.caught_up + result.shut_out > 0);
});

for (const scenario of ['idle-keepalive', 'idle-sse', 'idle-ws']) {
  for (const [name, args] of [['as fast as they come', []], ['at a rate', ['--rate', 500]]]) {
    test(`${scenario}, ${name}, held until it is told to end`, async () => {
      const holder = new Child(path.join(build, 'parley_load'), ['--target', server.address, '--key', keys.client, '--limit', '60',
        '--processes', '2', '--users', '8', '--count', '100', ...args.map(String), scenario]);
      const [, standing] = await holder.line(/^standing (\d+)/, 30000);
      assert.equal(standing, '100');
      assert.deepEqual(await holder.stop(), { code: 0, signal: null });
      const result = JSON.parse(holder.lines.find((line) => line.startsWith('{')));
      assert.equal(result.done, 100);
      assert.ok(result.passed);
    });
  }
}

test('idle WebSockets with a session each are held, sampled, and some of them chat', async () => {
  const device = `d${process.pid}`;
  const args = ['--processes', 2, '--users', 8, '--count', 100, '--join', '--devices', device, '--hold', 2, '--sample', 100,
    '--active', '10%', '--pace', '0.2', '--tokens', 5, '--tools', '50%', '--interval', 1, 'idle-ws'];
  for (let round = 0; round < 2; round++) {
    const result = await passed(args, keys.server);
    assert.equal(result.done, 100);
    ordered(result.whole_us, 100);
    assert.ok(result.echo_us.count > 20, `${result.echo_us.count}`);
    assert.ok(result.turns > 10, `${result.turns}`);
    assert.equal(result.first_us.count, result.turns);
    assert.equal(result.turn_us.count, result.turns);
    assert.ok(result.tool_us.count > 0);
    assert.ok(result.ramp_s > 0 && result.seconds > 1.5, `${result.ramp_s} ${result.seconds}`);
  }
  // The second run found the sessions of the first one.
  const { json } = await server.request(`/v1/sessions?device_id=${device}-1-49`, { key: keys.server });
  assert.equal(json.data.length, 1);
});

test('chat over WebSockets at a pace, with tools of the client', async () => {
  const result = await passed(['--users', 8, '--count', 80, '--pace', 0.05, '--tokens', 5, '--interval', 2, '--tools', '50%', '--turns', 3, 'ws-chat']);
  ordered(result.whole_us, 80);
  ordered(result.first_us, 80);
  assert.ok(result.tool_us.count > 0 && result.tool_us.count < 80, `${result.tool_us.count}`);
  assert.ok(result.deltas >= 80, `${result.deltas}`);
  assert.ok(result.connects > 8 * 3, `${result.connects}`);
  const plain = await passed(['--users', 2, '--count', 10, '--plain', 'ws-chat']);
  ordered(plain.whole_us, 10);
  const refused = await run(server.address, ['--users', 2, '--count', 4, 'ws-chat'], 'pc_nobody_has_this_key_0123456789');
  assert.equal(refused.code, 1);
  assert.equal(refused.result.gone, 2);
});

test('slow readers over WebSockets do not hold up the others, and catch up', async () => {
  await waitFor(async () => {
    const result = await passed(['--users', 4, '--duration', 4, '--pace', 0.1, '--stall', 1, 'ws-slow-readers']);
    assert.ok(result.done > 0);
    assert.equal(result.shut_out, 0);
    return result.caught_up > 0;
  }, 'slow reader that caught up', 60000);
});

test('who stays slow for longer than http.send_timeout is told 1008', async (t) => {
  const own = await startServer(t, { config: { http: { send_timeout: '1s' }, websocket: { close_timeout: '1m' } } });
  await waitFor(async () => {
    const { code, result } = await run(own.address, ['--users', 4, '--duration', 6, '--pace', 0.1, '--stall', 4, 'ws-slow-readers'], keys.client);
    assert.equal(code, 0, JSON.stringify(result));
    return result.shut_out > 0;
  }, 'slow reader that was shut out', 60000);
  assert.ok(sumOf(parseMetrics((await own.request('/metrics')).text), 'parley_websocket_closed_total', { reason: 'slow' }) > 0);
});

test('a storm of WebSockets: all are cut, all come back, and what they were told goes on', async () => {
  const result = await passed(['--processes', 2, '--users', 60, '--count', 180, '--within', 0.2, '--active', '20%', '--tokens', 30,
    '--interval', 5, 'ws-storm']);
  ordered(result.whole_us, 180);
  ordered(result.first_us, 180);
  ordered(result.resume_us, 180);
  assert.equal(result.stand_us.count, 3 * 2);
  assert.ok(result.turns >= 3 * 12, `${result.turns}`);
  assert.ok(result.connects >= 240);
});

/** A server of sessions and of /ws/chat which answers an action with what answers[action](its payload) says: its address. */
async function chatServer(t, answers) {
  let sessions = 0;
  const http = createServer((request, response) => {
    const text = JSON.stringify({ id: `sess_${++sessions}` });
    request.resume().on('end', () => response.writeHead(201, { 'content-type': 'application/json', 'content-length': text.length }).end(text));
  });
  const sockets = new WebSocketServer({ server: http });
  sockets.on('connection', (socket) => {
    socket.on('error', () => {}); // it is cut
    let session;
    socket.on('message', (text) => {
      const { action, payload } = JSON.parse(text);
      session = payload.session_id ?? session;
      for (const frame of answers[action]({ ...payload, session_id: session })) socket.send(JSON.stringify(frame));
    });
  });
  t.after(() => {
    sockets.clients.forEach((socket) => socket.terminate());
    http.closeAllConnections();
    http.close();
  });
  await once(http.listen(0, '127.0.0.1'), 'listening');
  return `127.0.0.1:${http.address().port}`;
}

const joined = ({ session_id }) => [{ status: 'joined', chunk: { metadata: { session_id } } }];
const began = ({ session_id }) => [
  { status: 'processing', turn_id: `turn_of_${session_id}`, seq: 1, chunk: { metadata: { session_id } } },
  { status: 'chunk', seq: 2, chunk: { metadata: { type: 'text' } } }];
const ended = (seq) => [{ status: 'complete', seq, chunk: {} }];

test('a storm in which turns are not found again at once, or not at all, goes on', async (t) => {
  const asked = new Set();
  const address = await chatServer(t, {
    join: joined,
    chat: began,
    resume: ({ session_id, turn_id, after }) => {
      if (session_id === 'sess_1') return [{ status: 'error', chunk: { error: 'No such turn.', code: 'not_found' } }];
      if (asked.delete(turn_id)) return ended(after + 1);
      asked.add(turn_id);
      return [{ status: 'error', chunk: { error: 'The owner did not answer.', code: 'owner_unavailable' } }];
    },
  });
  const { result, stderr } = await run(address, ['--limit', 20, '--users', 2, '--count', 6, '--active', '100%', 'ws-storm']);
  assert.equal(result.missing, 0, JSON.stringify(result));
  assert.match(stderr, /a turn failed, not_found/);
  assert.ok(result.turns_failed > 0 && result.turns > result.turns_failed, JSON.stringify(result));
  assert.equal(result.turns_refused, 0);
  assert.ok(result.refused > 0 && result.failed > 0);
  assert.equal(result.lost + result.doubled, 0);
});

test('who is asked at once when it stands again has lost no question', async (t) => {
  const address = await chatServer(t, { join: joined, chat: (payload) => [began(payload)[0], ...ended(2)] });
  const { code, result, stdout, stderr } = await run(address, ['--limit', 20, '--users', 2, '--count', 20, '--active', '100%', 'ws-storm']);
  assert.equal(code, 0, `${stdout}${stderr}`);
  assert.equal(result.turns_failed, 0);
  assert.equal(result.missing, 0);
  assert.ok(result.turns >= 20);
});

test('WebSockets of a killed worker come back', async (t) => {
  const own = await startServer(t, { config: { workers: 2 } });
  const client = new Child(path.join(build, 'parley_load'), ['--target', own.address, '--key', keys.client, '--limit', '60', '--users', '40',
    '--count', '1', '--passive', '--within', '0.1', 'ws-storm']);
  await client.line(/^standing 40/, 30000);
  own.killWorker(0);
  assert.deepEqual(await client.ended, { code: 0, signal: null });
  const result = JSON.parse(client.lines.find((line) => line.startsWith('{')));
  assert.ok(result.cut > 0);
  assert.equal(result.whole_us.count, result.done);
});

test('who is steadfast asks until there is an answer, and writes down what happened', async (t) => {
  const own = await startServer(t, { config: { workers: 2 } });
  const file = path.join(fs.mkdtempSync(path.join(os.tmpdir(), 'parley-journal-')), 'journal');
  t.after(() => fs.rmSync(path.dirname(file), { recursive: true }));
  const client = new Child(path.join(build, 'parley_load'), ['--target', own.address, '--key', keys.client, '--limit', '120', '--duration', '100',
    '--users', '40', '--pace', '0.5', '--tokens', '10', '--interval', '50', '--journal', file, 'steadfast']);
  await client.line(/^standing 40/, 30000);
  const asked = () => readJournal(file).asked;
  await waitFor(() => asked().length >= 40, 'answers', 30000);
  await own.replaced(0, own.killWorker(0));
  const then = asked().length;
  await waitFor(() => asked().length >= then + 80, 'answers after the end of a worker', 30000);
  client.kill('SIGTERM');
  await within(client.ended, 'end of those who wait for answers', 30000);
  const result = JSON.parse(client.lines.find((line) => line.startsWith('{')));
  const { turns, cuts } = readJournal(file);
  assert.deepEqual([result.failed, result.lost, result.doubled, result.done], [0, 0, 0, result.started]);
  assert.equal(result.done, asked().length);
  assert.ok(asked().every(({ outcome }) => outcome === 'whole'));
  assert.ok(turns.every(({ outcome, in_order }) => in_order && /^(completed|worker_lost)$/.test(outcome)));
  assert.equal(turns.filter(({ outcome }) => outcome === 'worker_lost').length, result.rerun);
  assert.ok(result.cut > 0 && cuts.length === result.cut);
  assert.ok(result.gap_us.count > result.done);
});

test('nothing is begun when the machine has no more memory', async () => {
  const { code, result, stderr } = await run(server.address, ['--users', 4, '--count', 40, '--hold', 1, '--leave-memory', '100000GiB', 'idle-ws']);
  assert.equal(code, 1);
  assert.equal(result.missing, 40);
  assert.match(result.stopped, /^no more memory/);
  assert.match(stderr, /no more memory/);
});

test('WebSockets opened and closed; the key in any of its places', async () => {
  for (const where of ['header', 'protocol', 'query']) {
    const result = await passed(['--users', 4, '--count', 60, '--key-in', where, 'upgrades']);
    assert.equal(result.connects, 60);
    ordered(result.first_us, 60);
    ordered(result.whole_us, 60);
  }
  const refused = await run(server.address, ['--users', 2, '--count', 6, 'upgrades'], 'pc_nobody_has_this_key_0123456789');
  assert.equal(refused.code, 1);
  assert.equal(refused.result.failed, 6);
});

test('messages over WebSockets, one at a time and in a window', async () => {
  for (const window of [1, 16]) {
    const result = await passed(['--processes', 2, '--users', 10, '--count', 2000, '--window', window, 'ws-echo']);
    assert.equal(result.connects, 10);
    ordered(result.whole_us, 2000);
  }
  // What is not understood is answered with an error, which is an answer when one's own text was asked for.
  await passed(['--users', 2, '--count', 50, '--say', '{"action":"nonsense"}', 'ws-echo']);
});

test('WebSockets of another server', async (t) => {
  const other = new WebSocketServer({ port: 0, host: '127.0.0.1', path: '/echo' });
  t.after(() => other.close());
  await once(other, 'listening');
  other.on('connection', (socket) => socket.on('message', (text) => socket.send(`${text}`)));
  const address = `127.0.0.1:${other.address().port}`;
  for (const args of [['--say', 'x'.repeat(100000), 'ws-echo'], ['--window', 4, '--say', 'hello', 'ws-echo'], ['upgrades']]) {
    const { code, result, stdout, stderr } = await run(address, ['--users', 3, '--count', 60, '--path', '/echo', ...args], null);
    assert.equal(code, 0, `${stdout}${stderr}`);
    ordered(result.whole_us, 60);
  }
  const lost = await run(address, ['--users', 1, '--count', 2, '--path', '/nowhere', 'upgrades'], null);
  assert.equal(lost.result.failed, 2);
});

// A program of a sanitizer reserves more than any limit.
test('MCP: calls of a tool and lists, of both eras, sessions, and streams of them that are held', async (t) => {
  const tools = new Child(path.join(build, 'mock_mcp'), ['--listen', '127.0.0.1:0', '--tools', '7']);
  const [, address] = await tools.line(/listening (\S+)/);
  const mcp = await startServer(t, { mock: false, config: { workers: 2, mcp: { prefix: false, servers: [{ name: 'web', url: `http://${address}/mcp` },
    { name: 'program', command: path.join(build, 'mock_mcp'), args: ['--stdio', '--legacy', '--tools', '1'], prefix: 'true', max_memory: 0 }] } } });
  t.after(() => tools.stop());
  for (const name of ['web', 'program']) await waitFor(() => mcp.lines.filter((line) => line.includes(`mcp server ready server=${name} `)).length === 2, name);
  for (const args of [[], ['--legacy'], ['--tool', 'program__echo'], ['--method', 'tools/list'], ['--method', 'tools/list', '--legacy'], ['--method', 'initialize']]) {
    const { code, result, stdout } = await run(mcp.address, ['--users', 4, '--count', 100, ...args, 'mcp'], keys.server);
    assert.equal(code, 0, `${args.join(' ')}: ${stdout}`);
    ordered(result.whole_us, 100);
  }
  const { result } = await run(mcp.address, ['--users', 2, '--count', 10, '--tool', 'none', 'mcp'], keys.server);
  assert.deepEqual([result.failed, result.passed], [10, false]);
  const holder = new Child(path.join(build, 'parley_load'), ['--target', mcp.address, '--key', keys.server, '--users', '8', '--count', '100', 'idle-mcp']);
  assert.equal((await holder.line(/^standing (\d+)/, 30000))[1], '100');
  assert.equal((await run(mcp.address, ['--users', 4, '--count', 100, '--method', 'tools/list', 'mcp'], keys.server)).code, 0);
  assert.deepEqual(await holder.stop(), { code: 0, signal: null });
});

test('thresholds decide how it ends', async () => {
  const { code, result } = await run(server.address, ['--count', 20, '--expect', 'first_p99_us<1', '--expect', 'done=20', 'turns']);
  assert.equal(code, 1);
  assert.equal(result.passed, false);
  assert.deepEqual(result.expect[1], { test: 'done=20', value: 20, holds: true });
  assert.equal(result.expect[0].holds, false);
  assert.ok(result.expect[0].value >= 1);
});

test('failures, missing ones and refused keys are no success', async () => {
  const refused = await run(server.address, ['--users', 4, '--count', 8, 'turns'], 'pc_nobody_has_this_key_0123456789');
  assert.equal(refused.code, 1);
  assert.equal(refused.result.gone, 4);
  assert.equal(refused.result.missing, 8);
  const late = await run(server.address, ['--count', 1000000, '--limit', 1, 'connect']);
  assert.equal(late.code, 1);
  assert.ok(late.result.missing > 0);
});

test('a wrong command line is 64', async () => {
  for (const args of [[], ['nonsense'], ['--users', 'x', 'turns'], ['arrivals'], ['--expect', 'nonsense<1', 'turns'],
    ['--processes', '1', '--count', '10000000000', 'idle-ws']]) {
    const { code, stderr } = await run(server.address, args);
    assert.equal(code, 64, args.join(' '));
    assert.match(stderr, /^parley_load: /);
  }
});
