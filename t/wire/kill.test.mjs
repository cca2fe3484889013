// Workers are killed under load: only what ran on the dead one is lost, and that is told.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import { test } from 'node:test';
import { collect } from './lib/http.mjs';
import { Child } from './lib/process.mjs';
import { is_last_event, keys, newSession, startServer } from './lib/server.mjs';
import { holders, unaccepted } from './lib/sockets.mjs';
import { waitFor } from './lib/wait.mjs';

const key = keys.client;

/** Opens a streamed turn that lasts; {session_id, turn_id, local_port, outcome: a promise of its last event or the error}. */
async function startTurn(server, n) {
  const session = await newSession(server);
  const body = { input: `question ${n} [[mock tokens=60 interval=40]]`, stream: true, request_id: `req-${n}` };
  const events = await server.stream(`/v1/sessions/${session.id}/turns`, { key, body });
  assert.equal(events.status, 200, events.text);
  const turn = { session_id: session.id, body, local_port: events.local_port };
  let started;
  const has_started = new Promise((resolve) => { started = resolve; });
  const note = (event) => {
    if (event.event === 'turn.started') turn.turn_id = event.id.split('.')[0];
    // Some text is on its way: the turn is in the middle.
    if (event.event === 'text.delta') started();
    return is_last_event(event);
  };
  turn.outcome = collect(events, note, 30000).then((all) => all.at(-1), (error) => error).finally(started);
  await has_started;
  return turn;
}

async function messagesOf(server, session_id) {
  const { status, json, text } = await server.request(`/v1/sessions/${session_id}/messages`, { key });
  assert.equal(status, 200, text);
  return json.data;
}

/** The lost turn is told as such by any worker, its question is kept, and the same request_id runs it anew. */
async function expectLost(server, turn) {
  const state = await server.request(`/v1/sessions/${turn.session_id}/turns/${turn.turn_id}?wait=30`, { key });
  assert.equal(state.status, 200, state.text);
  assert.equal(state.json.error?.code, 'worker_lost', state.text);
  assert.ok((await messagesOf(server, turn.session_id)).some((message) => JSON.stringify(message).includes(turn.body.input)));
  const again = await server.stream(`/v1/sessions/${turn.session_id}/turns`, { key, body: turn.body });
  assert.equal(again.status, 200, again.text);
  assert.equal((await collect(again, is_last_event)).at(-1).event, 'turn.completed');
}

async function expectWhole(server, turn) {
  const last = await turn.outcome;
  assert.equal(last.event, 'turn.completed', String(last.stack ?? JSON.stringify(last)));
  const messages = await messagesOf(server, turn.session_id);
  assert.equal(messages.length, 2, JSON.stringify(messages));
}

test('each worker in turn is killed under load', { timeout: 120000 }, async (t) => {
  const server = await startServer(t);
  const recoveries = [];
  let lost_count = 0;
  for (let slot = 0; slot < 4; slot++) {
    const turns = await Promise.all(Array.from({ length: 24 }, (_, n) => startTurn(server, `${slot}-${n}`)));
    const held = holders(server.port, server.workers());
    const killed_at = Date.now();
    const pid = server.killWorker(slot);
    await server.replaced(slot, pid);
    recoveries.push(Date.now() - killed_at);
    const is_lost = ({ local_port }) => held.get(local_port) === pid;
    lost_count += turns.filter(is_lost).length;
    await Promise.all(turns.map((turn) => (is_lost(turn) ? expectLost : expectWhole)(server, turn)));
  }
  assert.ok(lost_count > 0 && lost_count < 4 * 24, `${lost_count} turns were on the killed workers`);
  t.diagnostic(`whole again after ${recoveries.join(', ')} ms`);
});

test('what waits in the accept queue of a dead worker is served by its successor', async (t) => {
  const server = await startServer(t, { config: { watchdog: { silence: '1m' } } }); // nobody but us ends the one that is stopped
  const pid = server.workers()[2];
  process.kill(pid, 'SIGSTOP');
  let answered = 0;
  const requests = Array.from({ length: 80 }, () => server.request('/health/live').then((answer) => { answered++; return answer; }));
  await waitFor(() => answered > 0 && answered + unaccepted(server.port) === 80, 'request on every connection');
  assert.ok(answered < 80, 'some wait for the one that is stopped');
  server.killWorker(2);
  for (const { status } of await Promise.all(requests)) assert.equal(status, 200);
});

test('a worker that only waits for a core is not aborted, one that hangs is', async (t) => {
  const server = await startServer(t, { config: { workers: 2, watchdog: { silence: '2s' } } });
  const [starved, hung] = server.workers();
  const [core] = /Cpus_allowed_list:\s+(\d+)/.exec(fs.readFileSync('/proc/self/status', 'utf8')).slice(1);
  // The lowest priority there is, on a core that others want.
  execFileSync('taskset', ['-a', '-c', '-p', core, String(starved)]);
  execFileSync('chrt', ['--idle', '-a', '-p', '0', String(starved)]);
  const others = Array.from({ length: 8 }, () => new Child('taskset', ['-c', core, 'sh', '-c', 'while :; do :; done']));
  t.after(() => others.map((child) => child.kill('SIGKILL')));
  server.expectLog(new RegExp(`worker starved slot=0 pid=${starved} `));
  await server.line(new RegExp(`worker starved slot=0 pid=${starved} `), 30000);
  server.expectLog(new RegExp(`worker (stalled|died) slot=1 pid=${hung} `));
  process.kill(hung, 'SIGSTOP');
  await server.replaced(1, hung);
  for (const child of others) child.kill('SIGKILL');
  await Promise.all(others.map((child) => child.ended));
  await waitFor(async () => (await server.request('/health')).json.workers.ready === 2, 'both workers ready');
  assert.equal(server.workers()[0], starved);
});
