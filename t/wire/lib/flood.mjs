// flood - keeps a worker's core busy with what is never refused: /metrics, pipelined on many connections.
//
//   node flood.mjs PORT CONNECTIONS     until it is killed; a connection that breaks is made anew
import net from 'node:net';

const [port, connections] = process.argv.slice(2).map(Number);
const ahead = 4; // a round of the worker's loop answers them all: it must not last for seconds
const request = 'GET /metrics HTTP/1.1\r\nhost: flood\r\n\r\n';

function flow() {
  let outstanding = 0;
  const socket = net.connect(port, '127.0.0.1');
  const ask = () => {
    socket.write(request.repeat(ahead - outstanding));
    outstanding = ahead;
  };
  socket.on('connect', ask);
  socket.on('data', (bytes) => {
    for (let at = -1; (at = bytes.indexOf('HTTP/1.1 200', at + 1)) >= 0;) outstanding--;
    if (outstanding < ahead / 2) ask();
  });
  socket.on('error', () => {});
  socket.on('close', () => setTimeout(flow, 10));
}
for (let i = 0; i < connections; i++) flow();
