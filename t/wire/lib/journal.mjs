// journal - what `parley_load --journal` and HAProxy have written down.
import fs from 'node:fs';
import path from 'node:path';

/** The lines of all processes: {turns, asked, cuts, closed, answers}, see loadtest/parley_load/asker.h. */
export function readJournal(file) {
  const journal = { turns: [], asked: [], cuts: [], closed: [], answers: [] };
  const dir = path.dirname(file), prefix = `${path.basename(file)}.`;
  for (const name of fs.readdirSync(dir).filter((entry) => entry.startsWith(prefix))) {
    for (const line of fs.readFileSync(path.join(dir, name), 'utf8').split('\n').slice(0, -1)) {
      const [time, what, ...words] = line.split(' ');
      const at = Number(time);
      if (what === 'turn') {
        const [session, id, key, outcome, seq, order] = words;
        journal.turns.push({ at, session, id, key, outcome, seq: Number(seq), in_order: order === 'ordered' });
      } else if (what === 'asked') {
        const [session, key, outcome, tries] = words;
        journal.asked.push({ at, session, key, outcome, tries: Number(tries) });
      } else if (what === 'cut') journal.cuts.push({ at, kind: words[0], address: words[1], seq: Number(words[2]) });
      else if (what === 'closed') journal.closed.push({ at, kind: words[0], address: words[1], code: Number(words[2]) });
      else if (what === 'answer') journal.answers.push({ at, kind: words[0], address: words[1], status: Number(words[2]), code: words[3] });
      else throw new Error(`${name}: ${line}`);
    }
  }
  return journal;
}

/** Requests that have ended: [{client, via, to, status, state}], addresses as ADDRESS:PORT. */
export function readProxyLog(file) {
  return fs.readFileSync(file, 'utf8').split('\n').map((line) => /^ended client=(\S+) via=(\S+) to=(\S+) status=(\S+) state=(\S+)/.exec(line)).filter(Boolean)
    .map(([, client, via, to, status, state]) => ({ client, via, to, status: Number(status), state }));
}
