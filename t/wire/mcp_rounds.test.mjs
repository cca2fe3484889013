// Tools that ask back, inside turns: for an answer of the model (sampling), which a server may be allowed; for folders, of which there
// are none; for the user, whom nobody can ask there. Of 2026-07-28 in rounds, of older revisions in the midst of the call; 4 workers.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { startSessions } from './lib/mcp.mjs';
import { of, ready, run } from './lib/programs.mjs';
import { startRounds } from './lib/rounds.mjs';
import { keys, startServer } from './lib/server.mjs';
import { waitFor } from './lib/wait.mjs';

describe('in turns', () => {
  let server, rounds, old;
  before(async () => {
    [rounds, old] = [await startRounds(), await startSessions(null, { asks: true })];
    server = await startServer(null, { config: {
      apps: [{ id: 'demo', name: 'Demo', org: 'demo', budget: { amount: 1000, period: 'total' } }],
      mcp: { max_rounds: 3, servers: [{ name: 'may', url: rounds.url, turn_sampling: true }, { name: 'mayold', url: old.url, turn_sampling: true }, { name: 'shy', url: rounds.url }] },
      tools: { server_timeout: '20s' } } });
    for (const name of ['may', 'mayold', 'shy']) await ready(server, name);
  });
  after(async () => { await server?.stop(); await rounds?.stop(); await old?.stop(); });

  /** The result of the only tool of a turn, and the turn's last event. */
  async function ask(tool) {
    const events = await run(server, `[[mock tool=${tool} args={}]]`);
    assert.equal(events.at(-1).event, 'turn.completed', JSON.stringify(events.at(-1)));
    const [result] = of(events, 'tool.result');
    return { given: result.output ?? result.error, usage: events.at(-1).data.usage };
  }
  const calls = async () => (await server.request('/admin/v1/usage', { key: keys.admin })).json.data.reduce((sum, row) => sum + row.calls, 0);

  test('the model answers, the state comes back as it was, and what it cost is counted', async () => {
    const { usage: alone } = await ask('may__wait');
    assert.ok(alone.output_tokens > 0, JSON.stringify(alone));
    await waitFor(async () => await calls() === 2, 'the calls of the turn in the record', 30000);
    for (let i = 0; i < 4; i++) {
      rounds.seen.length = 0;
      const { given, usage: used } = await ask('may__ask_model');
      const [, state, json] = /^(ünchanged "state"\\n) (.*)$/.exec(given);
      assert.equal(state, 'ünchanged "state"\\n');
      const { role, content, model, stopReason } = JSON.parse(json);
      assert.deepEqual([role, content.type, model, stopReason], ['assistant', 'text', 'mock', 'endTurn']);
      assert.match(content.text, /what is.*this/);
      assert.equal(rounds.seen.length, 2);
      assert.notEqual(rounds.seen[0].id, rounds.seen[1].id);
      assert.deepEqual(rounds.seen.map(({ capabilities }) => capabilities), [{ sampling: {} }, { sampling: {} }]);
      assert.deepEqual(rounds.seen[1].params.arguments, {});
      assert.ok(used.output_tokens > alone.output_tokens && used.cost > alone.cost, JSON.stringify([used, alone]));
    }
    // Each turn had two of its own, and one for the tool.
    await waitFor(async () => await calls() === 2 + 4 * 3, 'all of them in the record', 30000);
  });

  test('several at once, folders of which there are none, and a server that only wants to be asked later', async () => {
    const [one, two, roots] = JSON.parse((await ask('may__ask_two')).given);
    assert.match(one, /one/);
    assert.match(two, /two/);
    assert.deepEqual(roots, { roots: [] });
    assert.equal((await ask('may__wait')).given, 'waited');
    assert.equal((await ask('shy__wait')).given, 'waited');
  });

  test('who may not, or asks for the user, is told so; rounds have an end', async () => {
    rounds.seen.length = 0;
    assert.match((await ask('shy__ask_model')).given, /asks for a model's answer.*turn_sampling/);
    assert.deepEqual(rounds.seen.map(({ capabilities }) => capabilities), [{}]);
    assert.match((await ask('may__ask_user')).given, /asks the user/);
    rounds.seen.length = 0;
    assert.match((await ask('may__for_ever')).given, /too many rounds/);
    assert.equal(rounds.seen.length, 4);
    assert.match((await ask('may__ask_much')).given, /too much at once/);
  });

  test('a model that fails is the tool\'s failure, and the turn goes on', async () => {
    assert.match((await ask('may__ask_fault')).given, /model/i);
  });

  test('an older server is answered in the midst of the call', async () => {
    for (let i = 0; i < 4; i++) {
      const { role, content, model } = JSON.parse((await ask('mayold__ask_model')).given);
      assert.deepEqual([role, content.type, model], ['assistant', 'text', 'mock']);
      assert.match(content.text, /hi\s+there/);
    }
    assert.deepEqual(JSON.parse((await ask('mayold__ask_roots')).given), { roots: [] });
    assert.equal((await ask('mayold__ask_user')).given, 'refused -32601');
  });

  test('a turn that is cancelled leaves nothing behind', async () => {
    const { json: session } = await server.request('/v1/sessions', { key: keys.client, body: {} });
    const events = await server.stream(`/v1/sessions/${session.id}/turns`, { key: keys.client, body: { stream: true, input: '[[mock tool=may__ask_slowly args={}]]' } });
    rounds.seen.length = 0;
    const all = (async () => { const seen = []; for await (const event of events) seen.push(event); return seen; })();
    await waitFor(() => rounds.seen.some(({ name }) => name === 'ask_slowly'), 'the tool to be called');
    const { status } = await server.request(`/v1/sessions/${session.id}/turns/${events.headers['x-parley-turn']}/cancel`, { key: keys.client, method: 'POST' });
    assert.equal(status, 200);
    assert.equal((await all).at(-1).event, 'turn.cancelled');
    await waitFor(async () => (await server.request('/health')).json.checks.providers.providers.mock.in_use === 0, 'the model to be let go');
  });
});
