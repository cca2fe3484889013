// Texts that are no UTF-8, where a client may put some: both databases are asked for them, and neither fails over it.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { usageRows } from './lib/record.mjs';
import { keys, newSession, plainProvider, startServer, streamTurn } from './lib/server.mjs';
import { respondStream, startUpstream } from './lib/upstream.mjs';
import { waitFor } from './lib/wait.mjs';

for (const store of ['sqlite', 'postgres']) {
  test(`${store}: what is no text is the client's mistake, or nothing's name`, async (t) => {
    process.env.PARLEY_TEST_STORE = store;
    const server = await startServer(t);
    const input = { messages: [{ role: 'user', content: 'x' }] };
    const asks = [
      ...['/v1/tasks?after=%ff', '/v1/tasks?status=%ff%fe', '/v1/tasks?type=a%c3', '/v1/webhooks/deliveries?about=%ff', '/v1/webhooks/deliveries?endpoint=%ed%a0%80',
        '/v1/webhooks/deliveries/%ff', '/v1/sessions/%ff', '/v1/tasks/%ff'].map((path) => [path, { key: keys.server }]),
      ...['/admin/v1/webhooks/deliveries?app=%ff', '/admin/v1/webhooks/endpoints?after=%ff', '/admin/v1/keys?app=%ff'].map((path) => [path, { key: keys.admin }]),
      ['/admin/v1/webhooks/endpoints/%ff/enable', { key: keys.admin, method: 'POST' }],
      ['/v1/tasks', { key: keys.server, body: { type: 'chat.completion', input }, headers: { 'idempotency-key': '\xff\xfe' } }],
    ];
    for (const [path, options] of asks) {
      const { status, text } = await server.request(path, options);
      assert.ok(status < 500, `${path} ${status} ${text}`);
    }
    await server.stop();
  });
}

// As they stand in JSON: NUL, halves of a pair, alone and the wrong way round, what is no character, and the other controls.
const odd = ['a\\u0000b', '\\ud800', 'x\\udc00\\ud800y', '\\uffff\\ufffe', Array.from({ length: 31 }, (_, i) => `\\u00${(i + 1).toString(16).padStart(2, '0')}`).join(''), '\u{10ffff}'];

for (const store of ['sqlite', 'postgres']) {
  test(`${store}: whatever a model says, its turn ends, is in the record, and the session goes on`, { timeout: 120000 }, async (t) => {
    process.env.PARLEY_TEST_STORE = store;
    let say = '';
    const chunk = (delta, finish = null) => `data: {"choices":[{"index":0,"delta":${delta},"finish_reason":${finish}}]}\n\n`;
    const upstream = await startUpstream(t, (request, response) => {
      if (JSON.parse(request.text).messages.at(-1).content === 'fail') {
        response.writeHead(400, { 'content-type': 'application/json' });
        response.end(`{"error":{"message":"${say}","code":"${say}","type":"${say}"}}`);
        return;
      }
      respondStream(response, [chunk(`{"content":"${say}"}`), chunk(`{"content":"."}`, '"stop"'), `data: {"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":1}}\n\n`, 'data: [DONE]\n\n']);
    });
    const server = await startServer(t, { mock: false, config: { workers: 2, providers: [plainProvider('odd', upstream.url)],
      models: [{ name: 'default', targets: [{ provider: 'odd', model: 'm' }] }] } });
    server.expectLog(/provider call failed|turn failed/);
    const session = await newSession(server);
    let turns = 0;
    for (const text of [...odd, 'plain']) {
      for (const input of ['hi', 'fail']) {
        say = text;
        const events = await streamTurn(server, session.id, { input });
        const { event, data } = events.at(-1);
        turns++;
        // What no text can be made of is the provider's failure, and the record never sees it.
        assert.ok(event === 'turn.completed' || (event === 'turn.failed' && data.error.code.startsWith('provider')), `${text} ${JSON.stringify(events.at(-1))}`);
        if (!odd.slice(0, 3).includes(text)) assert.equal(event, input === 'hi' ? 'turn.completed' : 'turn.failed', JSON.stringify(events.at(-1)));
        const kept = await server.request(`/v1/sessions/${session.id}/turns/${events[0].data.turn_id ?? events[0].id.split('.')[0]}`, { key: keys.client });
        assert.equal(kept.json.state, event.split('.')[1], kept.text);
      }
    }
    const { json } = await server.request(`/v1/sessions/${session.id}/messages?limit=100`, { key: keys.client });
    assert.ok(JSON.stringify(json).includes('\\u0001'), JSON.stringify(json));
    await waitFor(() => usageRows(server).length === turns, 'a row of usage for each turn', 30000);
    await server.stop();
  });
}
