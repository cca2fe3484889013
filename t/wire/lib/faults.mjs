// faults - every fault of mock_llm at every phase, and what it must come to: the table of the tests about providers that fail.
//
// Of a fault: name, fault (for POST /mock/fault; the mock gives `answer`); again: is the same target asked again?
// elsewhere: may the next one be asked? code: what a client sees when nothing helps; message: .. and reads; retry_after: .. and
// waits; kept: the part of the answer that came before the fault; passed_on: the provider's own status, on the
// OpenAI-compatible routes; whole: what differs for an answer that is no stream (null: no fault there).
import fs from 'node:fs';

export const answer = 'one two three four five six';
const words = answer.split(' ');
const refusal = 'The content policy forbids this. (content_policy_violation)';
const too_long = "This model's maximum context length is exceeded. (context_length_exceeded)";

const before_first_token = [
  { name: 'connection refused', gone: true, again: true, code: 'provider_error' },
  { name: 'silent', fault: { fault: 'silence' }, code: 'provider_timeout' },
  { name: 'slow', fault: { fault: 'slow_first', first: 5000 }, code: 'provider_timeout' },
  { name: '429', fault: { fault: 'status:429' }, again: true, code: 'rate_limited' },
  { name: '429, Retry-After in seconds', fault: { fault: 'status:429', retry_after: 40 }, code: 'rate_limited', retry_after: [40, 40] },
  { name: '429, Retry-After as a date', fault: { fault: 'status:429', retry_after: 'date+40' }, code: 'rate_limited', retry_after: [20, 40] },
  { name: '500', fault: { fault: 'status:500' }, again: true, code: 'provider_error' },
  { name: '503', fault: { fault: 'status:503' }, again: true, code: 'provider_error' },
  { name: '408', fault: { fault: 'status:408' }, again: true, code: 'provider_error' },
  { name: '409', fault: { fault: 'status:409' }, again: true, code: 'provider_error' },
  { name: '401', fault: { fault: 'status:401' }, code: 'provider_error' },
  { name: '404', fault: { fault: 'status:404' }, code: 'provider_refused', passed_on: 404 },
  { name: 'context length', fault: { fault: 'context' }, elsewhere: false, code: 'provider_refused', message: too_long, passed_on: 400 },
  { name: 'content policy', fault: { fault: 'policy' }, elsewhere: false, code: 'provider_refused', message: refusal, passed_on: 400 },
  // A kept connection that breaks before a byte of the answer is replaced by libcurl: once more, and no attempt of ours.
  { name: 'reset', fault: { fault: 'reset' }, again: true, reconnects: true, code: 'provider_error' },
  { name: 'closed', fault: { fault: 'close' }, again: true, reconnects: true, code: 'provider_error' },
  { name: 'no event stream', fault: { fault: 'wrong_type' }, code: 'provider_error' },
  { name: 'an empty stream', fault: { fault: 'empty' }, again: true, code: 'provider_error', whole: { again: false } },
];

/** What happens in a stream, after so many of its deltas. */
const in_stream = [
  { name: 'cut', fault: 'cut_mid', again: true, code: 'provider_error', whole: { again: true } },
  { name: 'closed', fault: 'cut_fin', again: true, code: 'provider_error', whole: { again: true } },
  { name: 'ended early', fault: 'cut_clean', again: true, code: 'provider_error', whole: { again: true } },
  { name: 'stalled', fault: 'stall', code: 'provider_timeout' },
  { name: 'malformed', fault: 'malformed', code: 'provider_error' },
  { name: 'bad UTF-8', fault: 'bad_utf8', code: 'provider_error' },
  { name: 'error event', fault: 'error_event', again: true, code: 'provider_error', whole: null },
];
const phases = { 'before the first token': 0, 'after the first token': 2, 'after the last token': words.length };

function at_phase(f, after) {
  return { ...f, fault: { fault: f.fault, after }, again: after === 0 && f.again, kept: words.slice(0, after).join(' ') };
}

/** [{ phase, name, .. }] */
export const faults = [
  ...before_first_token.map((f) => ({ phase: 'before the first token', kept: '', ...f })),
  ...Object.entries(phases).flatMap(([phase, after]) => in_stream.map((f) => ({ phase, ...at_phase(f, after) }))),
  { phase: 'at the end', name: '[DONE] without finish_reason', fault: { fault: 'no_finish' }, kept: answer, code: 'provider_error', whole: null },
];

/** What is odd, and no failure. text: what the provider says then; is_long: for more than a second there is no token. */
export const oddities = [
  { name: 'none', fault: { fault: 'none' } },
  { name: 'no [DONE]', fault: { fault: 'no_done' } },
  { name: 'cut after finish_reason', fault: { fault: 'finish_cut' } },
  { name: 'finish_reason twice', fault: { fault: 'duplicate_finish' } },
  { name: 'a delta twice', fault: { fault: 'duplicate' }, text: 'one two three three four five six' },
  { name: 'byte by byte', fault: { fault: 'drip', interval: 0 } },
  { name: 'no end after [DONE]', fault: { fault: 'linger' } },
  { name: 'CRLF and comments', fault: { fault: 'crlf' } },
  { name: 'thinks for longer than both limits', is_long: true, fault: { fault: 'comments', after: 0, first: 1200 } },
  { name: 'thinks again in the middle', is_long: true, fault: { fault: 'comments', after: 2, first: 1200 } },
];

/** Faults of the mock that no row above has. */
export function missing(more = []) {
  const table = fs.readFileSync(new URL('../../../loadtest/mock_llm/faults.tbl', import.meta.url), 'utf8');
  const names = [...table.matchAll(/^X\(\w+, "(\w+)"/gm)].map(([, name]) => name);
  const used = new Set([...faults, ...oddities].map((f) => f.fault?.fault.replace(/:.*/, '')).concat(more));
  return names.filter((name) => !used.has(name));
}
