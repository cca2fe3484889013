// cutter - a TCP relay between the server and what it needs, that a test can make as bad as a network gets.
//
//   const cutter = await startCutter(t, { port: postgres.port });      cutter.port
//   cutter.cut()            every connection is reset, new ones are served
//   cutter.forget()         those that stand are reset when the server under test next says something, new ones are served
//   cutter.refuse(n)        as if nobody listened, but for the next n (none) connections
//   cutter.hold()           nothing goes through, nobody is told
//   cutter.halfOpen()       those that stand are reset, new ones are accepted and never answered
//   cutter.delay(ms)        every byte comes so much later, in both directions
//   cutter.drip(ms)         one byte at a time, so far apart, in both directions
//   cutter.swallow()        what is sent is lost: those that stand then are reset by open()
//   cutter.open()           all well again; half-open ones stay what they are
import net from 'node:net';

/** One direction of a pair: in order, whatever the cutter does meanwhile. */
class Lane {
  constructor(cutter, from, to) {
    Object.assign(this, { cutter, to, parts: [], timer: null });
    from.setNoDelay(true);
    from.on('data', (part) => this.take(part));
    from.on('end', () => this.take(null));
  }

  /** null: the end. */
  take(part) {
    if (this.cutter.is_swallowing) {
      this.is_spoiled = true;
      return;
    }
    this.parts.push({ part, due: performance.now() + this.cutter.delay_ms });
    if (this.timer === null) this.pass();
  }

  pass() {
    clearTimeout(this.timer);
    this.timer = null;
    while (this.parts.length > 0) {
      const first = this.parts[0], { drip_ms } = this.cutter;
      const wait_ms = this.cutter.delay_ms === 0 ? 0 : first.due - performance.now();
      if (wait_ms > 0) return this.later(wait_ms);
      if (drip_ms > 0 && first.part?.length > 1) {
        this.to.write(first.part.subarray(0, 1));
        first.part = first.part.subarray(1);
      } else {
        this.parts.shift();
        if (first.part === null) this.to.end();
        else this.to.write(first.part);
      }
      if (drip_ms > 0) return this.later(drip_ms);
    }
    return undefined;
  }

  later(ms) {
    this.timer = setTimeout(() => this.pass(), ms);
  }
}

class Cutter {
  constructor(target) {
    Object.assign(this, { target, pairs: new Set(), accepted: 0, accepted_at: [], delay_ms: 0, drip_ms: 0, admitted: 0 });
    Object.assign(this, { is_refusing: false, is_held: false, is_half_open: false, is_swallowing: false });
    this.server = net.createServer({ allowHalfOpen: true }, (near) => this.join(near));
  }

  join(near) {
    this.accepted++;
    this.accepted_at.push(performance.now());
    near.on('error', () => {});
    if (this.is_refusing && this.admitted-- <= 0) {
      near.resetAndDestroy();
      return;
    }
    const pair = { near, far: null, lanes: [] };
    this.pairs.add(pair);
    near.on('close', () => this.end(pair));
    if (this.is_half_open) {
      near.resume(); // read, and never answered
      near.on('end', () => near.destroy());
      return;
    }
    const far = pair.far = net.connect({ port: this.target.port, host: this.target.host ?? '127.0.0.1', allowHalfOpen: true });
    far.on('error', () => {});
    far.on('close', () => this.end(pair));
    pair.lanes = [new Lane(this, near, far), new Lane(this, far, near)];
    if (this.is_held) this.pause(pair);
  }

  end(pair) {
    if (!this.pairs.delete(pair)) return;
    for (const lane of pair.lanes) clearTimeout(lane.timer);
    pair.near.destroy();
    pair.far?.destroy();
  }

  pause({ near, far }) {
    near.pause();
    far?.pause();
  }

  cut() {
    for (const { near } of this.pairs) near.resetAndDestroy();
  }

  forget() {
    for (const { near } of this.pairs) near.removeAllListeners('data').on('data', () => near.resetAndDestroy());
  }

  refuse(admitted = 0) {
    Object.assign(this, { is_refusing: true, admitted });
    this.cut();
  }

  hold() {
    this.is_held = true;
    for (const pair of this.pairs) this.pause(pair);
  }

  halfOpen() {
    this.is_half_open = true;
    this.cut();
  }

  delay(ms) {
    this.delay_ms = ms;
  }

  drip(ms) {
    this.drip_ms = ms;
  }

  swallow() {
    this.is_swallowing = true;
  }

  open() {
    this.is_refusing = this.is_held = this.is_half_open = this.is_swallowing = false;
    this.delay_ms = this.drip_ms = 0;
    for (const pair of this.pairs) {
      const { near, far, lanes } = pair;
      if (lanes.some(({ is_spoiled }) => is_spoiled)) near.resetAndDestroy();
      if (!far || near.destroyed) continue;
      near.resume();
      far.resume();
      for (const lane of lanes) lane.pass();
    }
  }

  stop() {
    for (const pair of this.pairs) this.end(pair);
    return new Promise((resolve) => { this.server.close(resolve); });
  }
}

/** target: {port, host}; options: {host} to listen on. */
export async function startCutter(t, target, { host = '127.0.0.1' } = {}) {
  const cutter = new Cutter(target);
  await new Promise((resolve, reject) => {
    cutter.server.on('error', reject);
    cutter.server.listen(0, host, resolve);
  });
  cutter.port = cutter.server.address().port;
  t?.after(() => cutter.stop());
  return cutter;
}
