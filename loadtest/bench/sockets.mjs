// sockets - many WebSockets on /ws/chat over TLS from this process, which say nothing: parley_load has no TLS.
import tls from 'node:tls';
import { keys } from '../../t/wire/lib/server.mjs';

const at_once = 64;
const upgrade = 'GET /ws/chat HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n'
  + `Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nAuthorization: Bearer ${keys.server}\r\n\r\n`;
const ping = Buffer.from([0x89, 0]), pong = Buffer.from([0x8a, 0x80, 0, 0, 0, 0]);

function open(port) {
  return new Promise((resolve, reject) => {
    const socket = tls.connect({ host: '127.0.0.1', port, rejectUnauthorized: false });
    socket.on('error', reject);
    socket.once('data', (head) => {
      if (!head.toString().startsWith('HTTP/1.1 101')) {
        reject(new Error(head.toString()));
        return;
      }
      socket.on('data', (bytes) => bytes.equals(ping) && socket.write(pong));
      resolve(socket);
    });
    socket.write(upgrade);
  });
}

/** Opens so many and holds them: {release()}, which fails when one did not stay. */
export async function holdSecure(port, count) {
  const sockets = [];
  await Promise.all(Array.from({ length: at_once }, async () => {
    for (let i = sockets.length; i < count; i = sockets.length) {
      sockets.push(null);
      sockets[i] = await open(port);
    }
  }));
  const release = async () => {
    const lost = sockets.filter((socket) => socket.readyState !== 'open').length;
    await Promise.all(sockets.map((socket) => new Promise((resolve) => {
      socket.on('close', resolve);
      socket.destroy();
    })));
    if (lost > 0) throw new Error(`${lost} of ${count} sockets did not stay`);
  };
  return { release };
}
