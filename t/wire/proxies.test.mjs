// What stands in front: the real nginx and HAProxy with the examples of etc/, before two hosts with one record and one Redis.
import assert from 'node:assert/strict';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { collect, request, stream } from './lib/http.mjs';
import { sharedPostgres } from './lib/postgres.mjs';
import { skip_haproxy, skip_nginx, startHaproxy, startNginx } from './lib/proxies.mjs';
import { startRedis } from './lib/redis.mjs';
import { is_last_event, keys, plainProvider, startMock, startServer } from './lib/server.mjs';
import { certificate } from './lib/tls.mjs';
import { startUpstream } from './lib/upstream.mjs';
import { waitFor } from './lib/wait.mjs';
import { is_last, openChat, text_of } from './lib/ws.mjs';

const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'parley-proxies-'));
const files = certificate(dir, 'hosts');
const pieces = ['One ', 'token ', 'after ', 'the ', 'other.'];
let redis, mock, stepwise, hosts, released;

/** An answer whose next token is sent when release() is called: who reads it must have the one before. */
async function respondStepwise(request, response) {
  response.writeHead(200, { 'content-type': 'text/event-stream' });
  for (const [i, content] of pieces.entries()) {
    await waitFor(() => released >= i, `token ${i - 1} to come out in front`);
    response.write(`data: ${JSON.stringify({ choices: [{ index: 0, delta: { content } }] })}\n\n`);
  }
  response.end(`data: ${JSON.stringify({ choices: [{ index: 0, delta: {}, finish_reason: 'stop' }] })}\n\ndata: [DONE]\n\n`);
}

async function startHost(t, url, more = {}) {
  const host = await startServer(t, {
    mock,
    config: {
      workers: 2, log: { access: true }, trusted_proxies: ['127.0.0.1/32'], tls: { ...files, listen: ['127.0.0.1:0'] },
      backplane: { url: redis.url }, store: { url, pool_size: 2 },
      providers: [plainProvider('mock', mock.url), plainProvider('stepwise', stepwise.url)],
      models: [{ name: 'default', targets: [{ provider: 'mock', model: 'mock' }] }, { name: 'stepwise', targets: [{ provider: 'stepwise', model: 'any' }] }],
      apps: [{ id: 'demo', name: 'Demo', org: 'demo', client_may: ['model', 'tools'] }],
      // As by default, but for the end of what still runs.
      drain: { pause: '5s', timeout: '10s' },
      ...more,
    },
  });
  host.tls_address = (await host.line(/listening address=(\S+) kind=(?:https|tls)/))[1];
  return host;
}

before(async () => {
  [redis, mock, stepwise] = await Promise.all([startRedis(null), startMock(null), startUpstream(null, respondStepwise)]);
  const url = await (await sharedPostgres()).newDatabase();
  hosts = [await startHost(null, url), await startHost(null, url)];
});
after(async () => {
  for (const host of hosts ?? []) await host.stop();
  await redis?.stop();
  await mock?.stop();
  await stepwise?.close();
  fs.rmSync(dir, { recursive: true });
});

const call = (front, route, options) => request(front.url + route, { key: keys.client, ...options });
const newSession = async (front, body = {}) => {
  const { status, json, text } = await call(front, '/v1/sessions', { body });
  assert.equal(status, 201, text);
  return json.id;
};

/** The address of the client as the host that served it wrote down. */
async function clientOf(id) {
  const find = () => hosts.flatMap((host) => host.lines).map((line) => new RegExp(`client=(\\S+) .*request_id=${id}\\b`).exec(line)).find(Boolean);
  return (await waitFor(find, `line of ${id}`))[1];
}

