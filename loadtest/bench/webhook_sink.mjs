// webhook_sink - endpoints that cost next to nothing: N listeners, each answers every POST with 200 as soon as it is whole.
//
//   node webhook_sink.mjs 9      prints "ports 1,2,3,..", then every 100 ms "count N bytes B"
import net from 'node:net';

const answer = Buffer.from('HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok');
let count = 0, bytes = 0;

function serve(socket) {
  let rest = null, missing = 0;
  socket.setNoDelay(true);
  socket.on('error', () => {});
  socket.on('data', (part) => {
    bytes += part.length;
    if (missing > 0) {
      missing -= part.length;
      if (missing > 0) return;
      count++;
      socket.write(answer);
      return;
    }
    const all = rest === null ? part : Buffer.concat([rest, part]);
    const end = all.indexOf('\r\n\r\n');
    if (end < 0) {
      rest = all;
      return;
    }
    rest = null;
    // One request at a time: nobody pipelines.
    const length = Number(/content-length: (\d+)/i.exec(all.toString('latin1', 0, end))?.[1] ?? 0);
    missing = length - (all.length - end - 4);
    if (missing > 0) return;
    count++;
    socket.write(answer);
  });
}

const servers = await Promise.all(Array.from({ length: Number(process.argv[2] ?? 1) }, () => new Promise((resolve) => {
  const server = net.createServer(serve).listen(0, '127.0.0.1', 2048, () => resolve(server));
})));
console.log(`ports ${servers.map((server) => server.address().port).join(',')}`);
let told = -1;
setInterval(() => {
  if (told !== count) console.log(`count ${told = count} bytes ${bytes}`);
}, 20);
