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

/** Those of the process's sockets; of one that has ended there are none. */
function inodes(pid) {
  let names;
  try {
    names = fs.readdirSync(`/proc/${pid}/fd`);
  } catch (e) {
    if (e.code !== 'ENOENT' && e.code !== 'ESRCH') throw e;
    return [];
  }
  return names.flatMap((fd) => {
    try {
      return /^socket:\[(\d+)\]$/.exec(fs.readlinkSync(`/proc/${pid}/fd/${fd}`))?.[1] ?? [];
    } catch {
      return []; // closed meanwhile
    }
  });
}

/** Map from the client's port to the pid that holds the other end; a connection nobody accepted yet is in none. */
export function holders(server_port, pids) {
  const owners = new Map(pids.flatMap((pid) => inodes(pid).map((inode) => [inode, pid])));
  const held = new Map();
  // The kernel's list is not of one moment: while many come and go one may be missing. It is read until nothing is new.
  for (let known = -1; held.size > known;) {
    known = held.size;
    for (const { inode, port } of established(server_port)) if (owners.has(inode)) held.set(port, owners.get(inode));
  }
  return held;
}
