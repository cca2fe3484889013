// gateway - chat completions by way of Parley, of plain proxies and of other gateways, side by side.
//
// Each on core 0, the mock and the generator on core 1, in turns, started anew in every round. What a gateway adds is measured per
// answer and per event (the mock stamps them), less what the same way to the mock itself takes in the same round.
import { direct, gateways } from './gateways.mjs';
import { startMock } from '../../t/wire/lib/server.mjs';
import { cpuMicros, generate, median, pin, print } from './lib.mjs';

const rounds = 3, width = 17;
const crowds = [1, 64, 256];
const core_of_gateway = 0;
export const core_of_others = 1;

function answerOf({ choices: [{ message, delta, text }] }) {
  return message?.content ?? delta?.content ?? text ?? '';
}

async function ask(gateway, body) {
  const headers = { 'content-type': 'application/json', authorization: `Bearer ${gateway.key}` };
  for (const header of gateway.args.slice(1)) headers[header.split(': ')[0]] = header.slice(header.indexOf(': ') + 2);
  const response = await fetch(`http://${gateway.address}/v1/chat/completions`, { method: 'POST', headers, body: JSON.stringify(body),
    signal: AbortSignal.timeout(10000) });
  const text = await response.text();
  if (response.status !== 200) throw new Error(`${response.status}: ${text}`);
  return text;
}

/** Answers and streams are whole, as the provider gave them. */
async function checkAnswers(gateway) {
  for (const [tokens, interval] of [[500, 0], [20, 2]]) {
    const expected = Array.from({ length: tokens }, (_, i) => `tok${i}`).join(' ');
    const messages = [{ role: 'user', content: `[[mock tokens=${tokens} interval=${interval}]]` }];
    const whole = JSON.parse(await ask(gateway, { model: 'mock', messages }));
    if (answerOf(whole) !== expected) throw new Error(`not the answer: ${JSON.stringify(whole)}`);
    const stream = await ask(gateway, { model: 'mock', stream: true, messages });
    const data = stream.split(/\r?\n\r?\n/).map((event) => event.replace(/^data: ?/, '')).filter(Boolean);
    if (data.pop() !== '[DONE]') throw new Error(`no end: ${stream.slice(-200)}`);
    const given = data.map((event) => JSON.parse(event)).filter((event) => event.choices.length > 0).map(answerOf).join('');
    if (given !== expected) throw new Error(`not the stream: ${stream}`);
  }
}

/** Starts it, sees that it is right, puts it on its core, does the work, stops it. */
export async function withGateway(gateway, mock, work) {
  const started = await gateway.start(mock);
  try {
    await checkAnswers(started);
    if (gateway !== direct) pin(started.pids, core_of_gateway);
    return await work(started);
  } catch (e) {
    e.message = `${gateway.name}: ${e.message}`;
    throw e;
  } finally {
    await started.stop();
  }
}

/** parley_load's result, all of it whole, with the CPU that the gateway used. */
export async function asked(gateway, ...args) {
  const before = cpuMicros(gateway.pids);
  const result = await generate(gateway.address, [...gateway.args, ...args, 'gateway'], { key: gateway.key, core: core_of_others });
  if (result.failed + result.refused + result.missing + result.died > 0 || result.done === 0) throw new Error(JSON.stringify(result));
  return { ...result, cpu_us: cpuMicros(gateway.pids) - before };
}

/** One figure after the other: {name: value}. */
async function figures(gateway) {
  const seen = {};
  const rate = (name, { done, seconds, cpu_us }) => {
    seen[`${name}, per second`] = done / seconds;
    seen[`${name}, per second of its core`] = done / cpu_us * 1e6;
    seen[`${name}, CPU us`] = cpu_us / done;
  };
  await asked(gateway, '--plain', '--users', 64, '--duration', 1); // it warms up
  rate('answers', await asked(gateway, '--plain', '--users', 64, '--duration', 3));
  rate('streams of 20 tokens at once', await asked(gateway, '--users', 64, '--duration', 2));
  for (const users of crowds) {
    // One asks without a pause; of many each has its own moment.
    const { added_us } = await asked(gateway, '--plain', '--users', users, '--duration', 2, ...(users > 1 ? ['--first', 50] : []));
    seen[`answer at ${users}, p50`] = added_us.p50;
    seen[`answer at ${users}, p99`] = added_us.p99;
    const stream = await asked(gateway, '--users', users, '--duration', 3, '--tokens', 100, '--interval', users > 1 ? 20 : 2,
      ...(users > 1 ? ['--first', 50] : []));
    seen[`event at ${users}, p50`] = stream.chunk_us.p50;
    seen[`event at ${users}, p99`] = stream.chunk_us.p99;
    seen[`event at ${users}, CPU us`] = stream.cpu_us / stream.chunks;
  }
  return seen;
}

export function row(name, values, unit = '') {
  const shown = values.map((value) => (typeof value !== 'number' ? value ?? '' :
    Math.abs(value) >= 100 ? Math.round(value).toLocaleString('en') : value.toFixed(1)));
  console.log(`  ${name.padEnd(46)} ${shown.map((text) => String(text).padStart(width)).join('')}  ${unit}`);
}

export default async function gateway() {
  const all = [direct, ...gateways];
  const seen = all.map(() => []);
  for (let round = 0; round < rounds; round++) {
    for (const [i, each] of all.entries()) {
      const mock = await startMock(null);
      pin([mock.pid], core_of_others);
      seen[i].push(await withGateway(each, mock, figures).finally(() => mock.stop()));
    }
  }
  const of = (i, name) => median(seen[i].map((figure) => figure[name]));
  const added = (i, name) => median(seen[i].map((figure, round) => figure[name] - seen[0][round][name]));
  const each = (value) => gateways.map((_, i) => value(i + 1));

  row(`median of ${rounds}`, gateways.map(({ name }) => name));
  for (const what of ['answers', 'streams of 20 tokens at once']) {
    for (const figure of ['per second', 'per second of its core', 'CPU us']) row(`${what}, ${figure}`, each((i) => of(i, `${what}, ${figure}`)));
  }
  for (const users of crowds) {
    for (const what of ['answer', 'event']) {
      for (const p of ['p50', 'p99']) {
        const name = `${what} at ${users}, ${p}`;
        row(`added per ${name}`, each((i) => added(i, name)), `us; the mock itself ${Math.round(of(0, name))}`);
      }
    }
    row(`CPU per event at ${users}`, each((i) => of(i, `event at ${users}, CPU us`)), 'us');
  }
  const index = (name) => gateways.findIndex((g) => g.name === name) + 1;
  const core_rate = 'answers, per second of its core', cost = 'event at 64, CPU us';
  print('answers per second of a core: ours to portkey', of(1, core_rate) / of(index('portkey'), core_rate), 'times', 'aim at least 20');
  print('added p99 of an answer at 64', added(1, 'answer at 64, p99'), 'us', 'aim under 1,000');
  print('added p99 of an event at 64', added(1, 'event at 64, p99'), 'us', 'aim under 1,000');
  print('CPU per event at 64: ours to nginx', of(1, cost) / of(index('nginx'), cost), 'times', 'aim at most 1.5');
}
