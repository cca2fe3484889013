// Events over two hosts: heard at either, resumed from one to the other without loss or doubles, also when a host is killed and
// when Redis was away; hubs on a host that dies.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import * as signalR from '@microsoft/signalr';
import { isAlone, isUp, startHosts } from './lib/hosts.mjs';
import { sharedPostgres } from './lib/postgres.mjs';
import { startRedis } from './lib/redis.mjs';
import { keys, newSession, startMock, streamTurn } from './lib/server.mjs';
import { waitFor, within } from './lib/wait.mjs';

const key = keys.client;
let redis, mock, postgres, store_url, hosts;

before(async () => {
  [redis, mock, postgres] = await Promise.all([startRedis(null), startMock(null), sharedPostgres()]);
  store_url = await postgres.newDatabase();
  hosts = await startHosts(null, { redis, store_url, mock });
});
after(async () => {
  for (const host of hosts ?? []) await host.stop();
  await redis?.stop();
  await mock?.stop();
});

const announce = async (host, message) => {
  const { status, text } = await host.request('/admin/v1/announcements', { key: keys.admin, body: { message } });
  assert.equal(status, 202, text);
};

async function listen(host, topics, last) {
  const stream = await host.stream(`/v1/events?topics=${topics}`, { key, headers: last ? { 'last-event-id': last } : {} });
  assert.equal(stream.status, 200, stream.text);
  const self = { seen: [], last, close: () => stream.close() };
  self.end = (async () => {
    try {
      for await (const event of stream) {
        if (event.id) self.last = event.id;
        self.seen.push(event);
      }
    } catch {
      // closed, or its host was killed
    }
  })();
  self.named = (name) => self.seen.filter(({ event }) => event === name);
  self.messages = () => self.named('system.announcement').map(({ data }) => data.data.message);
  self.ready = () => waitFor(() => self.named('ready').length > 0, 'ready');
  return self;
}

test('what is said at one host is heard at the other', async () => {
  const streams = await Promise.all(hosts.map((host) => listen(host, 'notifications')));
  for (const stream of streams) await stream.ready();
  for (const [i, host] of hosts.entries()) await announce(host, `from ${i}`);
  for (const stream of streams) {
    await waitFor(() => stream.messages().length === 2, 'both');
    assert.deepEqual(stream.messages().sort(), ['from 0', 'from 1']);
    stream.close();
  }
  const { id } = await newSession(hosts[0]);
  const stream = await listen(hosts[1], `session:${id}`);
  await stream.ready();
  await streamTurn(hosts[0], id, { input: 'hello' });
  await waitFor(() => stream.named('turn.completed').length === 1, 'turn.completed');
  stream.close();
});

test('from host to host: nothing is lost, nothing is doubled', { timeout: 120000 }, async () => {
  const total = 100, heard = [];
  const first = await listen(hosts[0], 'notifications');
  await first.ready();
  let last = first.last, done = false;
  first.close();
  const speakers = hosts.map(async (host, h) => {
    for (let i = 0; i < total; i++) await announce(host, `${h}.${i}`);
  });
  const all = Promise.all(speakers).then(() => { done = true; });
  const whole = () => heard.length >= total * hosts.length;
  for (let turn = 0; !done || !whole(); turn++) {
    const stream = await listen(hosts[turn % 2], 'notifications', last);
    const some = 1 + Math.floor(Math.random() * 15);
    await waitFor(() => stream.messages().length >= some || (done && heard.length + stream.messages().length >= total * hosts.length), 'some');
    stream.close();
    await stream.end;
    for (const { data } of stream.named('ready')) assert.equal(data.gap, false);
    heard.push(...stream.messages());
    last = stream.last;
  }
  await all;
  assert.equal(heard.length, new Set(heard).size, 'something was heard twice');
  for (const h of hosts.keys()) {
    assert.deepEqual(heard.filter((message) => message.startsWith(`${h}.`)), Array.from({ length: total }, (_, i) => `${h}.${i}`));
  }
});

test('Redis was away: what was said meanwhile comes afterwards, once', { timeout: 120000 }, async () => {
  const streams = await Promise.all(hosts.map((host) => listen(host, 'notifications')));
  for (const stream of streams) await stream.ready();
  for (const host of hosts) host.expectLog(/backplane|stats/);
  await announce(hosts[0], 'before');
  for (const stream of streams) await waitFor(() => stream.messages().includes('before'), 'before');
  await redis.kill();
  for (const host of hosts) await isAlone(host);
  for (const [i, host] of hosts.entries()) {
    await announce(host, `alone ${i}`);
    await waitFor(() => streams[i].messages().includes(`alone ${i}`), 'its own, at once');
  }
  await redis.again();
  for (const host of hosts) await isUp(host);
  for (const stream of streams) {
    await waitFor(() => ['alone 0', 'alone 1'].every((message) => stream.messages().includes(message)), 'what the other has said', 30000);
    assert.equal(new Set(stream.messages()).size, stream.messages().length, JSON.stringify(stream.messages()));
    stream.close();
  }
});

