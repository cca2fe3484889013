// Clients of older revisions at tools of 2026-07-28 that ask back by input_required: they are asked in their own form, and the call is
// made again with what they answered, whichever of 4 workers that was posted to.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { ElicitRequestSchema } from '@modelcontextprotocol/sdk/types.js';
import { connect, transports } from './lib/asked.mjs';
import { ready } from './lib/programs.mjs';
import { startRounds } from './lib/rounds.mjs';
import { keys, startServer } from './lib/server.mjs';
import { waitFor } from './lib/wait.mjs';

async function say(client, name, options) {
  const { content: [{ text }], isError } = await client.callTool({ name: `web__${name}`, arguments: { kept: 'as it was' } }, undefined, options);
  return { text, failed: isError === true };
}

describe('older clients', () => {
  let server, rounds;
  before(async () => {
    rounds = await startRounds();
    server = await startServer(null, { config: { mcp: { max_rounds: 3, client_timeout: '2s', servers: [{ name: 'web', url: rounds.url }, { name: 'shy', url: rounds.url, may_ask: ['roots'] }] }, tools: { server_timeout: '20s' } } });
    for (const name of ['web', 'shy']) await ready(server, name);
  });
  after(async () => { await server?.stop(); await rounds?.stop(); });

  for (const route of Object.keys(transports)) {
    test(`${route}: each is asked what its own call needs, and the server has its state back`, async () => {
      const clients = await Promise.all(['ann', 'bob', 'cid'].map((name) => connect(server, route, name).then((client) => ({ name, client }))));
      for (let i = 0; i < 3; i++) {
        rounds.seen.length = 0;
        await Promise.all(clients.map(async ({ name, client }) => {
          const { requestState, m, r, ...rest } = JSON.parse((await say(client, 'ask_three')).text);
          assert.deepEqual([requestState, m.content.text, r.roots, rest], ['a\nb', `model of ${name}`, [{ uri: `file:///${name}` }], { 'ü "q"': { action: 'accept', content: { name } } }]);
        }));
        assert.equal(rounds.seen.length, 6);
        for (const { capabilities, params } of rounds.seen) assert.deepEqual([capabilities, params.name, params.arguments], [{ sampling: {}, elicitation: {}, roots: {} }, 'ask_three', { kept: 'as it was' }]);
        assert.equal(new Set(rounds.seen.map(({ id, params }) => `${id} ${JSON.stringify(params._meta)}`)).size, 6);
      }
      assert.deepEqual(clients.map(({ client }) => client.asked), [9, 9, 9]);
      assert.deepEqual(await say(clients[0].client, 'wait'), { text: 'waited', failed: false });
      await Promise.all(clients.map(({ client }) => client.close()));
    });

    test(`${route}: who cannot be asked is told why, and so is who answers with an error, or not in time`, async () => {
      const mute = await connect(server, route, 'mute', {});
      assert.match((await say(mute, 'ask_user')).text, /elicitation\/create.*not declared/);
      assert.deepEqual(rounds.seen.at(-1).capabilities, {});
      const some = await connect(server, route, 'some', { elicitation: {} });
      assert.match((await say(some, 'ask_three')).text, /sampling\/createMessage.*not declared/);
      assert.deepEqual(rounds.seen.at(-1).capabilities, { elicitation: {} });
      const { content: [{ text }], isError } = await some.callTool({ name: 'shy__ask_user', arguments: {} });
      assert.ok(isError && /elicitation\/create.*cannot ask/.test(text), text);
      const all = await connect(server, route, 'all');
      for (const [name, why] of [['ask_much', /too much/], ['for_ever', /too many rounds/], ['ask_nothing_known', /unknown/], ['ask_rubbish', /no result/], ['a_task', /does not know/]]) {
        const { text: told, failed } = await say(all, name);
        assert.ok(failed && why.test(told), `${name}: ${told}`);
      }
      all.setRequestHandler(ElicitRequestSchema, () => { throw new Error('no "thanks"'); });
      assert.match((await say(all, 'ask_user')).text, /did not answer.*no "thanks"/);
      all.setRequestHandler(ElicitRequestSchema, () => new Promise(() => {}));
      assert.match((await say(all, 'ask_user')).text, /not answer in time/);
      for (const client of [mute, some, all]) await client.close();
    });

    test(`${route}: who takes the call back while it is asked is not asked again, and nothing goes to the server`, async () => {
      const client = await connect(server, route, 'dan');
      let resolve, is_withdrawn = false;
      client.setRequestHandler(ElicitRequestSchema, (_, { signal }) => new Promise((done) => { resolve = done; signal.addEventListener('abort', () => { is_withdrawn = true; }); }));
      const stop = new AbortController(), answer = say(client, 'ask_user', { signal: stop.signal });
      await waitFor(() => resolve !== undefined, 'the question', 30000);
      rounds.seen.length = 0;
      stop.abort();
      await assert.rejects(answer);
      await waitFor(() => is_withdrawn, 'the question to be withdrawn', 30000);
      resolve({ action: 'accept', content: {} });
      assert.deepEqual(await say(client, 'wait'), { text: 'waited', failed: false });
      assert.deepEqual([...new Set(rounds.seen.map(({ name }) => name))], ['wait']);
      await client.close();
    });
  }

  test('in a batch nobody can be asked', async () => {
    const initialize = { jsonrpc: '2.0', id: 1, method: 'initialize', params: { protocolVersion: '2025-03-26', capabilities: { sampling: {}, elicitation: {}, roots: {} }, clientInfo: { name: 'x', version: '1' } } };
    const { headers: { 'mcp-session-id': id } } = await server.request('/mcp', { key: keys.server, body: initialize });
    const { json } = await server.request('/mcp', { key: keys.server, headers: { 'mcp-session-id': id }, body: [{ jsonrpc: '2.0', id: 2, method: 'tools/call', params: { name: 'web__ask_user', arguments: {} } }] });
    assert.match(json[0].result.content[0].text, /cannot ask/);
    assert.equal(json[0].result.isError, true);
  });
});
