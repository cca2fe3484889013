// events - one event to 10,000 subscribers over each way of hearing it: p99 of its arrival, the core's time of one delivery, and
// what a subscriber that only waits costs.
//
// Subscribers are plain sockets of this process, which notes when bytes come: its own core is part of what an arrival takes.
import net from 'node:net';
import { keys, startServer } from '../../t/wire/lib/server.mjs';
import { waitFor } from '../../t/wire/lib/wait.mjs';
import { all_pids, cpuMicros, median, print, pssBytes } from './lib.mjs';

const count = 10000, events = 20, at_once = 100;
const END = '\x1e';

/** A text frame of a client; the key of masking may be nothing. */
function frame(text) {
  const body = Buffer.from(text);
  return Buffer.concat([Buffer.from([0x81, 0x80 | body.length, 0, 0, 0, 0]), body]);
}

const upgrade = (route, key) => `GET ${route} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${key}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n`;

const ways = {
  '/v1/events': { head: `GET /v1/events?topics=notifications HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${keys.client}\r\n\r\n`, ready: 'event: ready' },
  '/ws/events': {
    head: upgrade('/ws/events', keys.client), upgraded: frame('{"action":"subscribe","request_id":"a","payload":{"topics":["notifications"]}}'), ready: '"subscribed"',
  },
  '/hubs/notifications': { head: upgrade('/hubs/notifications', keys.client), upgraded: frame(`{"protocol":"json","version":1}${END}`), ready: `{}${END}` },
};

function open(port, i, { head, upgraded, ready }, note) {
  return new Promise((resolve, reject) => {
    const socket = net.connect({ port, host: '127.0.0.1', localAddress: `127.0.0.${2 + (i % 8)}` }, () => socket.write(head));
    let seen = '', state = upgraded ? 'head' : 'ready';
    socket.on('error', reject);
    socket.on('data', (data) => {
      if (state === 'live') return note(data);
      seen += data;
      if (state === 'head' && seen.includes('\r\n\r\n')) {
        state = 'ready';
        socket.write(upgraded);
      }
      if (state === 'ready' && seen.includes(ready)) {
        state = 'live';
        seen = null;
        resolve(socket);
      }
    });
  });
}

export default async function eventsBench() {
  for (const [name, way] of Object.entries(ways)) {
    const server = await startServer(null, { mock: false, config: { workers: 2, max_connections: 15000, websocket: { ping_interval: '0s' },
      events: { keepalive_interval: '10m', client_timeout: '1h' }, http: { max_keepalive_requests: 0 }, drain: { spread: '0s' } } });
    server.expectLog(/limit|descriptor/);
    let arrivals = [], began = 0;
    const note = () => arrivals.push(performance.now() - began);
    for (let i = 0; i < 50; i++) (await open(server.port, i, way, () => {})).destroy();
    const before = pssBytes(all_pids(server)), sockets = [];
    for (let i = 0; i < count; i += at_once) sockets.push(...await Promise.all(Array.from({ length: at_once }, (_, k) => open(server.port, i + k, way, note))));
    const idle = (pssBytes(all_pids(server)) - before) / count;
    const p99s = [];
    let cpu = 0;
    for (let e = 0; e < events; e++) {
      arrivals = [];
      const start = cpuMicros(all_pids(server));
      began = performance.now();
      await server.request('/admin/v1/announcements', { key: keys.admin, body: { message: `event ${e}` } });
      await waitFor(() => arrivals.length >= count, 'all arrivals', 30000);
      cpu += cpuMicros(all_pids(server)) - start;
      p99s.push(arrivals.sort((a, b) => a - b)[Math.floor(count * 0.99)]);
    }
    print(`${name}: p99 of arrival at ${count} subscribers`, median(p99s), 'ms', `median of ${events} events, 2 workers; the reader is one process`);
    print(`${name}: CPU per delivery`, cpu / (events * count), 'us', 'user and system, all of the server');
    print(`${name}: an idle subscriber`, idle, 'bytes PSS', `${count}, kernel not counted`);
    for (const socket of sockets) socket.destroy();
    await server.stop();
  }
}
