// peers - servers of others, and ours, each of which answers {"action":"ping"} with {"status":"pong"} on a WebSocket.
//
// Every one runs as one process that does the work (ours has its master beside it), as its authors ship it, without a log of
// requests. A peer is {name, start(), is_silent (its messages are compressed: it only stands)}; start() gives {address, pid, key, args, stop()}, args being what parley_load needs to
// speak to it.
import path from 'node:path';
import { Child, root } from '../../t/wire/lib/process.mjs';
import { keys, startServer } from '../../t/wire/lib/server.mjs';

const folder = path.join(root, 'loadtest/bench/peers');
const ping = '{"action":"ping"}';

async function parley() {
  const server = await startServer(null, { mock: false, config: { workers: 1, max_connections: 15000 } });
  return { address: server.address, pid: server.pid, key: keys.server, args: ['--say', ping], stop: () => server.stop() };
}

const foreign = (command, file, given, args) => async () => {
  const child = new Child(command, [path.join(folder, file), ...given]);
  const [, address] = await child.line(/listening (127\.0\.0\.1:\d+)/);
  const stop = async () => {
    const { code, signal } = await child.stop();
    if (code !== 0 && signal !== 'SIGTERM') throw new Error(`${file} ended with ${code}:\n${child.output()}`);
  };
  return { address, pid: child.pid, key: null, args, stop };
};

const python = '/usr/bin/python3'; // Debian's, which has Debian's modules
const plain = ['--path', '/', '--say', ping];

export const peers = [
  { name: 'parleyd, /ws/chat', start: parley },
  { name: 'ws', start: foreign(process.execPath, 'ws_echo.mjs', [], plain) },
  { name: 'socket.io', start: foreign(process.execPath, 'socketio_echo.mjs', [],
    ['--path', '/socket.io/?EIO=4&transport=websocket', '--greet', '40', '--greeted', '40', '--say', `42["message",${ping}]`]) },
  { name: 'uvicorn + websockets', start: foreign(python, 'uvicorn_echo.py', [], plain) },
  { name: 'uvicorn, permessage-deflate', start: foreign(python, 'uvicorn_echo.py', ['deflate'], [...plain, '--deflate']), is_silent: true },
];
