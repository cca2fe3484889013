// ws_peers - WebSocket servers side by side: memory per idle connection, and messages answered per CPU second.
//
// Every server parses the JSON {"action":"ping"} and answers {"status":"pong"}; ours does so on /ws/chat, behind its keys. They
// take turns, one at a time, each started anew in every round.
import { peers } from './peers.mjs';
import { all_pids, cpuSeconds, generate, hold, median, print, pssBytes } from './lib.mjs';

const sockets = 4000, rounds = 3, talkers = 64, seconds = 3;

async function echo(peer, ...args) {
  const result = await generate(peer.address, ['--users', talkers, ...peer.args, ...args, 'ws-echo'], { key: peer.key });
  if (result.failed + result.refused + result.cut > 0) throw new Error(`ws-echo, ${peer.args.join(' ')}: ${JSON.stringify(result)}`);
  return result;
}

/** What one connection adds, after the first ones have come and gone. */
async function idleBytes(peer) {
  const bytes = () => pssBytes(all_pids(peer));
  const stand = (count) => hold(peer.address, 'idle-ws', { count, key: peer.key, args: peer.args });
  await (await stand(talkers)).release();
  const before = bytes();
  const holder = await stand(sockets);
  const each = (bytes() - before) / sockets;
  await holder.release();
  return each;
}

/** Answers per CPU second of the server. */
async function answered(peer, ...args) {
  await echo(peer, '--count', 5000);
  const before = cpuSeconds(all_pids(peer));
  const { done } = await echo(peer, '--duration', seconds, ...args);
  return done / (cpuSeconds(all_pids(peer)) - before);
}

/** The figure of each peer, a median of the rounds; null where it is not asked for. */
async function compared(figure, is_meant = () => true) {
  const seen = peers.map(() => []);
  for (let round = 0; round < rounds; round++) {
    for (const [i, peer] of peers.entries()) {
      if (!is_meant(peer)) continue;
      const started = await peer.start();
      seen[i].push(await figure(started).finally(() => started.stop()));
    }
  }
  return seen.map((values) => (values.length > 0 ? median(values) : null));
}

function show(what, unit, values, compare) {
  const [ours] = values;
  for (const [i, value] of values.entries()) {
    if (value !== null) print(`${what}: ${peers[i].name}`, value, unit, i > 0 ? compare(value, ours) : `median of ${rounds}`);
  }
}

export default async function ws_peers() {
  const bytes = await compared(idleBytes);
  show(`idle connection of ${sockets}`, 'bytes PSS', bytes, (theirs, ours) => `${(theirs / ours).toFixed(1)} times ours`);
  const can_talk = (peer) => !peer.is_silent;
  for (const [what, args] of [['answers', []], ['answers, 16 asked at a time', ['--window', 16]]]) {
    const rate = await compared((peer) => answered(peer, ...args), can_talk);
    show(`${what}, ${talkers} sockets`, '/CPU-s', rate, (theirs, ours) => `ours ${(ours / theirs).toFixed(1)} times as many`);
  }
}