function aFront(start) {
  let front;
  before(async () => { front = await start(hosts); });
  after(() => front?.end());

  test('an event stream comes out token by token', async () => {
    released = 0;
    const id = await newSession(front);
    const events = await stream(`${front.url}/v1/sessions/${id}/turns`, { key: keys.client, body: { input: 'go', stream: true, model: 'stepwise' } });
    assert.equal(events.status, 200, events.text);
    let text = '';
    for await (const { event, data } of events) {
      if (event === 'text.delta') {
        text += data.text;
        released++;
      }
      if (is_last_event({ event })) assert.equal(event, 'turn.completed');
    }
    assert.equal(text, pieces.join(''));
    assert.equal(released, pieces.length, 'each token came by itself');
  });

  test('a WebSocket chats, token by token, and is closed in good order', async (t) => {
    released = 0;
    const chat = await openChat(t, front);
    const request_id = chat.chat({ text: 'go', model: 'stepwise' });
    for (let i = 0; i < pieces.length; i++) {
      await waitFor(() => chat.frames.filter(({ status }) => status === 'chunk').length > i, `token ${i}`);
      released++;
    }
    const frames = await chat.answer(request_id);
    assert.equal(frames.at(-1).status, 'complete');
    assert.equal(text_of(frames), pieces.join(''));
    assert.equal((await chat.close()).code, 1000);
  });

  test('the client is who came to the proxy, whatever it says of itself', async () => {
    for (const headers of [{}, { 'x-forwarded-for': '203.0.113.7' }, { 'x-forwarded-for': '127.0.0.1' }]) {
      const id = `front-${Math.random().toString(36).slice(2)}`;
      await call(front, '/health/live', { localAddress: '127.0.0.9', headers: { ...headers, 'x-request-id': id } });
      assert.equal(await clientOf(id), '127.0.0.9');
    }
  });

  test('/metrics is not to be had through it; large bodies are', async () => {
    assert.equal((await call(front, '/metrics')).status, 404);
    const body = { model: 'default', messages: [{ role: 'user', content: 'x'.repeat(4 << 20) }] };
    const { status, text } = await call(front, '/v1/chat/completions', { key: keys.server, body });
    assert.equal(status, 200, text.slice(0, 300));
  });
  return () => front;
}

function aFrontThatDrains(front_of) {
  test('a host that drains: every request is served, every turn ends whole', async (t) => {
    const front = front_of(), leaving = hosts[0];
    const done = { turns: 0, chats: 0, moved: 0 };
    let is_over = false;
    const turns = Array.from({ length: 8 }, async () => {
      while (!is_over) {
        const id = await newSession(front);
        const events = await stream(`${front.url}/v1/sessions/${id}/turns`, { key: keys.client, body: { stream: true, input: '[[mock tokens=20 interval=5]]' } });
        assert.equal(events.status, 200, events.text);
        assert.equal((await collect(events, is_last_event)).at(-1).event, 'turn.completed');
        done.turns++;
      }
    });
    const chats = Array.from({ length: 4 }, async () => {
      let chat = await openChat(t, front);
      while (!is_over) {
        const request_id = chat.chat('[[mock tokens=20 interval=5]]');
        const of_it = () => chat.frames.filter((frame) => frame.request_id === request_id);
        await waitFor(() => chat.closed || is_last(of_it().at(-1) ?? {}), 'end of a chat');
        const is_refused = of_it().length === 1 && of_it()[0].chunk?.code === 'draining';
        if (is_refused) await chat.end();
        else if (of_it().length > 0) {
          assert.equal(of_it().at(-1).status, 'complete', `what had begun was not ended: ${JSON.stringify(of_it().at(-1))}`);
          done.chats++;
        }
        if (!chat.closed) continue;
        // It was told to go; what it had asked at that moment was refused or not begun, and is asked again.
        assert.equal(chat.closed.code, 1001);
        done.moved++;
        chat = await openChat(t, front);
      }
    });
    await waitFor(() => done.turns > 20 && done.chats > 8, 'load');
    leaving.kill('SIGTERM');
    assert.equal((await Promise.race([leaving.ended, ...turns, ...chats])).code, 0);
    const so_far = done.turns;
    await waitFor(() => done.turns > so_far + 20, 'turns of the other host');
    is_over = true;
    await Promise.all([...turns, ...chats]);
    hosts[0] = await startHost(null, leaving.config.store.url, { listen: [leaving.address], tls: { ...files, listen: [leaving.tls_address] } });
    await leaving.stop();
  });
}

describe('nginx', { skip: skip_nginx }, () => { aFrontThatDrains(aFront(startNginx)); });

describe('HAProxy', { skip: skip_haproxy }, () => {
  const front = aFront(startHaproxy);
  aFrontThatDrains(front);

  test('TLS that ends at Parley: the PROXY protocol says who the client is', async () => {
    const id = `front-${Math.random().toString(36).slice(2)}`;
    const answer = await request(`https://127.0.0.1:${front().tls_port}/health/live`, {
      localAddress: '127.0.0.9', ca: fs.readFileSync(files.certificate), headers: { 'x-request-id': id },
    });
    assert.equal(answer.status, 200);
    assert.equal(await clientOf(id), '127.0.0.9');
  });
});
