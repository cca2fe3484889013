// netns - hosts in network namespaces of their own, each with two links to the test: one for clients and providers, and one
// for the databases, which can be cut so that nobody is told (root only).
//
//   const network = await startNetwork(t, 2);      null where that is not permitted
//   const [a, b] = network.hosts;                   a.wrap, a.address (its own for clients), a.front, a.back (ours on its links)
//   a.cut(); a.heal();
import { execFileSync } from 'node:child_process';

const ip = (...args) => execFileSync('ip', args.map(String), { stdio: 'pipe' });

class NetworkHost {
  constructor(n) {
    const net = `10.${64 + ((process.pid >> 8) & 63)}.${process.pid & 255}`, first = 8 * n;
    Object.assign(this, {
      name: `parley-${process.pid}-${n}`, links: ['f', 'b'].map((kind) => `p${kind}${process.pid}-${n}`),
      front: `${net}.${first + 1}`, address: `${net}.${first + 2}`, back: `${net}.${first + 5}`, back_address: `${net}.${first + 6}`,
    });
    this.wrap = ['ip', 'netns', 'exec', this.name];
  }

  start() {
    ip('netns', 'add', this.name);
    ip('-n', this.name, 'link', 'set', 'lo', 'up');
    for (const [i, [ours, its]] of [[this.front, this.address], [this.back, this.back_address]].entries()) {
      const link = this.links[i], peer = `${link}p`.slice(-15);
      ip('link', 'add', link, 'type', 'veth', 'peer', 'name', peer, 'netns', this.name);
      ip('addr', 'add', `${ours}/30`, 'dev', link);
      ip('-n', this.name, 'addr', 'add', `${its}/30`, 'dev', peer);
      ip('link', 'set', link, 'up');
      ip('-n', this.name, 'link', 'set', peer, 'up');
    }
  }

  cut() {
    ip('link', 'set', this.links[1], 'down');
  }

  heal() {
    ip('link', 'set', this.links[1], 'up');
  }

  stop() {
    try {
      ip('netns', 'del', this.name); // the links go with it
    } catch {
      // it never was
    }
  }
}

export async function startNetwork(t, count) {
  if (process.getuid() !== 0) return null;
  const hosts = Array.from({ length: count }, (_, n) => new NetworkHost(n));
  t.after(() => hosts.forEach((host) => host.stop()));
  try {
    for (const host of hosts) host.start();
  } catch (e) {
    t.diagnostic(`no network namespaces here: ${String(e.stderr ?? e.message).trim()}`);
    for (const host of hosts) host.stop();
    return null;
  }
  return { hosts };
}
