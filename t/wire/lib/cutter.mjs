// cutter - a TCP relay that a test can cut, hold and open again: what happens to a network.
//
//   const cutter = await startCutter(t, { port: postgres.port });      cutter.port
//   cutter.cut(); cutter.refuse(); cutter.hold(); cutter.open();
import net from 'node:net';

class Cutter {
  constructor(target) {
    Object.assign(this, { target, pairs: new Set(), is_refusing: false, is_held: false, accepted: 0 });
    this.server = net.createServer((near) => this.join(near));
  }

  join(near) {
    this.accepted++;
    if (this.is_refusing) {
      near.resetAndDestroy();
      return;
    }
    const far = net.connect(this.target.port, '127.0.0.1');
    const pair = { near, far };
    this.pairs.add(pair);
    for (const [from, to] of [[near, far], [far, near]]) {
      from.setNoDelay(true);
      from.on('data', (part) => to.write(part));
      from.on('error', () => {});
      from.on('close', () => {
        to.destroy();
        this.pairs.delete(pair);
      });
    }
    if (this.is_held) this.pause(pair);
  }

  pause({ near, far }) {
    near.pause();
    far.pause();
  }

  /** Every connection is reset; new ones are served. */
  cut() {
    for (const { near } of this.pairs) near.resetAndDestroy();
  }

  /** As if nobody listened, until open(). */
  refuse() {
    this.is_refusing = true;
    this.cut();
  }

  /** Nothing goes through, and nobody is told, until open(). */
  hold() {
    this.is_held = true;
    for (const pair of this.pairs) this.pause(pair);
  }

  open() {
    this.is_refusing = this.is_held = false;
    for (const { near, far } of this.pairs) {
      near.resume();
      far.resume();
    }
  }

  stop() {
    for (const { near } of this.pairs) near.destroy();
    return new Promise((resolve) => this.server.close(resolve));
  }
}

export async function startCutter(t, target) {
  const cutter = new Cutter(target);
  await new Promise((resolve) => cutter.server.listen(0, '127.0.0.1', resolve));
  cutter.port = cutter.server.address().port;
  t?.after(() => cutter.stop());
  return cutter;
}
