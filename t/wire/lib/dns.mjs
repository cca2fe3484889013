// dns - a name server of the test's own, and a command in whose processes it is the only one (root only).
//
//   const dns = await startDns(t);       startServer(t, { wrap: dns.wrap, config: { backplane: { url: 'redis://redis.test:6379' } } })
//   dns.hang(); dns.answer();            silent; 127.0.0.1 for every name, or
//   dns.say('192.0.2.1');                that one
import dgram from 'node:dgram';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';

/** An answer of this address to a question for one; of nothing to any other. */
function respond(question, address) {
  let end = 12;
  while (question[end] !== 0) end += question[end] + 1;
  const is_a = question.readUInt16BE(end + 1) === 1;
  const head = Buffer.from(question.subarray(0, end + 5)); // without what may follow (EDNS)
  head.writeUInt16BE(0x8580, 2);
  head.writeUInt16BE(is_a ? 1 : 0, 6);
  head.writeUInt32BE(0, 8);
  return is_a ? Buffer.concat([head, Buffer.from([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4, ...address.split('.').map(Number)])]) : head;
}

/** Null where that needs more rights than we have. */
export async function startDns(t) {
  if (process.getuid() !== 0) return null;
  const dns = { asked: 0, is_hanging: false, address: '127.0.0.1', say: (one) => { dns.address = one; }, hang: () => { dns.is_hanging = true; }, answer: () => { dns.is_hanging = false; } };
  // The port is always 53: the address is ours alone.
  const address = `127.${100 + (process.pid >> 16) % 100}.${(process.pid >> 8) & 255}.${1 + process.pid % 254}`;
  const socket = dgram.createSocket('udp4');
  socket.on('message', (question, { port, address: from }) => {
    dns.asked++;
    if (!dns.is_hanging) socket.send(respond(question, dns.address), port, from);
  });
  await new Promise((resolve, reject) => {
    socket.on('error', reject);
    socket.bind(53, address, resolve);
  });
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'parley-dns-'));
  t.after(() => {
    socket.close();
    fs.rmSync(dir, { recursive: true, force: true });
  });
  const files = { 'resolv.conf': `nameserver ${address}\n`, 'nsswitch.conf': 'hosts: dns\n', hosts: '' };
  for (const [name, text] of Object.entries(files)) fs.writeFileSync(path.join(dir, name), text);
  const mounts = Object.keys(files).map((name) => `[ ! -e /etc/${name} ] || mount --bind ${dir}/${name} /etc/${name}`).join(' && ');
  dns.wrap = ['unshare', '--mount', 'sh', '-c', `${mounts} && exec "$@"`, 'sh'];
  return dns;
}
