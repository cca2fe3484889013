// fleet - instances that exist only in Redis: their registry and what they report, written by a client of its own.
//
//   const fleet = await fleetOf(redis, 'prefix:');
//   const sums = await fleet.write(1000);      {keys: {hits, misses, entries}, ..}; fleet.names, fleet.counts (by name and region)
//   await fleet.command('GET', 'key');  await fleet.pipeline([['SET', 'a', 'b'], ..]);  fleet.close();
import net from 'node:net';

export const regions = ['keys', 'apps', 'tools', 'sessions'];
const buckets = 19;

/** One reply at an offset of a text: [value, next offset], or null while it is not whole. */
function parse(text, at) {
  const end = text.indexOf('\r\n', at);
  if (end < 0) return null;
  const line = text.slice(at + 1, end);
  if (text[at] !== '$') return [text[at] === '-' ? new Error(line) : line, end + 2];
  const length = Number(line);
  if (length < 0) return [null, end + 2];
  return text.length >= end + 4 + length ? [text.slice(end + 2, end + 2 + length), end + 4 + length] : null;
}

class Fleet {
  constructor(socket, prefix) {
    Object.assign(this, { socket, prefix, names: [], counts: new Map(), waiting: [], text: '' });
    socket.setEncoding('latin1').on('data', (data) => {
      this.text += data;
      let at = 0;
      for (let found; at < this.text.length && (found = parse(this.text, at)) !== null; at = found[1]) this.waiting.shift()(found[0]);
      this.text = this.text.slice(at);
    });
  }

  pipeline(commands) {
    const words = commands.map((argv) => `*${argv.length}\r\n${argv.map((word) => `$${Buffer.byteLength(String(word))}\r\n${word}\r\n`).join('')}`);
    const replies = Promise.all(commands.map(() => new Promise((resolve) => { this.waiting.push(resolve); })));
    this.socket.write(words.join(''));
    return replies.then((all) => {
      for (const reply of all) if (reply instanceof Error) throw reply;
      return all;
    });
  }

  async command(...argv) {
    return (await this.pipeline([argv]))[0];
  }

  /** So many instances that report once and are not late for ten minutes. */
  async write(count) {
    const sums = Object.fromEntries(regions.map((region) => [region, { hits: 0, misses: 0, entries: 0 }]));
    const now = Date.now();
    const commands = [];
    for (let i = 0; i < count; i++) {
      const name = (0xa000000000000000n + BigInt(i) * 7n).toString(16);
      const of = {};
      for (const [r, region] of regions.entries()) {
        of[region] = { hits: 1000 * (i + 1) + r, misses: 3 * i + r, entries: i + 10 * r };
        for (const figure of Object.keys(sums[region])) sums[region][figure] += of[region][figure];
        commands.push(['SET', `${this.prefix}stats:${name}:${region}`, reportOf(now, of[region])]);
      }
      commands.push(['ZADD', `${this.prefix}instances`, now + 600000, name]);
      this.names.push(name);
      this.counts.set(name, of);
    }
    await this.pipeline(commands);
    return sums;
  }

  close() {
    this.socket.destroy();
  }
}

/** As worker/stats/report.h says: all lookups took between 100 and 250 us. */
export function reportOf(at, { hits, misses, entries }) {
  const counts = (prefix, n) => `${prefix}hits=${n * hits} ${prefix}misses=${n * misses} ${prefix}entries=${n * entries} ${prefix}us=${n * 200 * (hits + misses)} ` +
    `${prefix}times=${Array.from({ length: buckets }, (_, i) => (i === 1 ? n * (hits + misses) : 0)).join()}`;
  return `v=1 at=${at} interval=600000 ${counts('', 1)} was_at=0 ${counts('was_', 0)}`;
}

export async function fleetOf(redis, prefix) {
  const socket = net.connect(redis.socket);
  await new Promise((resolve, reject) => socket.once('connect', resolve).once('error', reject));
  return new Fleet(socket, prefix);
}
