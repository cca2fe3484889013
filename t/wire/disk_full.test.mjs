// The disk of the record fills up, again and again, while turns run: each ends whole or is told, what was acknowledged is there.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import { fill, mountSmall, tempDir } from './lib/disk.mjs';
import { collect } from './lib/http.mjs';
import { ask } from './lib/record.mjs';
import { is_last_event, keys, newSession, startServer, streamTurn } from './lib/server.mjs';
import { waitFor } from './lib/wait.mjs';

const key = keys.client;
const text_of = (tokens) => Array.from({ length: tokens }, (_, i) => `tok${i}`).join(' ');

/** Turn after turn in sessions of its own, until told to stop; what was promised it writes down. */
async function client(server, promises, state, tokens) {
  const whole = text_of(tokens);
  let session = null;
  while (!state.is_over) {
    if (!session) {
      const { status, json } = await server.request('/v1/sessions', { key, body: {} });
      assert.ok(status === 201 || status === 503, `${status} ${JSON.stringify(json)}`);
      if (status !== 201) {
        assert.equal(json.error.code, 'store_unavailable');
        state.refused++;
        await pause(50);
        continue;
      }
      session = json.id;
      promises.sessions.push(session);
    }
    const events = await server.stream(`/v1/sessions/${session}/turns`, { key, body: { input: `[[mock tokens=${tokens} interval=10]]`, stream: true } });
    if (events.status !== 200) {
      // 409: the turn before could not be recorded as ended yet.
      assert.ok([503, 409].includes(events.status), `${events.status} ${events.text}`);
      state.refused++;
      session = null;
      await pause(50);
      continue;
    }
    const all = await collect(events, is_last_event, 20000);
    const { event, data } = all.at(-1);
    const text = all.filter((e) => e.event === 'text.delta').map((e) => e.data.text).join('');
    if (event === 'turn.completed') {
      assert.equal(text, whole);
      promises.turns.push({ session, whole, id: all[0].id.split('.')[0] });
    } else {
      assert.equal(event, 'turn.failed');
      assert.equal(data.error.code, 'store_unavailable');
      promises.failed.push(session);
    }
  }
}

test('a full disk under running turns', async (t) => {
  const dir = tempDir(t, 'parley-full-');
  if (!mountSmall(dir, '12m')) return t.skip('no mount here');
  const config = { store: { url: `sqlite:${dir}/parley.db`, grace: '1s' }, turns: { progress_interval: '100ms' } };
  const server = await startServer(t, { config });
  server.expectLog(/WARN|ERROR/); // each write says so
  const pids = server.workers();
  const promises = { sessions: [], turns: [], failed: [] }, state = { is_over: false, refused: 0 };
  // Not in step: whenever the disk fills up some are in the middle of an answer.
  const clients = Array.from({ length: 12 }, (_, n) => client(server, promises, state, 20 + 7 * n).catch((error) => { state.error ??= error; }));
  const holds = (condition) => () => { if (state.error) throw state.error; return condition(); };
  const filler = path.join(dir, 'filler');
  for (let round = 0; round < 3; round++) {
    const { turns: { length: before }, failed: { length: failures } } = promises;
    await waitFor(holds(() => promises.turns.length >= before + 8), 'turns while there is room', 30000);
    fill(filler);
    await waitFor(holds(() => promises.failed.length > failures), 'a turn that could not be recorded', 30000)
      .catch((e) => assert.fail(`${e.message}: ${JSON.stringify({ round, before, turns: promises.turns.length, failures, refused: state.refused })}\n${server.output()}`));
    assert.equal((await server.request('/health/live')).status, 200);
    fs.rmSync(filler);
  }
  const count = promises.turns.length;
  await waitFor(holds(() => promises.turns.length >= count + 20), 'well again by itself', 30000);
  state.is_over = true;
  await Promise.all(clients);
  assert.ifError(state.error);
  assert.deepEqual(server.workers(), pids, 'no worker died of it');

  // The turns that failed are failed in the record, too, soon: their sessions take the next one.
  await waitFor(() => ask(server, "SELECT count(*) AS n FROM turns WHERE state NOT IN ('completed', 'failed', 'cancelled')")[0].n === 0, 'an end of every turn', 60000);
  for (const session of promises.failed) {
    const events = await streamTurn(server, session, { input: 'and now?' });
    assert.equal(events.at(-1).event, 'turn.completed');
  }
  const check = async (host) => {
    for (const id of promises.sessions) assert.equal((await host.request(`/v1/sessions/${id}`, { key })).status, 200, id);
    const rows = new Map(ask(host, 'SELECT id, state FROM turns').map((row) => [row.id, row.state]));
    for (const { id } of promises.turns) assert.equal(rows.get(id), 'completed', id);
    for (const session of new Set(promises.turns.map((turn) => turn.session))) {
      const { json } = await host.request(`/v1/sessions/${session}/messages?limit=100`, { key });
      for (const { whole } of promises.turns.filter((turn) => turn.session === session)) {
        assert.ok(json.data.some(({ role, content }) => role === 'assistant' && JSON.stringify(content).includes(`"${whole}"`)), session);
      }
    }
  };
  await check(server);
  assert.equal(execFileSync('sqlite3', [`${dir}/parley.db`, 'PRAGMA integrity_check'], { encoding: 'utf8' }).trim(), 'ok');
  await server.stop();
  const next = await startServer(t, { config });
  await check(next);
  await next.stop();
  t.diagnostic(`${promises.turns.length} turns whole, ${promises.failed.length} told to have failed, ${state.refused} refused, ${promises.sessions.length} sessions`);
  return undefined;
});