test('Redis was away for more than is kept: nobody goes on as if nothing were missing', { timeout: 240000 }, async () => {
  const count = 300; // events.retain_count is 256
  const [live, gone] = [await listen(hosts[1], 'notifications'), await listen(hosts[1], 'notifications')];
  let has_ended = false;
  live.end.then(() => { has_ended = true; });
  for (const stream of [live, gone]) await stream.ready();
  for (const host of hosts) host.expectLog(/backplane|stats/);
  await announce(hosts[0], 'known');
  for (const stream of [live, gone]) await waitFor(() => stream.messages().includes('known'), 'what was said before');
  await redis.kill();
  for (const host of hosts) await isAlone(host);
  for (let i = 0; i < count; i += 20) await Promise.all(Array.from({ length: 20 }, (_, k) => announce(hosts[0], `late ${i + k}`)));
  await announce(hosts[0], 'all said');
  // The place of the one that goes is later than all of these.
  await announce(hosts[1], 'own');
  await waitFor(() => gone.messages().includes('own'), 'what its own host says');
  gone.close();
  await gone.end;
  await redis.again();
  for (const host of hosts) await isUp(host);
  const late = (stream) => stream.messages().filter((message) => message.startsWith('late ')).length;
  const back = await waitFor(async () => {
    const stream = await listen(hosts[1], 'notifications', gone.last);
    await stream.ready();
    stream.close();
    // One that was there while it was passed on may have heard it all.
    return stream.messages().includes('all said') && late(stream) < count && stream;
  }, 'what was passed on', 30000);
  assert.equal(back.named('ready')[0].data.gap, true);
  // Who stayed has heard each, or is told to come back.
  await waitFor(() => has_ended || late(live) === count, 'all of it, or the end', 30000);
  live.close();
});

test('more topics than commands that may wait for Redis: all of them are heard', { timeout: 240000 }, async (t) => {
  const own = await startRedis(t), count = 100;
  const pair = await startHosts(t, { redis: own, store_url: await postgres.newDatabase(), mock, config: { workers: 2, backplane: { max_commands: 40 } } });
  for (const host of pair) host.expectLog(/backplane|stats/);
  const ids = [];
  for (let i = 0; i < count; i++) ids.push((await newSession(pair[0])).id);
  const stream = await listen(pair[1], ids.map((id) => `session:${id}`).join(','));
  await stream.ready();
  const wanted = async () => [...(await own.command('KEYS', '*evsub:*')).matchAll(/session:sess_/g)].length;
  await waitFor(async () => await wanted() === count, 'an inbox for each topic', 30000);
  await own.kill();
  for (const host of pair) await isAlone(host);
  await own.again();
  for (const host of pair) await isUp(host);
  await waitFor(async () => await wanted() === count, 'an inbox for each topic again', 30000);
  for (const id of ids) assert.equal((await pair[0].request(`/v1/sessions/${id}`, { method: 'DELETE', key })).status, 200);
  await waitFor(() => new Set(stream.named('session.closed').map(({ data }) => data.topic)).size === count, 'all of them', 30000);
  stream.close();
});

test('a host is killed: its streams and hubs go on at the other', { timeout: 120000 }, async () => {
  const stream = await listen(hosts[0], 'notifications');
  await stream.ready();
  const clients = [1, 2, 4].map((transport) => {
    const heard = new Set();
    // A client of a hub finds another host through its balancer.
    const connection = new signalR.HubConnectionBuilder().configureLogging(signalR.LogLevel.None)
      .withUrl(`${hosts[0].url}/hubs/notifications`, { transport, accessTokenFactory: () => keys.server })
      .withAutomaticReconnect({ nextRetryDelayInMilliseconds: () => 50 })
      .build();
    connection.on('SystemAnnouncement', ({ message }) => heard.add(message));
    connection.onreconnecting(() => { connection.baseUrl = `${hosts[1].url}/hubs/notifications`; });
    return { connection, heard };
  });
  for (const { connection } of clients) await within(connection.start(), 'start');
  await announce(hosts[1], 'both live');
  await waitFor(() => stream.messages().includes('both live'), 'both live');
  hosts[0].expectLog(/./);
  await hosts[0].stop({ signal: 'SIGKILL' });
  await stream.end;
  await announce(hosts[1], 'while nobody heard');
  const again = await listen(hosts[1], 'notifications', stream.last);
  await again.ready();
  assert.deepEqual(again.messages(), ['while nobody heard']);
  await waitFor(async () => {
    await announce(hosts[1], 'all');
    return clients.every(({ heard }) => heard.has('all'));
  }, 'hubs', 30000);
  for (const { connection } of clients) await connection.stop();
  again.close();
});
