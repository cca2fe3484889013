// ws_echo - npm `ws` as a server that answers {"action":"ping"} with {"status":"pong"}.
//
// As its authors ship it: no permessage-deflate. The optional native modules are left out; they serve messages of 32 bytes and more.
import { WebSocketServer } from 'ws';

const server = new WebSocketServer({ host: '127.0.0.1', port: 0, backlog: 2048 });
server.on('connection', (socket) => {
  socket.on('message', (text) => {
    const { action } = JSON.parse(text);
    if (action === 'ping') socket.send(JSON.stringify({ status: 'pong' }));
  });
  socket.on('error', () => {});
});
server.on('listening', () => console.log(`listening 127.0.0.1:${server.address().port}`));
