// Texts that are no UTF-8, where a client may put some: both databases are asked for them, and neither fails over it.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { keys, startServer } from './lib/server.mjs';

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
