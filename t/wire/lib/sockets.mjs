// sockets - which process holds the server's end of a connection, from /proc.
import fs from 'node:fs';

/** The server's ends of established connections: [{inode, port}], port being the client's. */
function established(server_port) {
  const found = [];
  for (const line of fs.readFileSync('/proc/net/tcp', 'utf8').split('\n').slice(1)) {
    const [, local, remote, state, , , , , , inode] = line.trim().split(/\s+/);
    if (state === '01' && parseInt(local.split(':')[1], 16) === server_port) found.push({ inode, port: parseInt(remote.split(':')[1], 16) });
  }
  return found;
}

/** How many connections wait in accept queues: they have no inode yet. */
export function unaccepted(server_port) {
  return established(server_port).filter(({ inode }) => inode === '0').length;
}

/** Map from the client's port to the pid that holds the other end; a connection nobody accepted yet is in none. */
export function holders(server_port, pids) {
  const ports = new Map(established(server_port).map(({ inode, port }) => [inode, port]));
  const held = new Map();
  for (const pid of pids) {
    for (const fd of fs.readdirSync(`/proc/${pid}/fd`)) {
      let link;
      try {
        link = fs.readlinkSync(`/proc/${pid}/fd/${fd}`);
      } catch {
        continue; // closed meanwhile
      }
      const inode = /^socket:\[(\d+)\]$/.exec(link)?.[1];
      if (ports.has(inode)) held.set(ports.get(inode), pid);
    }
  }
  return held;
}
