// socketio_echo - socket.io as a server that answers {"action":"ping"} with {"status":"pong"}, over WebSocket only, on its engine `ws`.
import { createServer } from 'node:http';
import { Server } from 'socket.io';

const http = createServer();
const io = new Server(http, { transports: ['websocket'], serveClient: false });
io.on('connection', (socket) => {
  socket.on('message', ({ action }) => {
    if (action === 'ping') socket.emit('message', { status: 'pong' });
  });
});
http.listen({ host: '127.0.0.1', port: 0, backlog: 2048 }, () => console.log(`listening 127.0.0.1:${http.address().port}`));
